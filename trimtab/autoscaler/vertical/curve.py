"""Throughput over concurrency: a line of latency, then a plateau; and the limit where it is as good as best.

While a pod has room, the time of a request is a line in the number of requests in flight, a + b n
(Little: throughput n / (a + b n)). b = 0 is requests that do not touch each other; b > 0 a batch whose
time grows with it, or a shared part (n / (a + b n) is hyperbolic saturation). Beyond the knee throughput
stays at c. Throughput that falls again (locks, thrashing) lies beyond the best limit and is not fitted.

A worked example: 5/s at 1, 10/s at 2, 20/s at 4, 27/s at 8 and at 16. The line is a = 0.2 s, b = 0, the
plateau 27/s; 97 % of it is 26.2/s, which needs 5.24 in flight: the limit is 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import copysign, exp, inf, log, sqrt
from typing import NamedTuple

from trimtab.autoscaler.vertical.state import Level, LimitState
from trimtab.autoscaler.vertical.tuning import LimitTuning


class Curve(NamedTuple):
    """Throughput per pod (per second) is min(n / (a + b n), c) with n in flight, bent to what was seen."""

    a_s: float
    b_s: float
    c: float
    most: float = inf  # in flight: beyond, nothing is known or throughput falls again
    bends: tuple[tuple[float, float], ...] = ()  # (log n, log of measured over fitted), by n

    def rate(self, in_flight: float) -> float:
        """Completions per second of a pod that holds `in_flight`."""
        time_s = self.a_s + self.b_s * in_flight
        smooth = min(in_flight / time_s if time_s else inf, self.c)
        return smooth * exp(_between(self.bends, log(in_flight))) if self.bends else smooth

    def best(self) -> float:
        """The highest throughput within what was tried."""
        return max([self.rate(self.most), *[self.rate(exp(at)) for at, _ in self.bends]])


class _Point(NamedTuple):
    n: float
    rate: float
    error: float  # relative


def error(level: Level, state: LimitState, tuning: LimitTuning) -> float:
    """Relative standard error of a level's throughput, from how completions disperse (variance / mean)."""
    prior = 5.0  # periods for which the assumed dispersion counts
    spread = (tuning.dispersion * prior + state.dispersion) / (prior + state.dispersion_periods)
    return sqrt(max(spread, tuning.dispersion_min) / level.completions + tuning.model_error**2)


def fit(levels: Sequence[Level], state: LimitState, tuning: LimitTuning) -> Curve:
    """The curve nearest to the levels (at least one), by weighted squares of relative errors.

    Where a level is farther from it than by most of its error, the curve is bent there by the rest.
    """
    points = _before_collapse(
        [_Point(level.in_flight, level.rate, error(level, state, tuning)) for level in levels]
    )
    best, least = Curve(0.0, 0.0, points[0].rate), inf
    for cut in range(len(points) + 1):
        curve = _with_cut(points, cut)
        misfit = sum([(log(curve.rate(p.n) / p.rate) / p.error) ** 2 for p in points])
        misfit += 2.0 * ((curve.b_s > 0) + (cut < len(points)))  # Akaike: a parameter must earn itself
        if misfit < least - 1e-9:
            best, least = curve, misfit
    off = [(p, log(p.rate / best.rate(p.n))) for p in points]
    bends = tuple([(log(p.n), copysign(max(0.0, abs(by) - 0.6 * p.error), by)) for p, by in off])
    return best._replace(most=points[-1].n, bends=bends)


def knee(curve: Curve, levels: Sequence[Level], state: LimitState, tuning: LimitTuning) -> int:
    """The smallest limit that reaches the aimed share of the best throughput within what was tried."""
    best, limit = curve.best(), 1
    doubt = min(tuning.aim_slack, 1.5 * min([error(level, state, tuning) for level in levels]))
    while (
        limit < curve.most and curve.rate(limit) < (tuning.aim - min(doubt, tuning.step_earns / limit)) * best
    ):
        limit = max(limit + 1, int(limit * 1.01))
    return limit


def peak_between(levels: Sequence[Level], state: LimitState, tuning: LimitTuning) -> int | None:
    """A limit not tried yet, beside the best one, where throughput may be higher beyond doubt; else None.

    The time of a request bends upwards: between two levels it is no less than the lines through the
    two levels on either side say, drawn on. With 40/s at 4, 80/s at 8 and 79/s at 16, 12 may give 120/s.
    """
    top = max(range(len(levels)), key=lambda i: levels[i].rate)
    best, found = levels[top].rate, None
    best *= 1.0 + max(tuning.gain_min, 2.0 * error(levels[top], state, tuning))
    for i in (top - 1, top):
        if i < 0 or i + 1 >= len(levels):
            continue
        low, high = levels[i], levels[i + 1]
        for share in (0.3, 0.5, 0.7):
            limit = round(low.limit ** (1 - share) * high.limit**share)
            if not 1.1 * low.limit < limit < high.limit / 1.1:
                continue
            least_s = low.time_s
            if i > 0:
                least_s = max(least_s, _extended(levels[i - 1], low, limit))
            if i + 2 < len(levels):
                least_s = max(least_s, _extended(high, levels[i + 2], limit))
            bounded = i + 2 < len(levels)
            if limit / least_s > best and (bounded or share == 0.5):
                best, found = limit / least_s, limit
    return found


def _extended(one: Level, other: Level, in_flight: float) -> float:
    """Time of a request with `in_flight`, on the line through two levels (s)."""
    span = other.in_flight - one.in_flight
    slope = (other.time_s - one.time_s) / span if span > 0 else 0.0
    return one.time_s + slope * (in_flight - one.in_flight)


def _between(bends: Sequence[tuple[float, float]], at: float) -> float:
    """Linear between the bends, constant beyond them."""
    before = bends[0]
    for bend in bends:
        if at <= bend[0]:
            span = bend[0] - before[0]
            return bend[1] if span <= 0 else before[1] + (bend[1] - before[1]) * (at - before[0]) / span
        before = bend
    return before[1]


def _before_collapse(points: list[_Point]) -> list[_Point]:
    """The points up to where throughput falls again beyond doubt."""
    top = max(points, key=lambda p: p.rate)
    kept = [
        p
        for p in points
        if p.n <= top.n or log(top.rate / p.rate) < max(0.05, 2 * sqrt(p.error**2 + top.error**2))
    ]
    return sorted(kept)


def _with_cut(points: Sequence[_Point], cut: int) -> Curve:
    """A line through the first `cut` points, a plateau through the rest."""
    a_s, b_s = _line(points[:cut])
    flat = points[cut:]
    weight = sum([p.error**-2 for p in flat])
    c = exp(sum([log(p.rate) * p.error**-2 for p in flat]) / weight) if flat else inf
    return Curve(a_s, b_s, c)


def _line(points: Sequence[_Point]) -> tuple[float, float]:
    """a and b of time = a + b n, neither below zero, by squares of relative errors."""
    if not points:
        return 0.0, 0.0
    # each equation 1 = a x + b y with x = 1 / time, y = n / time
    xs = [p.rate / p.n for p in points]
    ys = [p.rate for p in points]
    ws = [p.error**-2 for p in points]
    xx = sum([w * x * x for w, x in zip(ws, xs, strict=True)])
    xy = sum([w * x * y for w, x, y in zip(ws, xs, ys, strict=True)])
    yy = sum([w * y * y for w, y in zip(ws, ys, strict=True)])
    x1 = sum([w * x for w, x in zip(ws, xs, strict=True)])
    y1 = sum([w * y for w, y in zip(ws, ys, strict=True)])
    det = xx * yy - xy * xy
    if len(points) > 1 and det > 1e-9 * xx * yy:
        a_s, b_s = (x1 * yy - y1 * xy) / det, (y1 * xx - x1 * xy) / det
        if a_s > 0 and b_s >= 0:
            return a_s, b_s
        if a_s <= 0:
            return 0.0, y1 / yy
    return x1 / xx, 0.0
