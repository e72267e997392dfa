"""Processors, memory, caches and GPUs of the median pod over a window; what is not told is unknown."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from trimtab.autoscaler.vertical.state import LimitSignals
from trimtab.core.signals import GpuSignal, PodSignal


class Metrics(NamedTuple):
    """Of the median pod over the window; None is unknown. Shares are 0 to 1."""

    cpu: float | None = None  # of its cores
    memory: float | None = None  # of its limit
    io_wait: float | None = None
    cache: float | None = None
    server_queue: float | None = None  # of its requests
    compute: float | None = None  # the busier of the GPU's tensor and half-precision pipes
    bandwidth: float | None = None  # of the GPU's memory
    gpu_memory: float | None = None  # used, of all of it
    engine: float | None = None  # share of time in which the GPU computed at all: shown, never a reason
    gpu: float | None = None  # utilisation: shown, never a reason
    gpu_pods: float | None = None  # that share a GPU with one of these; None: there is no GPU
    batch: float | None = None  # what the model is asked at a time: shown, never a reason

    @property
    def gpu_own(self) -> bool:
        """Whether a GPU's figures are of this pod alone."""
        return self.gpu_pods == 1.0


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
    return Metrics(
        cpu=cpu / cores if cpu is not None and cores > 0 else None,
        memory=used / memory if used is not None and memory > 0 else None,
        io_wait=_median([_mean([s.io_wait for s in each], 1.0) for each in seen]),
        cache=_median([_mean([s.cache_used for s in each], 1.0) for each in seen]),
        server_queue=_median(waiting),
        batch=_median([_mean([s.batch for s in each]) for each in seen]),
        **_of_gpus(seen),
    )


def _of_gpus(told: Sequence[Sequence[PodSignal]]) -> dict[str, float | None]:
    gpus = [[s.gpu for s in each if s.gpu is not None] for each in told]
    every = [gpu for each in gpus for gpu in each]
    if not every:
        return {}
    return {
        "compute": _mean([_busier(gpu) for gpu in every], 1.0),
        "bandwidth": _mean([gpu.memory_bandwidth for gpu in every], 1.0),
        "gpu_memory": _median([_mean([_memory_used(gpu) for gpu in each], 1.0) for each in gpus]),
        "engine": _mean([gpu.engine_active for gpu in every], 1.0),
        "gpu": _mean([gpu.utilisation for gpu in every], 1.0),
        "gpu_pods": float(max([gpu.pods for gpu in every])),
    }


def _busier(gpu: GpuSignal) -> float | None:
    return max((x for x in (gpu.tensor_active, gpu.fp16_active) if x is not None), default=None)


def _memory_used(gpu: GpuSignal) -> float | None:
    used, free = gpu.memory_used_bytes, gpu.memory_free_bytes
    return used / (used + free) if used is not None and free is not None and used + free > 0 else None
