"""MLflow models, by our own server: see `runtime/mlflow`."""

from __future__ import annotations

from pathlib import Path

from trimtab.core.protocol import Protocol
from trimtab.core.spec import REQUEST_TIMEOUT_MAX_S
from trimtab.runtime.catalog.base import (
    IN_FLIGHT_MAX,
    Fit,
    Launch,
    PodMetrics,
    Runtime,
    cores_of,
    series,
    thread_limits,
)
from trimtab.runtime.catalog.folders import MLMODEL, flavors
from trimtab.runtime.mlflow.routes import PREDICTIONS

PYFUNC = "python_function"

MLFLOW_METRICS = PodMetrics(
    in_flight=series("trimtab_predict_running") + series("trimtab_predict_queued"),
    queued=series("trimtab_predict_queued"),
    completions=series("http_server_request_duration_seconds_count", http_route=PREDICTIONS),
    failed=series("trimtab_request_faults_total", fault=("model", "platform")),
    model_faults=series("trimtab_request_faults_total", fault="model"),
    request_time_s=series("http_server_request_duration_seconds_sum", http_route=PREDICTIONS),
    request_times="trimtab_request_duration_seconds",
    model_times="trimtab_predict_duration_seconds",
)
"""Ours, of runtime/mlflow/metrics.py."""


def _fits(folder: Path) -> Fit:
    found = flavors(folder)
    if found is None:
        return Fit(False, f"there is no file `{MLMODEL}` in it, or none that can be read")
    if PYFUNC not in found:
        told = ", ".join(sorted(found)) or "none"
        return Fit(False, f"its `{MLMODEL}` has no flavour `{PYFUNC}` (it has: {told})")
    return Fit(True, f"its `{MLMODEL}` has the flavour `{PYFUNC}`")


def _command(launch: Launch) -> tuple[str, ...]:
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
        "--called",
        *launch.called,
    )


def _environment(launch: Launch) -> dict[str, str]:
    """What a pod sees unless the model's own `env` says otherwise.

    MLflow gives a prediction 60 s unless told more; here the endpoint's request_timeout_s, which
    Envoy enforces, is what ends a request.
    """
    traced = {"OTEL_SERVICE_NAME": launch.called[-1]} if launch.called else {}
    return (
        thread_limits(launch.model)
        | traced
        | {
            "PYTHONSAFEPATH": "1",
            "PYTHONUNBUFFERED": "1",
            "MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT": f"{REQUEST_TIMEOUT_MAX_S:.0f}",
        }
    )


MLFLOW = Runtime(
    name="mlflow",
    protocols=frozenset(
        {
            Protocol.INVOCATIONS,
            Protocol.OPEN_INFERENCE_REST,
            Protocol.OPEN_INFERENCE_GRPC,
            Protocol.OPENAI,  # of what it answers, the models with a chat signature speak it; others say so
        }
    ),
    fits=_fits,
    command=_command,
    environment=_environment,
    ready_path="/health/ready",
    live_path="/health/live?within={within_s:.0f}",
    metrics_path="/metrics",
    metrics=MLFLOW_METRICS,
    first_concurrency=cores_of,
    typical_memory_bytes=400 << 20,
    grpc_bridged=True,
)
