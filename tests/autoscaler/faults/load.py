"""Random shapes of load, and random numbers by hand: `random.Random` has no Poisson."""

from __future__ import annotations

import random
from math import cos, exp, pi, sqrt


def draw_load(rng: random.Random, faulty_s: int, last_s: int, peak: float) -> list[float]:
    """Load of each second in concurrent requests, at most `peak`; steady from `faulty_s` on."""
    load: list[float] = []
    while len(load) < faulty_s:
        load += _piece(rng, rng.randint(60, 500), load[-1] if load else peak * rng.random())
        load = [min(1.0 * peak, value) for value in load]
        if rng.random() < 0.5:  # a step to somewhere
            load.append(peak * rng.choice((0.0, 0.01, 0.1, 0.5, 1.0)))
    del load[faulty_s:]
    level = rng.choice((0.0, load[-1], load[-1], peak * rng.random(), peak))
    return load + [level] * (last_s + 1 - faulty_s)


def _piece(rng: random.Random, seconds: int, start: float) -> list[float]:
    """Some seconds of one shape that begins near `start`."""
    kind = rng.choice(("steady", "steady", "ramp", "wave", "bursts", "flash", "drop", "walk"))
    if kind == "ramp":
        end = start * rng.choice((0.0, 0.2, 3.0, 10.0))
        return [start + (end - start) * i / seconds for i in range(seconds)]
    if kind == "wave":
        period_s = rng.randint(20, 400)
        return [start * (0.55 + 0.45 * cos(2 * pi * i / period_s)) for i in range(seconds)]
    if kind in ("bursts", "flash", "drop"):
        every_s = rng.randint(30, 300) if kind == "bursts" else seconds
        factor = 0.05 if kind == "drop" else rng.choice((3.0, 10.0, 30.0))
        lasts_s = every_s * 0.9 if kind == "drop" else rng.randint(5, 40)
        return [start * (factor if i % every_s < lasts_s else 1.0) for i in range(seconds)]
    if kind == "walk":
        values = [start]
        for _ in range(seconds - 1):
            values.append(values[-1] * exp(rng.gauss(0.0, 0.05)))
        return values
    return [start] * seconds


def poisson(rng: random.Random, mean: float) -> int:
    """A Poisson number; above 30 the normal one with its mean and variance is as good."""
    if mean > 30.0:
        return max(0, round(rng.gauss(mean, sqrt(mean))))
    count, left = 0, rng.random()
    limit = exp(-mean)
    while left > limit:
        left *= rng.random()
        count += 1
    return count
