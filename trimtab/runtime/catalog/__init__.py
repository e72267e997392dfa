"""What each runtime is: how it starts, when it is ready, what it speaks. Read by `fleet` and `control`.

A runtime is one module here. None of them imports a model server.
"""

from __future__ import annotations

from functools import lru_cache

from trimtab.core.spec import ModelSpec
from trimtab.runtime.catalog.base import (
    IN_FLIGHT_MAX,
    Fit,
    Launch,
    PodMetrics,
    Runtime,
    Series,
    arguments_problem,
    cores_of,
)
from trimtab.runtime.catalog.custom import CUSTOM
from trimtab.runtime.catalog.mlflow import MLFLOW, MLFLOW_METRICS
from trimtab.runtime.catalog.triton import TRITON, TRITON_METRICS
from trimtab.runtime.catalog.vllm import VLLM, VLLM_METRICS

__all__ = [
    "CUSTOM",
    "IN_FLIGHT_MAX",
    "MLFLOW",
    "MLFLOW_METRICS",
    "RUNTIMES",
    "TRITON",
    "TRITON_METRICS",
    "VLLM",
    "VLLM_METRICS",
    "Fit",
    "Launch",
    "PodMetrics",
    "Runtime",
    "Series",
    "arguments_problem",
    "cores_of",
    "runtime_of",
]

RUNTIMES: dict[str, Runtime] = {runtime.name: runtime for runtime in (MLFLOW, TRITON, VLLM, CUSTOM)}
"""By name, in the order in which they are tried on a model that names none."""


@lru_cache(maxsize=4096)  # it is asked several times at each look at an endpoint
def runtime_of(model: ModelSpec) -> Runtime:
    """The runtime of a model, as it wants it. Raises KeyError for a name that is not in RUNTIMES."""
    runtime = RUNTIMES[model.runtime]
    return runtime.adapted(runtime, model)
