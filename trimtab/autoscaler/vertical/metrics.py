"""Processors, memory, caches and GPUs of the median pod over a window; what is not told is unknown."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from trimtab.autoscaler.vertical.state import LimitSignals
from trimtab.core.signals import PodSignal


class Metrics(NamedTuple):
    """Of the median pod over the window; None is unknown. Shares are 0 to 1."""

    cpu: float | None = None  # of its cores
    memory: float | None = None  # of its limit
    io_wait: float | None = None
    cache: float | None = None
    server_queue: float | None = None  # of its requests
    compute: float | None = None  # the busier of the GPU's tensor and half-precision pipes
    gpu: float | None = None  # utilisation: shown, never a reason


def _mean(values: Sequence[float | None], most: float = 1e15) -> float | None:
    known = [value for value in values if value is not None and 0.0 <= value <= most]
    return sum(known) / len(known) if known else None


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def of_pods(told: Sequence[Sequence[PodSignal]], signals: LimitSignals) -> Metrics:
    """From the signals of each pod, the median pod's metrics: one pod's trouble is not the limit's."""
    seen = [each for each in told if each]
    if not seen:
        return Metrics()
    cores, memory = signals.cores, signals.memory_limit_bytes
    cpu = _median([_mean([s.cpu_cores for s in each]) for each in seen])
    used = _median([_mean([s.memory_bytes for s in each]) for each in seen])
    waiting = [
        queued / in_flight if queued is not None and in_flight else None
        for queued, in_flight in (
            (_mean([s.queued for s in each]), _mean([s.in_flight for s in each])) for each in seen
        )
    ]
    pipes = [
        max((x for x in (s.gpu.tensor_active, s.gpu.fp16_active) if x is not None), default=None)
        if s.gpu
        else None
        for each in seen
        for s in each
    ]
    return Metrics(
        cpu=cpu / cores if cpu is not None and cores > 0 else None,
        memory=used / memory if used is not None and memory > 0 else None,
        io_wait=_median([_mean([s.io_wait for s in each], 1.0) for each in seen]),
        cache=_median([_mean([s.cache_used for s in each], 1.0) for each in seen]),
        server_queue=_median(waiting),
        compute=_mean(pipes, 1.0),
        gpu=_mean([s.gpu.utilisation if s.gpu else None for each in seen for s in each], 1.0),
    )
