"""A pod: one running model server of one revision, as the fleet reports it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from trimtab.core.revision import RevisionKey


class PodPhase(Enum):
    """Where a pod is in its life. Order: STARTING → READY → STOPPING → GONE; FAILED ends any of them."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"  # told to terminate; its process may still be there
    FAILED = "failed"  # ended by itself, or was ended for a reason in `cause`


@dataclass(frozen=True)
class Stage:
    """A step of a start (`start`, `import`, `load`, `warm`, `ready`) and when it was reached, wall clock."""

    name: str
    at_s: float


@dataclass(frozen=True)
class Pod:
    """One pod as observed now. Times are wall-clock seconds; `None` is unknown, never zero."""

    id: str  # unique for ever, e.g. `iris.default-r3-k7f2q`
    revision: RevisionKey
    phase: PodPhase
    host: str
    port: int
    process_id: int
    started_at_s: float
    ready_at_s: float | None = None
    start_time_s: float | None = None  # what its start took, or has taken so far: by no clock that steps
    stages: tuple[Stage, ...] = ()
    cause: str = ""  # why it FAILED, in a person's words
    exit_status: int | None = None
    cpu_seconds: float | None = None  # used since its start, all its processes
    memory_bytes: int | None = None  # resident now, all its processes
    io_stalled_s: float | None = None  # in which some task of it waited for I/O; only grows
    measured_at_s: float | None = None  # of these three, monotonic
    gpus: tuple[str, ...] = ()  # by its CUDA_VISIBLE_DEVICES: indices, GPU-… or MIG-…; () tells nothing
    runtime: str = "mlflow"  # its name in the catalog
    grpc_port: int = 0  # these two: 0 if there is none apart from `port`
    metrics_port: int = 0
    evicted: bool = False  # its node or a person takes it away: it serves until it is told to stop
    node_goes: bool = False  # soon, with all that is on it; nobody has taken this one away yet
    blocked: bool = False  # it cannot start: a quota refuses it, or no node holds it
    python: str = ""  # the interpreter of the environment that it was started in; empty: not told

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def addresses(self) -> tuple[str, ...]:
        """Those at which Envoy sends it requests."""
        return (self.address, f"{self.host}:{self.grpc_port}") if self.grpc_port else (self.address,)

    @property
    def metrics_address(self) -> str:
        return f"{self.host}:{self.metrics_port or self.port}"
