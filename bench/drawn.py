"""Loads drawn from a seed: of kinds that users know, with numbers that nobody chose.

What is tuned while one looks at a table is good on that table. Another seed gives other loads: what is
printed for it was not known to whoever chose a constant.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from trimtab.autoscaler.simulator.traces import Rates

Floats = NDArray[np.float64]

LENGTH_S = 3 * 3600
FADE_S = 30.0  # a crowd leaves so: by 1/e


def drawn(seed: int) -> dict[str, Rates]:
    """Loads by what they are: per second, relative, three hours each. The same for the same seed."""
    kinds = {"crowds": crowds, "batches": batches, "wander": wander, "steps": steps, "drops": drops}
    streams = default_rng(seed).spawn(len(kinds))
    return {
        name: Rates(f"{name}-{seed}", make(stream))
        for (name, make), stream in zip(kinds.items(), streams, strict=True)
    }


def crowds(rng: Generator) -> Floats:
    """Crowds of any height (Pareto) and length, at any time, over a steady load."""
    every_s, tail = rng.uniform(400.0, 1500.0), rng.uniform(1.2, 2.5)
    per_second = np.ones(LENGTH_S)
    at_s = rng.exponential(every_s)
    while at_s < LENGTH_S:
        height, rises_s, lasts_s = 1.0 + rng.pareto(tail), rng.integers(1, 30), rng.integers(20, 180)
        fades = np.exp(-np.arange(4 * FADE_S) / FADE_S)
        crowd = height * np.concatenate((np.linspace(0.0, 1.0, rises_s), np.ones(lasts_s), fades))
        part = per_second[int(at_s) : int(at_s) + crowd.size]
        part += crowd[: part.size]
        at_s += rng.exponential(every_s)
    return per_second


def batches(rng: Generator) -> Floats:
    """The same batch by the clock."""
    every_s, lasts_s, height = rng.integers(240, 1500), rng.integers(20, 120), rng.uniform(2.0, 6.0)
    return np.where(np.arange(LENGTH_S) % every_s < lasts_s, height, 1.0)


def wander(rng: Generator) -> Floats:
    """Up and down by chance: the exponential of an Ornstein-Uhlenbeck process."""
    spread, memory_s = rng.uniform(0.2, 0.5), rng.uniform(60.0, 600.0)
    keeps = np.exp(-1.0 / memory_s)
    shocks = rng.standard_normal(LENGTH_S) * spread * np.sqrt(1.0 - keeps**2)
    log_load = np.zeros(LENGTH_S)
    for second in range(1, LENGTH_S):
        log_load[second] = keeps * log_load[second - 1] + shocks[second]
    return np.exp(log_load)


def steps(rng: Generator) -> Floats:
    """Levels that change at once, a few times an hour."""
    per_second, at_s = np.ones(LENGTH_S), 0.0
    while at_s < LENGTH_S:
        per_second[int(at_s) :] = np.exp(rng.uniform(0.0, np.log(10.0)))
        at_s += rng.uniform(600.0, 1800.0)
    return per_second


def drops(rng: Generator) -> Floats:
    """A steady load that is mostly gone for some minutes, now and then."""
    per_second, at_s = np.ones(LENGTH_S), rng.uniform(600.0, 1500.0)
    while at_s < LENGTH_S:
        lasts_s = rng.integers(60, 420)
        per_second[int(at_s) : int(at_s) + lasts_s] = 1.0 - rng.uniform(0.5, 0.95)
        at_s += lasts_s + rng.uniform(600.0, 1500.0)
    return per_second
