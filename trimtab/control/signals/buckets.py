"""How long many things took: counts by upper bounds, as pods' pages and Envoy's histograms have them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import inf, isfinite

from trimtab.envoy.histogram import Histogram, bin_end_ms

BOUNDS_MAX = 500


@dataclass(frozen=True)
class Buckets:
    """`counts` has one entry more than `bounds_s`: what lies above all."""

    bounds_s: tuple[float, ...]
    counts: tuple[float, ...]

    @property
    def count(self) -> float:
        return sum(self.counts)

    def plus(self, other: Buckets | None) -> Buckets:
        """Both together; those with other bounds are left out: a server of another version."""
        if other is None or other.bounds_s != self.bounds_s:
            return self
        return Buckets(self.bounds_s, tuple(map(sum, zip(self.counts, other.counts, strict=True))))

    def since(self, before: Buckets | None) -> Buckets:
        """What was added; counters that went back began anew."""
        if before is None or before.bounds_s != self.bounds_s:
            return self
        added = tuple(now - then for now, then in zip(self.counts, before.counts, strict=True))
        return self if min(added) < 0 else Buckets(self.bounds_s, added)

    def quantile_s(self, share: float) -> float | None:
        """The value below which `share` (0..1) of all lie, spread evenly in a bucket; None of nothing."""
        rank = share * self.count
        if not self.count:
            return None
        lower_s, below = 0.0, 0.0
        for upper_s, count in zip(self.bounds_s, self.counts, strict=False):
            if count and below + count >= rank:
                return lower_s + (upper_s - lower_s) * (rank - below) / count
            lower_s, below = upper_s, below + count
        return lower_s


def of_envoy(histogram: Histogram) -> Buckets:
    """Envoy's, of microseconds: see `envoy.histogram` for what its bounds mean."""
    return Buckets(_ends_s(histogram.bounds_ms), histogram.counts)


@cache
def _ends_s(bounds: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(bin_end_ms(bound) / 1e6 for bound in bounds)


def read_buckets(text: str, name: str) -> Buckets | None:
    """The histogram `name` of a page, all its labels together; None if it is not there or makes no sense."""
    cumulative: dict[float, float] = {}
    for labels, value in _lines(name).findall(text):
        bound = re.search(r'(?:^|,)le="([^"]+)"', labels)
        try:
            upper, count = float(bound[1]) if bound else -1.0, float(value)
        except ValueError:
            return None
        if upper < 0 or not isfinite(count):
            return None
        cumulative[upper] = cumulative.get(upper, 0.0) + count
    bounds = sorted(cumulative)
    if not bounds or bounds[-1] != inf or len(bounds) > BOUNDS_MAX:
        return None
    return _buckets(bounds[:-1], [cumulative[bound] for bound in bounds])


@cache
def _lines(name: str) -> re.Pattern[str]:
    return re.compile(rf"^{re.escape(name)}_bucket\{{([^}}\n]*)\}} (\S+)", re.MULTILINE)


def _buckets(bounds: Sequence[float], cumulative: Sequence[float]) -> Buckets | None:
    counts = (cumulative[0], *(later - earlier for earlier, later in pairwise(cumulative)))
    return Buckets(tuple(bounds), counts) if min(counts) >= 0 else None
