"""A histogram of seconds for one thread: prometheus_client's own takes two locks for each observation."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Durations:
    """How many took how long, of one set of labels."""

    __slots__ = ("_bounds", "counts", "sum_s")

    def __init__(self, bounds_s: Sequence[float]) -> None:
        self._bounds = bounds_s
        self.counts = [0] * (len(bounds_s) + 1)
        self.sum_s = 0.0

    def observe(self, seconds: float) -> None:
        """One more."""
        self.counts[bisect_left(self._bounds, seconds)] += 1
        self.sum_s += seconds


class Times(Collector):
    """A metric by labels. Observed by one thread; read by any, at worst one observation behind."""

    def __init__(self, name: str, about: str, labels: Sequence[str], bounds_s: Sequence[float]) -> None:
        self._name = name
        self._about = about
        self._labels = labels
        self._bounds_s = bounds_s
        self._shown = [*map(floatToGoString, bounds_s), "+Inf"]
        self._found: dict[tuple[str, ...], Durations] = {}

    def labels(self, *values: str) -> Durations:
        """What is kept of these values."""
        return self._found.setdefault(values, Durations(self._bounds_s))

    def collect(self) -> Iterable[Metric]:
        """The metric as Prometheus has it."""
        family = HistogramMetricFamily(self._name, self._about, labels=self._labels)
        for values, durations in list(self._found.items()):
            buckets = zip(self._shown, accumulate(durations.counts), strict=True)
            family.add_metric(values, list(buckets), durations.sum_s)
        yield family
