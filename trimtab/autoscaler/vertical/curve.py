"""Throughput over concurrency: a line of latency, then a plateau or a fall; and the limit as good as best.

While a pod has room, the time of a request is a line in the number of requests in flight, a + b n
(Little: throughput n / (a + b n)). b = 0 is requests that do not touch each other; b > 0 a batch whose
time grows with it, or a shared part (n / (a + b n) is hyperbolic saturation). Beyond the knee throughput
stays at c, or falls with a power of n (locks, thrashing). Some models pass from the one to the other with
an edge, others smoothly. A few levels, each with its noise, seldom tell which: so all curves that may be
are kept, each with its likelihood, and throughput is their mean.

A worked example: 5/s at 1, 10/s at 2, 20/s at 4, 27/s at 8 and at 16. The line is a = 0.2 s, b = 0, the
plateau 27/s; 97 % of it is 26.2/s, which needs 5.24 in flight: the limit is 6.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import exp, inf, log, sqrt
from typing import NamedTuple

from trimtab.autoscaler.vertical.state import Level, LimitState
from trimtab.autoscaler.vertical.tuning import LimitTuning

_FALL_MAX = 4.0  # throughput over a limit doubled falls to a sixteenth: steeper is no curve
_SHARP = (2.0, 4.0, 8.0)


class Curve(NamedTuple):
    """The time of a request with n in flight (s): a line, then n / rate with `rate` = c n^-fall.

    `sharp` p joins the two: (line^p + (n / rate)^p)^(1/p), the larger of them where p is infinite.
    """

    a_s: float
    b_s: float
    c: float
    fall: float = 0.0
    sharp: float = inf

    def rate(self, in_flight: float) -> float:
        """Completions per second of a pod that holds `in_flight`."""
        line_s = self.a_s + self.b_s * in_flight
        top_s = in_flight ** (1.0 + self.fall) / self.c
        longer: float = max(line_s, top_s)
        shorter = min(line_s, top_s)
        if self.sharp < inf:
            longer *= (1.0 + (shorter / longer) ** self.sharp) ** (1.0 / self.sharp)
        return in_flight / longer


class Fit(NamedTuple):
    """The curves that may be, each with its weight; the weights sum to 1."""

    curves: tuple[tuple[float, Curve], ...]
    most: float  # in flight: beyond, nothing is known

    def rate(self, in_flight: float) -> float:
        """Completions per second of a pod that holds `in_flight`, as is to be expected."""
        return sum([weight * curve.rate(in_flight) for weight, curve in self.curves])

    def limits(self) -> list[int]:
        """Limits up to what was tried, as near as matters."""
        found = [1]
        while found[-1] < self.most:
            found.append(max(found[-1] + 1, int(found[-1] * 1.01)))
        return found

    def best(self) -> float:
        """The highest throughput within what was tried."""
        return max([self.rate(limit) for limit in self.limits()])


class _Point(NamedTuple):
    n: float
    rate: float
    error: float  # relative


def error(level: Level, state: LimitState, tuning: LimitTuning) -> float:
    """Relative standard error of a level's throughput, from how completions disperse (variance / mean)."""
    prior = 5.0  # periods for which the assumed dispersion counts
    spread = (tuning.dispersion * prior + state.dispersion) / (prior + state.dispersion_periods)
    return sqrt(max(spread, tuning.dispersion_min) / level.completions + tuning.model_error**2)


def fit(levels: Sequence[Level], state: LimitState, tuning: LimitTuning) -> Fit:
    """The curves nearest to the levels (at least one), weighed by their likelihood (Akaike weights)."""
    points = sorted([_Point(level.in_flight, level.rate, error(level, state, tuning)) for level in levels])
    found = []
    for curve, parameters in _candidates(points):
        misfit = sum([(log(curve.rate(p.n) / p.rate) / p.error) ** 2 for p in points])
        found.append((misfit + 2.0 * parameters, curve))
    least = min(found)[0]
    likely = [
        (exp((least - misfit) / 2), curve) for misfit, curve in found if misfit < least + tuning.unlikely
    ]
    total = sum([weight for weight, _ in likely])
    return Fit(tuple([(weight / total, curve) for weight, curve in likely]), points[-1].n)


def knee(curve: Fit, levels: Sequence[Level], state: LimitState, tuning: LimitTuning) -> int:
    """The smallest limit that reaches the aimed share of the best throughput within what was tried."""
    limits = curve.limits()
    rates = [curve.rate(limit) for limit in limits]
    doubt = min(tuning.aim_slack, 1.5 * min([error(level, state, tuning) for level in levels]))
    best = max(rates)
    return next(
        limit
        for limit, rate in zip(limits, rates, strict=True)
        if rate >= (tuning.aim - min(doubt, tuning.step_earns / limit)) * best
    )


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


def _candidates(points: Sequence[_Point]) -> Iterator[tuple[Curve, int]]:
    """Curves to be weighed, each with the number of its parameters beyond one."""
    for cut in range(len(points) + 1):
        a_s, b_s = _line(points[:cut], 1.0)
        for falls in (False, True) if len(points) - cut > 1 else (False,):
            c, fall = _top(points[cut:], falls)
            yield Curve(a_s, b_s, c, fall), (b_s > 0) + (cut < len(points)) + falls
    for sharp in _SHARP:
        a, b = _line(points, sharp)
        if a > 0 and b > 0:
            yield Curve(a ** (1.0 / sharp), 0.0, b ** (-1.0 / sharp), sharp=sharp), 2


def _top(points: Sequence[_Point], falls: bool) -> tuple[float, float]:
    """c and fall of rate = c n^-fall through the points, by squares of relative errors."""
    if not points:
        return inf, 0.0
    weights = [p.error**-2 for p in points]
    total = sum(weights)
    mean_n = sum([w * log(p.n) for w, p in zip(weights, points, strict=True)]) / total
    mean = sum([w * log(p.rate) for w, p in zip(weights, points, strict=True)]) / total
    if not falls:
        return exp(mean), 0.0
    square = sum([w * (log(p.n) - mean_n) ** 2 for w, p in zip(weights, points, strict=True)])
    product = sum([w * (log(p.n) - mean_n) * log(p.rate) for w, p in zip(weights, points, strict=True)])
    fall = -product / square if square > 0 else 0.0
    fall = fall if 0.0 < fall < _FALL_MAX else 0.0
    return exp(mean + fall * mean_n), fall


def _line(points: Sequence[_Point], power: float) -> tuple[float, float]:
    """a and b of time^power = a + b n^power, neither below zero, by squares of relative errors."""
    if not points:
        return 0.0, 0.0
    # each equation 1 = a x + b y with x = 1 / time^power, y = (n / time)^power
    xs = [(p.rate / p.n) ** power for p in points]
    ys = [p.rate**power for p in points]
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
