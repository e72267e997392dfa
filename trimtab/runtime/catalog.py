"""What each runtime is: how it starts, when it is ready, what it speaks. Read by `fleet` and `control`.

A runtime is one entry here. Nothing in this module imports a model server.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Runtime:
    """One kind of model server."""

    name: str
    protocols: frozenset[Protocol]
    command: Callable[[Launch], tuple[str, ...]]
    environment: Callable[[Launch], dict[str, str]]
    ready_path: str  # answers 200 once the model can be asked
    metrics_path: str  # Prometheus text
    first_concurrency: Callable[[ModelSpec], int]  # requests in flight per pod, before anything is learned
    typical_memory_bytes: int  # of one pod, before one was measured


def _mlflow_command(launch: Launch) -> tuple[str, ...]:
    return (
        sys.executable,
        "-m",
        "trimtab.runtime.mlflow",
        "--model",
        str(launch.model_folder),
        "--bind",
        f"{launch.host}:{launch.port}",
        "--stages",
        str(launch.stages_path),
        "--threads",
        str(cores_of(launch.model)),
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


MLFLOW = Runtime(
    name="mlflow",
    protocols=frozenset({Protocol.INVOCATIONS}),
    command=_mlflow_command,
    environment=_mlflow_environment,
    ready_path="/health/ready",
    metrics_path="/metrics",
    first_concurrency=cores_of,
    typical_memory_bytes=400 << 20,
)

RUNTIMES: dict[str, Runtime] = {runtime.name: runtime for runtime in (MLFLOW,)}
