"""Single arrivals out of a trace: counts spread within their period, requests copied, rates drawn.

A source is a trace whose time has been moved: 0 is where the scored window begins. It tells how much
work arrives between two times, and draws arrivals at a multiple of that.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import NamedTuple, Protocol

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from trimtab.autoscaler.simulator.traces import Counts, Rates, Trace

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BURST_A = 20.0
"""A of the cascade's Beta(A, A): a half of a minute differs from its share by 16 % (one deviation)."""

MINUTE_S = 60.0
"""Where the cascade begins. A longer period is spread evenly over its minutes, or such parts, before."""

LEAF_S = 1.875
"""A minute halved five times: shorter than any decision's period. Within it arrivals are independent."""

ROUNDING = 1e-9  # of a minute: what --speed leaves of a float's error makes no second part

DISPLACED_S = 2.5
"""A copy of a request lies this far from it at most: bursts of some seconds stay bursts."""


class Arrivals(NamedTuple):
    """When requests come (s), in no order, and what each costs relative to the mean (None: all alike)."""

    times_s: Floats
    costs: Floats | None


class Source(Protocol):
    """A trace in simulated time."""

    @property
    def data_s(self) -> float:
        """From when on the trace has data."""
        ...

    def work(self, edges_s: Floats) -> Floats:
        """Requests between each two neighbours of `edges_s`, each counted with its relative cost."""
        ...

    def draw(self, low_s: float, high_s: float, factor: float, generator: Generator) -> Arrivals:
        """Arrivals in [low_s, high_s) at `factor` times the trace's rate."""
        ...

    def costs_of(self, number: int, generator: Generator) -> Floats | None:
        """Relative costs of so many more requests like these; None if all are alike."""
        ...


def source_of(trace: Trace, zero_s: float, until_s: float, speed: float, burst_a: float) -> Source:
    """A trace whose time `zero_s` becomes 0, `speed` times as fast. Its costs average 1 up to `until_s`."""
    start_s = (trace.start_s - zero_s) / speed
    if isinstance(trace, Counts):
        return _Periods(start_s, trace.period_s / speed, trace.counts, burst_a)
    if isinstance(trace, Rates):
        return _Periods(start_s, 1.0 / speed, trace.per_second, None)
    scored = (trace.times_s >= zero_s) & (trace.times_s < until_s)
    mean = trace.costs[scored].mean() if scored.any() else 1.0
    return _Rows((trace.times_s - zero_s) / speed, trace.costs / mean)


@dataclass(frozen=True)
class _Periods:
    """So many arrivals in each period: spread by a cascade; or only expected, if there is no `burst_a`."""

    data_s: float
    period_s: float
    counts: Floats
    burst_a: float | None

    def work(self, edges_s: Floats) -> Floats:
        own_s = self.data_s + self.period_s * np.arange(self.counts.size + 1)
        total = np.concatenate(([0.0], np.cumsum(self.counts)))
        return np.diff(np.interp(edges_s, own_s, total))

    def draw(self, low_s: float, high_s: float, factor: float, generator: Generator) -> Arrivals:
        parts = max(1, ceil(self.period_s / MINUTE_S - ROUNDING))
        leaf_s = self.period_s / parts
        first = max(0, int((low_s - self.data_s) / leaf_s))
        last = min(self.counts.size * parts, ceil((high_s - self.data_s) / leaf_s))
        wanted = self.counts[np.arange(first, last) // parts] * (factor / parts)
        begin_s, counts = self.data_s + first * leaf_s, self._whole(wanted, generator)
        while self.burst_a is not None and leaf_s > LEAF_S:
            counts, leaf_s = halved(counts, self.burst_a, generator), leaf_s / 2
        begins_s = begin_s + leaf_s * np.arange(counts.size)
        times_s = np.repeat(begins_s, counts)
        times_s += leaf_s * generator.random(times_s.size)
        inside = (times_s >= low_s) & (times_s < high_s)
        return Arrivals(times_s if inside.all() else times_s[inside], None)

    def _whole(self, wanted: Floats, generator: Generator) -> Ints:
        if self.burst_a is None:
            return generator.poisson(wanted)
        return np.floor(wanted + generator.random(wanted.size)).astype(np.int64)

    def costs_of(self, number: int, generator: Generator) -> Floats | None:  # noqa: ARG002 -- Source's
        return None


def halved(counts: Ints, burst_a: float, generator: Generator) -> Ints:
    """One step of the cascade: each count split in two, the first half with p ~ Beta(A, A). Shape (2 N,)."""
    first = generator.binomial(counts, generator.beta(burst_a, burst_a, counts.size))
    return np.stack((first, counts - first), axis=1).ravel()


@dataclass(frozen=True)
class _Rows:
    """Single requests; `times_s` rising."""

    times_s: Floats
    costs: Floats

    @property
    def data_s(self) -> float:
        return float(self.times_s[0])

    def work(self, edges_s: Floats) -> Floats:
        total = np.concatenate(([0.0], np.cumsum(self.costs)))
        return np.diff(total[np.searchsorted(self.times_s, edges_s)])

    def draw(self, low_s: float, high_s: float, factor: float, generator: Generator) -> Arrivals:
        first, last = np.searchsorted(self.times_s, (low_s, high_s))
        copies = np.floor(factor + generator.random(last - first)).astype(np.int64)
        times_s = np.repeat(self.times_s[first:last], copies)
        times_s += generator.uniform(-DISPLACED_S, DISPLACED_S, times_s.size)
        # As many would come in from beyond an edge as go out over it.
        times_s = np.where(times_s < low_s, 2 * low_s - times_s, times_s)
        times_s = np.where(times_s >= high_s, 2 * high_s - times_s, times_s)
        return Arrivals(
            np.clip(times_s, low_s, np.nextafter(high_s, low_s)), np.repeat(self.costs[first:last], copies)
        )

    def costs_of(self, number: int, generator: Generator) -> Floats | None:
        return generator.choice(self.costs, number)
