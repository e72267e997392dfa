"""Quantiles and sums from Envoy's histograms of whole milliseconds.

Envoy sorts each value into a bin of two significant digits (1500 to 1599 ms is one bin) and counts
a bin under the bound `b` if the bin *begins* at or below `b`. Measured: 1,555 ms is counted under
1500. So a bucket reaches from the end of one bound's bin to the end of the next bound's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

# Upper bounds in ms, each the beginning of a bin. Every ms up to 10, because Envoy counts whole ms
# (0.5 keeps "less than one" apart); from there each is about a fifth above the last, so that an
# interpolated quantile is off by a few per cent.
BOUNDS_MS = (
    *(0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0),
    *(12.0, 15.0, 18.0, 22.0, 27.0, 33.0, 40.0, 50.0, 60.0, 75.0, 90.0),
    *(110.0, 130.0, 160.0, 200.0, 250.0, 300.0, 370.0, 450.0, 550.0, 670.0, 820.0),
    *(1_000.0, 1_200.0, 1_500.0, 1_800.0, 2_200.0, 2_700.0, 3_300.0, 4_000.0, 5_000.0, 6_000.0, 7_500.0),
    *(9_000.0, 11_000.0, 13_000.0, 16_000.0, 20_000.0, 25_000.0, 30_000.0, 45_000.0, 60_000.0, 90_000.0),
    *(120_000.0, 180_000.0, 300_000.0, 600_000.0, 3_600_000.0),
)

# The same for values in microseconds, from 10 us to 750 s.
_DIGITS = (10, 12, 15, 18, 22, 27, 33, 40, 50, 60, 75, 90)
BOUNDS_US = tuple(float(digits * 10**power) for power in range(8) for digits in _DIGITS)[:-1]

_LOST_BELOW_10_MS = 0.45  # ms: half of one is cut off each value, and Envoy gives half a bin (0.05) back


@dataclass(frozen=True)
class Histogram:
    """Counts of values per bucket. `counts` has one entry more than `bounds_ms`: what lies above all."""

    bounds_ms: tuple[float, ...]
    counts: tuple[int, ...]
    sum_ms: float

    def __post_init__(self) -> None:
        if len(self.counts) != len(self.bounds_ms) + 1:
            raise ValueError(f"{len(self.bounds_ms)} bounds, but {len(self.counts)} counts")

    @property
    def count(self) -> int:
        return sum(self.counts)

    @property
    def total_s(self) -> float:
        """The sum of all values in seconds, with what counting in whole ms cut off put back.

        Worked example: 1,000 requests of 0.4 ms are 1,000 zeros to Envoy; here they are 0.45 s.
        From 10 ms on Envoy's bins are at least 1 ms wide, and taking their middle corrects it already.
        """
        below = sum(count for bound, count in zip(self.bounds_ms, self.counts, strict=False) if bound < 10)
        return (self.sum_ms + below * _LOST_BELOW_10_MS) / 1e3

    def plus(self, other: Histogram) -> Histogram:
        """Both together. Raises ValueError if their bounds differ."""
        if self.bounds_ms != other.bounds_ms:
            raise ValueError("histograms with different bounds")
        counts = tuple(map(sum, zip(self.counts, other.counts, strict=True)))
        return Histogram(self.bounds_ms, counts, self.sum_ms + other.sum_ms)

    def quantile_s(self, q: float) -> float:
        """The value in seconds below which the share `q` (0..1) lies; values spread evenly in a bucket.

        What lies above the last bound counts as that bound. Raises ValueError if it is empty.
        """
        rank = q * self.count
        if self.count == 0 or not 0 <= q <= 1:
            raise ValueError(f"no quantile {q} of {self.count} values")
        lower_ms, below = 0.0, 0
        for bound_ms, count in zip(self.bounds_ms, self.counts, strict=False):
            upper_ms = bin_end_ms(bound_ms)
            if count and below + count >= rank:
                return (lower_ms + (upper_ms - lower_ms) * (rank - below) / count) / 1e3
            lower_ms, below = upper_ms, below + count
        return lower_ms / 1e3


def bin_end_ms(bound_ms: float) -> float:
    """Where the bin of `bound_ms` ends, in whole ms: 0.5 → 1, 7 → 8, 12 → 13, 150 → 160, 1500 → 1600."""
    if bound_ms < 10:
        return math.floor(bound_ms) + 1.0
    width = 10.0 ** (math.floor(math.log10(bound_ms)) - 1)
    return (math.floor(bound_ms / width) + 1) * width


def histogram_of(bounds_ms: Sequence[float], counts: Sequence[int], sum_ms: float) -> Histogram:
    """A histogram from what a message holds. Raises ValueError if that cannot be one."""
    bounds, numbers = tuple(bounds_ms), tuple(counts)
    rising = all(low < high for low, high in pairwise(bounds))
    if not rising or (bounds and bounds[0] <= 0) or not 0 <= sum_ms < math.inf:
        raise ValueError("bounds must rise from above 0, and the sum be a number")
    return Histogram(bounds, numbers, sum_ms)
