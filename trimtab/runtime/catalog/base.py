"""The words in which each runtime says what it is: see `Runtime`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from trimtab.core.errors import Problem
from trimtab.core.protocol import Protocol
from trimtab.core.spec import ModelSpec

KEEP_ALIVE_S = 75.0
"""For which the servers that we start keep an idle connection open: above Envoy's 60 s, since the side that
may send next must be the one to close."""


FRONT_SILENT_MAX_S = 60.0
"""For which a server may say nothing whose front does not share threads, nor an interpreter, with its models:
on a machine that is overloaded a probe of 2 s may fail a few times in a row, a dozen in a row do not."""


@dataclass(frozen=True)
class Launch:
    """What a fleet knows when it starts a pod."""

    model: ModelSpec
    model_folder: Path  # the model's files; read-only
    host: str
    port: int
    stages_path: Path  # the runtime appends one JSON line per stage reached: {"stage": …, "at_s": …}
    grpc_port: int = 0  # these two only if the runtime has them apart from `port`
    metrics_port: int = 0
    python: Path = field(default_factory=lambda: Path(sys.executable))  # of the revision's environment
    called: tuple[str, ...] = ()  # what callers may name its endpoint; none: as the model
    stock_image: bool = False  # the server is in an image of its makers: nothing of ours is beside it


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
    The others are counters of requests, of seconds, and of what they say.
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
    inferences: tuple[Series, ...] = ()  # items that the model was asked, of all requests
    executions: tuple[Series, ...] = ()  # in which it was; items that were batched share one
    cache_used: tuple[Series, ...] = ()
    gpu_utilisation: tuple[Series, ...] = ()
    gpu_memory_bytes: tuple[Series, ...] = ()  # in use
    gpu_memory_total_bytes: tuple[Series, ...] = ()
    whole_by: str = ""
    request_times: str = ""  # names of histograms of seconds: of a request in the pod, and in its model
    model_times: str = ""


@dataclass(frozen=True)
class Fit:
    """Whether a runtime can serve what is in a folder, and how that was seen: a clause without a subject."""

    fits: bool
    why: str


def nothing_missing(_model: ModelSpec) -> Problem | None:
    """Of a runtime that is always there."""
    return None


def same_for_all(runtime: Runtime, _model: ModelSpec) -> Runtime:
    """Of a runtime that is the same whatever the model."""
    return runtime


@dataclass(frozen=True)
class Runtime:
    """One kind of model server.

    It is told to end by SIGTERM, after Envoy has sent it its last request and had its last answer: then it
    finishes what it still has and exits, within 30 s or it is killed.
    """

    name: str
    protocols: frozenset[Protocol]
    fits: Callable[[Path], Fit]  # a model's folder
    command: Callable[[Launch], tuple[str, ...]]
    environment: Callable[[Launch], dict[str, str]]
    ready_path: str  # of `port`: answers 200 once the model can be asked
    metrics_path: str  # Prometheus text, of the metrics' port; empty if it has none
    metrics: PodMetrics  # what is on it
    first_concurrency: Callable[[ModelSpec], int]  # requests in flight per pod, before anything is learned
    typical_memory_bytes: int  # of one pod, before one was measured
    live_path: str = ""  # of `port`: answers 200 while it is well; "": any answer at `ready_path` tells
    answers_within_s: float = 0.0  # silent for longer it hangs; 0: as long as a request may take
    missing: Callable[[ModelSpec], Problem | None] = nothing_missing  # of what it needs on this machine
    adapted: Callable[[Runtime, ModelSpec], Runtime] = same_for_all  # as this model wants it
    grpc_port: bool = False  # whether gRPC has a port of its own; else, if it is spoken:
    grpc_bridged: bool = False  # whether its calls come over HTTP/1.1, on `port`
    metrics_port: bool = False  # and its metrics
    loses_workers: bool = False  # whether it calls itself ready without a worker process that died
    runs_in_model_folder: bool = False  # else in a folder of the pod's own
    keep_alive_s: float = KEEP_ALIVE_S  # what it does with an idle connection: closes it after so long


IN_FLIGHT_MAX = 1_000
"""Requests that one pod may be given at a time, whatever it bears: a pod has so many threads to predict in.

The limit in Envoy is what holds, so threads must not: they start with the first request that finds none
idle, and one that never starts costs nothing. A model that waits for others bears hundreds.
"""


def cores_of(model: ModelSpec) -> int:
    """Whole cores of one pod, at least 1."""
    return max(1, round(model.resources.cpu))


def thread_limits(model: ModelSpec) -> dict[str, str]:
    """Numeric libraries start a thread per core of the machine unless told how many are the pod's."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    return dict.fromkeys(names, str(cores_of(model)))


def series(*names: str, unit: float = 1.0, **labels: str | tuple[str, ...]) -> tuple[Series, ...]:
    wanted = tuple((label, (one,) if isinstance(one, str) else one) for label, one in labels.items())
    return (Series(names, wanted, unit),)


ARGUMENTS = "SERVER_ARGS"
"""The variable of a model's `env` that holds further arguments for a server that is not ours: such servers
have hundreds, and most of them no variable of their own."""


def further_arguments(model: ModelSpec) -> tuple[str, ...]:
    """What ARGUMENTS holds, read as a shell would. Raises ValueError: see `arguments_problem`."""
    return tuple(shlex.split(dict(model.env).get(ARGUMENTS, "")))


def arguments_problem(model: ModelSpec) -> Problem | None:
    """What is wrong with them; None if they can be read."""
    try:
        further_arguments(model)
    except ValueError as error:
        hint = f"write them as for a shell: --set env.{ARGUMENTS}='--name value'"
        return Problem(f"env.{ARGUMENTS}", f"cannot be read: {error}", hint)
    return None
