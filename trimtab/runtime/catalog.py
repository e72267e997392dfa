"""What each runtime is: how it starts, when it is ready, what it speaks. Read by `fleet` and `control`.

A runtime is one entry here. Nothing in this module imports a model server.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from trimtab.core.protocol import Protocol
from trimtab.core.spec import REQUEST_TIMEOUT_MAX_S, ModelSpec


@dataclass(frozen=True)
class Launch:
    """What a fleet knows when it starts a pod."""

    model: ModelSpec
    model_folder: Path  # the model's files; read-only
    host: str
    port: int
    stages_path: Path  # the runtime appends one JSON line per stage reached: {"stage": …, "at_s": …}
    python: Path = field(default_factory=lambda: Path(sys.executable))  # of the revision's environment


@dataclass(frozen=True)
class Series:
    """A number on a pod's metrics page: the sum of all samples of one name, times `unit`.

    Of several names the first that the page has: servers rename. Only samples count whose labels have
    one of the values given in `labels` (label, values). Such a sample that is not on the page is 0 if
    the page declares the metric, as client libraries do before the first event, else unknown.
    """

    names: tuple[str, ...]
    labels: tuple[tuple[str, tuple[str, ...]], ...] = ()
    unit: float = 1.0


@dataclass(frozen=True)
class PodMetrics:
    """What a runtime tells of its requests on its metrics page; () is nothing. Several series are added up.

    `in_flight` and `queued` are gauges in requests, the first with the second in it; `cache_used` and
    `gpu_utilisation` are gauges of shares, of which the mean counts; the GPU's memory is gauges of bytes.
    The others are counters of requests and of seconds.
    `whole_by` names a label whose value with the most `request_time_s` stands for the whole pod in
    `completions`, `failed`, `model_faults` and `request_time_s`: the rest are its parts.
    """

    in_flight: tuple[Series, ...] = ()
    queued: tuple[Series, ...] = ()
    completions: tuple[Series, ...] = ()
    failed: tuple[Series, ...] = ()  # answered 5xx, or failed by the model
    model_faults: tuple[Series, ...] = ()  # of these, failed by the model
    request_time_s: tuple[Series, ...] = ()
    queue_time_s: tuple[Series, ...] = ()
    cache_used: tuple[Series, ...] = ()
    gpu_utilisation: tuple[Series, ...] = ()
    gpu_memory_bytes: tuple[Series, ...] = ()  # in use
    gpu_memory_total_bytes: tuple[Series, ...] = ()
    whole_by: str = ""


@dataclass(frozen=True)
class Runtime:
    """One kind of model server."""

    name: str
    protocols: frozenset[Protocol]
    command: Callable[[Launch], tuple[str, ...]]
    environment: Callable[[Launch], dict[str, str]]
    ready_path: str  # answers 200 once the model can be asked
    metrics_path: str  # Prometheus text
    metrics: PodMetrics  # what is on it
    first_concurrency: Callable[[ModelSpec], int]  # requests in flight per pod, before anything is learned
    typical_memory_bytes: int  # of one pod, before one was measured


IN_FLIGHT_MAX = 1_000
"""Requests that one pod may be given at a time, whatever it bears: a pod has so many threads to predict in.

The limit in Envoy is what holds, so threads must not: they start with the first request that finds none
idle, and one that never starts costs nothing. A model that waits for others bears hundreds.
"""


def _mlflow_command(launch: Launch) -> tuple[str, ...]:
    return (
        str(launch.python),
        "-m",
        "trimtab.runtime.mlflow",
        "--model",
        str(launch.model_folder),
        "--bind",
        f"{launch.host}:{launch.port}",
        "--stages",
        str(launch.stages_path),
        "--threads",
        str(IN_FLIGHT_MAX),
    )


def _mlflow_environment(launch: Launch) -> dict[str, str]:
    """What a pod sees unless the model's own `env` says otherwise.

    Numeric libraries start a thread per core of the machine unless told how many are the pod's.
    MLflow gives a prediction 60 s unless told more; here the endpoint's request_timeout_s, which
    Envoy enforces, is what ends a request.
    """
    cores = str(cores_of(launch.model))
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    return dict.fromkeys(names, cores) | {
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
        "MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT": f"{REQUEST_TIMEOUT_MAX_S:.0f}",
    }


def cores_of(model: ModelSpec) -> int:
    """Whole cores of one pod, at least 1."""
    return max(1, round(model.resources.cpu))


def _series(*names: str, unit: float = 1.0, **labels: str | tuple[str, ...]) -> tuple[Series, ...]:
    wanted = tuple((label, (one,) if isinstance(one, str) else one) for label, one in labels.items())
    return (Series(names, wanted, unit),)


MLFLOW_METRICS = PodMetrics(
    in_flight=_series("trimtab_predict_running") + _series("trimtab_predict_queued"),
    queued=_series("trimtab_predict_queued"),
    completions=_series("http_server_request_duration_seconds_count", http_route="/invocations"),
    failed=_series("trimtab_request_faults_total", fault=("model", "platform")),
    model_faults=_series("trimtab_request_faults_total", fault="model"),
    request_time_s=_series("http_server_request_duration_seconds_sum", http_route="/invocations"),
)
"""Ours, of runtime/mlflow/metrics.py."""

_TRITON_FAULTS = ("", "BACKEND", "OTHER")  # older ones tell no reason; CANCELED is the caller's

TRITON_METRICS = PodMetrics(
    queued=_series("nv_inference_pending_request_count"),
    completions=_series("nv_inference_request_success")
    + _series("nv_inference_request_failure", reason=(*_TRITON_FAULTS, "CANCELED")),
    failed=_series("nv_inference_request_failure", reason=_TRITON_FAULTS),
    model_faults=_series("nv_inference_request_failure", reason=_TRITON_FAULTS),
    request_time_s=_series("nv_inference_request_duration_us", unit=1e-6),
    queue_time_s=_series("nv_inference_queue_duration_us", unit=1e-6),
    gpu_utilisation=_series("nv_gpu_utilization"),
    gpu_memory_bytes=_series("nv_gpu_memory_used_bytes"),
    gpu_memory_total_bytes=_series("nv_gpu_memory_total_bytes"),
    whole_by="model",
)
"""Triton inference server, docs/user_guide/metrics.md.

An ensemble's requests are counted once for itself and once for each model that it calls, and its time
spans theirs. Waiting happens at the parts: an ensemble has no queue of its own.
"""

VLLM_METRICS = PodMetrics(
    in_flight=_series("vllm:num_requests_running") + _series("vllm:num_requests_waiting"),
    queued=_series("vllm:num_requests_waiting"),
    completions=_series("vllm:e2e_request_latency_seconds_count"),
    failed=_series("vllm:request_success_total", finished_reason="error"),
    model_faults=_series("vllm:request_success_total", finished_reason="error"),
    request_time_s=_series("vllm:e2e_request_latency_seconds_sum"),
    queue_time_s=_series("vllm:request_queue_time_seconds_sum"),
    cache_used=_series("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
)
"""vLLM, docs/design/metrics.md; the second name of the cache's gauge is that of versions before 0.10.

`request_success_total` counts whatever ended, by its reason.
"""

MLFLOW = Runtime(
    name="mlflow",
    protocols=frozenset({Protocol.INVOCATIONS}),
    command=_mlflow_command,
    environment=_mlflow_environment,
    ready_path="/health/ready",
    metrics_path="/metrics",
    metrics=MLFLOW_METRICS,
    first_concurrency=cores_of,
    typical_memory_bytes=400 << 20,
)

RUNTIMES: dict[str, Runtime] = {runtime.name: runtime for runtime in (MLFLOW,)}
