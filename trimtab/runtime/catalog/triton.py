"""NVIDIA's Triton inference server: a model repository, whatever the backends of its models.

The real `tritonserver`, of NVIDIA's image or of the wheel nvidia-pytriton. REST, gRPC and metrics have a
port each. Dynamic batching, model instances and warm-up are Triton's own and stand in each model's
config.pbtxt. It reports ready once every model of the repository is, and exits if one cannot be loaded;
told to end, it finishes what it has (`--exit-timeout-secs`).
"""

from __future__ import annotations

import sys
from pathlib import Path

from trimtab.core.errors import Problem
from trimtab.core.protocol import Protocol
from trimtab.core.spec import ModelSpec
from trimtab.runtime.catalog.base import (
    FRONT_SILENT_MAX_S,
    Fit,
    Launch,
    PodMetrics,
    Runtime,
    arguments_problem,
    cores_of,
    further_arguments,
    series,
    thread_limits,
)
from trimtab.runtime.catalog.folders import flavors, subfolders
from trimtab.runtime.triton.server import PROGRAM, REMEDY, Ports, find_server, options

_FAULTS = ("", "BACKEND", "OTHER")  # older ones tell no reason; CANCELED is the caller's

TRITON_METRICS = PodMetrics(
    queued=series("nv_inference_pending_request_count"),
    completions=series("nv_inference_request_success")
    + series("nv_inference_request_failure", reason=(*_FAULTS, "CANCELED")),
    failed=series("nv_inference_request_failure", reason=_FAULTS),
    model_faults=series("nv_inference_request_failure", reason=_FAULTS),
    request_time_s=series("nv_inference_request_duration_us", unit=1e-6),
    queue_time_s=series("nv_inference_queue_duration_us", unit=1e-6),
    inferences=series("nv_inference_count"),
    executions=series("nv_inference_exec_count"),
    gpu_utilisation=series("nv_gpu_utilization"),
    gpu_memory_bytes=series("nv_gpu_memory_used_bytes"),
    gpu_memory_total_bytes=series("nv_gpu_memory_total_bytes"),
    whole_by="model",
)
"""Triton inference server, docs/user_guide/metrics.md.

An ensemble's requests are counted once for itself and once for each model that it calls, and its time
spans theirs. Waiting happens at the parts: an ensemble has no queue of its own.
"""

FIRST_PER_CORE = 4
"""Requests that a pod may hold per core before anything is learned: one that runs, and those of which Triton
makes the next batch. What comes one at a time, dynamic batching cannot batch."""


def is_model(folder: Path) -> bool:
    """Whether a folder holds one Triton model: its configuration, or a version that has a model in it."""
    if (folder / "config.pbtxt").is_file():
        return True
    versions = [path for path in subfolders(folder) if path.name.isdigit()]
    return any(any(version.glob("model.*")) for version in versions)


def _fits(folder: Path) -> Fit:
    models = [path.name for path in subfolders(folder) if is_model(path)]
    if models:
        mlflow = "its `MLmodel` has the flavour `triton`, and " if "triton" in (flavors(folder) or {}) else ""
        return Fit(True, f"{mlflow}it is a model repository (with {_list(models)})")
    if is_model(folder):
        return Fit(False, "it is one Triton model, not a repository: name the folder above it")
    return Fit(False, "no folder in it has a `config.pbtxt` or a `1/model.…`")


def _list(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names[:3]) + (", …" if len(names) > 3 else "")


def _missing(model: ModelSpec) -> Problem | None:
    if (problem := arguments_problem(model)) is not None or find_server() is not None:
        return problem
    return Problem("runtime", "there is no `tritonserver` on the PATH of `trimtab up`", REMEDY)


def _command(launch: Launch) -> tuple[str, ...]:
    """Ours first, where it can be: it prepares what the server needs, and becomes the server."""
    further = further_arguments(launch.model)
    if launch.stock_image:
        ports = Ports(launch.port, launch.grpc_port, launch.metrics_port)
        return (PROGRAM, *options(launch.model_folder, launch.host, ports), *further)
    return (
        sys.executable,
        "-m",
        "trimtab.runtime.triton",
        "--repository",
        str(launch.model_folder),
        "--host",
        launch.host,
        "--http-port",
        str(launch.port),
        "--grpc-port",
        str(launch.grpc_port),
        "--metrics-port",
        str(launch.metrics_port),
        *further,
    )


def _environment(launch: Launch) -> dict[str, str]:
    """Of the Python backend's models; the model's folder must stay as it is, whoever runs in it."""
    return thread_limits(launch.model) | {
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


TRITON = Runtime(
    name="triton",
    protocols=frozenset({Protocol.OPEN_INFERENCE_REST, Protocol.OPEN_INFERENCE_GRPC}),
    fits=_fits,
    missing=_missing,
    command=_command,
    environment=_environment,
    ready_path="/v2/health/ready",  # strict readiness, its default: every model
    live_path="/v2/health/live",
    answers_within_s=FRONT_SILENT_MAX_S,  # its front is threads of its own, whatever the models do
    metrics_path="/metrics",
    metrics=TRITON_METRICS,
    first_concurrency=lambda model: FIRST_PER_CORE * cores_of(model),
    typical_memory_bytes=600 << 20,
    grpc_port=True,
    metrics_port=True,
    loses_workers=True,  # the Python backend's; every request to such a model fails from then on
)
