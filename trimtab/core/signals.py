"""Signals: timed observations of a revision or of a pod. A missing signal is unknown, never zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from trimtab.core.revision import RevisionKey


class RevisionSignal(NamedTuple):
    """What one Envoy saw of one revision in one flush of its statistics (1 s).

    `in_flight` and `queued` are gauges at `at_s` (requests); the rest are sums over the
    `period_s` seconds that end at `at_s`. `request_time_s` sums the whole time of each completed
    request at Envoy, its time in the queue included: divided by `period_s` it is mean
    concurrency (Little). Times are monotonic seconds at the receiver. A tuple: of thousands of revisions each
    Envoy's flush makes one a second.
    """

    revision: RevisionKey
    envoy: str  # the node's id
    at_s: float
    period_s: float
    arrivals: int  # requests that Envoy sent towards the revision, retries not counted
    completions: int
    rejected: int  # refused: the queue was full (429), or there was no pod (503)
    failed: int  # answered 5xx: the model's own, and where there was no pod
    in_flight: int
    queued: int
    request_time_s: float


@dataclass(frozen=True)
class PodsSignal:
    """What one Envoy saw of all pods in the same flush: requests in flight at `at_s`, by `host:port`."""

    envoy: str
    at_s: float
    in_flight: Mapping[str, int]


@dataclass(frozen=True)
class LatencySignal:
    """Latency at Envoy over one flush, from its histogram: quantiles in seconds of `count` requests."""

    revision: RevisionKey
    envoy: str
    at_s: float
    count: int
    p50_s: float
    p99_s: float


@dataclass(frozen=True, slots=True)
class EnvoySignal:
    """What one Envoy says of itself: the mean share (0 to 1) of its workers' time that they worked.

    Over the `period_s` seconds that end at `at_s`, monotonic seconds at the receiver. What a worker waits for
    a core in the midst of its work is among it.
    """

    envoy: str
    at_s: float
    period_s: float
    busy: float


@dataclass(frozen=True, slots=True)
class CertificatesSignal:
    """Until when those are good that one Envoy uses: seconds since 1970, by what they are to it.

    `at_s` is monotonic, at the receiver.
    """

    envoy: str
    at_s: float
    ends: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class GpuSignal:
    """What DCGM says of the GPUs of one pod, at one time; each None is unknown. Shares are 0 to 1.

    Of a pod with several GPUs: the mean share and the sum of the bytes. Of a GPU shared by several pods:
    the whole GPU's figures, and `pods` tells by how many.
    """

    utilisation: float | None = None  # DCGM_FI_DEV_GPU_UTIL: share of time in which any kernel ran
    engine_active: float | None = None  # DCGM_FI_PROF_GR_ENGINE_ACTIVE
    memory_used_bytes: float | None = None  # DCGM_FI_DEV_FB_USED
    memory_free_bytes: float | None = None  # DCGM_FI_DEV_FB_FREE
    memory_bandwidth: float | None = None  # DCGM_FI_PROF_DRAM_ACTIVE
    fp16_active: float | None = None  # DCGM_FI_PROF_PIPE_FP16_ACTIVE
    tensor_active: float | None = None  # DCGM_FI_PROF_PIPE_TENSOR_ACTIVE
    pods: int = 1


@dataclass(frozen=True, slots=True)
class PodSignal:
    """What is known of one ready pod over the `period_s` seconds that end at `at_s`; None is unknown.

    `in_flight` and `queued` are means over the period where they can be had, else gauges at its end;
    `completions` and `request_time_s` are sums over it, the latter the whole time in the pod of each
    completed request. Times are monotonic seconds at the receiver.
    """

    revision: RevisionKey
    pod: str
    at_s: float
    period_s: float
    in_flight: float | None = None  # requests that the pod holds, its own queue included
    queued: float | None = None  # of these, in the model server's own queue
    completions: float | None = None
    request_time_s: float | None = None
    failed: float | None = None  # of the completions, answered 5xx or failed by the model
    batch: float | None = None  # what the model was asked at a time: inferences by executions
    cpu_cores: float | None = None  # used
    memory_bytes: float | None = None  # resident at the end
    io_wait: float | None = None  # share of the period in which some task waited for I/O (pressure)
    cache_used: float | None = None  # share of a language model's key-value cache in use
    gpu: GpuSignal | None = None
