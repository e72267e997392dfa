"""A pod's page read as its runtime means it: gauges as of now, counters since its server began."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache

from trimtab.control.signals.page import Page, Sample, read_page
from trimtab.core.signals import GpuSignal
from trimtab.runtime.catalog import PodMetrics, Series


@dataclass(frozen=True)
class Totals:
    """Counters of requests since the server began; None is unknown."""

    completions: float | None = None
    failed: float | None = None
    model_faults: float | None = None
    request_time_s: float | None = None


@dataclass(frozen=True)
class Reading:
    """One page. `parts` are by the value of `PodMetrics.whole_by`, or one called "" without it."""

    in_flight: float | None
    queued: float | None
    cache_used: float | None
    queue_time_s: float | None
    executions: float | None
    parts: Mapping[str, Totals]
    gpu: GpuSignal | None
    inferences: float | None = None

    @property
    def whole(self) -> str:
        """The part that spans all others: the one in which requests spent the most time."""
        return max(self.parts, key=lambda part: (self.parts[part].request_time_s or 0.0, part), default="")

    @property
    def totals(self) -> Totals:
        """Of the pod as a whole."""
        return self.parts.get(self.whole, Totals())


def read(text: str, metrics: PodMetrics) -> Reading | None:
    """A page as `metrics` describes it; None if it cannot be read."""
    page = read_page(text, names_of(metrics))
    if page is None:
        return None
    shares = _values(page, metrics.cache_used)
    return Reading(
        in_flight=_sum(page, metrics.in_flight),
        queued=_sum(page, metrics.queued),
        cache_used=_share(shares),
        queue_time_s=_sum(page, metrics.queue_time_s),
        executions=_sum(page, metrics.executions),
        parts={part: _totals(page, metrics, part) for part in _parts(page, metrics)},
        gpu=_gpu(page, metrics),
        inferences=_sum(page, metrics.inferences),
    )


@cache
def names_of(metrics: PodMetrics) -> frozenset[str]:
    """All names that a runtime's series may have."""
    told = (getattr(metrics, field.name) for field in fields(metrics))
    return frozenset(name for many in told if not isinstance(many, str) for s in many for name in s.names)


def _parts(page: Page, metrics: PodMetrics) -> list[str]:
    if not metrics.whole_by:
        return [""]
    names = {name for series in metrics.completions for name in series.names}
    samples = (sample for name in names for sample in page.of(name) or ())
    return sorted({sample.labels.get(metrics.whole_by, "") for sample in samples})


def _totals(page: Page, metrics: PodMetrics, part: str) -> Totals:
    only = {metrics.whole_by: part} if metrics.whole_by else {}
    return Totals(
        completions=_sum(page, metrics.completions, only),
        failed=_sum(page, metrics.failed, only),
        model_faults=_sum(page, metrics.model_faults, only),
        request_time_s=_sum(page, metrics.request_time_s, only),
    )


def _gpu(page: Page, metrics: PodMetrics) -> GpuSignal | None:
    """What the server itself tells of the GPUs that it sees."""
    used, total = _sum(page, metrics.gpu_memory_bytes), _sum(page, metrics.gpu_memory_total_bytes)
    found = GpuSignal(
        utilisation=_share(_values(page, metrics.gpu_utilisation)),
        memory_used_bytes=used if total else None,
        memory_free_bytes=max(0.0, total - used) if used is not None and total else None,
    )
    return None if found == GpuSignal() else found


def _share(values: list[float] | None) -> float | None:
    """The mean of shares; None if there are none, or one is more than all."""
    return sum(values) / len(values) if values and max(values) <= 1 else None


def _sum(page: Page, many: tuple[Series, ...], only: Mapping[str, str] | None = None) -> float | None:
    values = _values(page, many, only)
    return None if values is None else sum(values, 0.0)


def _values(
    page: Page, many: tuple[Series, ...], only: Mapping[str, str] | None = None
) -> list[float] | None:
    """Of all samples of the series; None if one of them is unknown, or one series is not there."""
    found: list[float] = []
    for series in many:
        samples = next((told for told in map(page.of, series.names) if told is not None), None)
        if samples is None:
            return None
        for sample in samples:
            if not _meant(sample, series, only or {}):
                continue
            if sample.value is None:
                return None
            found.append(sample.value * series.unit)
    return found if many else None


def _meant(sample: Sample, series: Series, only: Mapping[str, str]) -> bool:
    labels = sample.labels
    return all(labels.get(label, "") in values for label, values in series.labels) and all(
        labels.get(label, "") == value for label, value in only.items()
    )
