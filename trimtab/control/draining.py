"""How a pod leaves without a failed request.

Pure: told what Envoy acknowledged and reported, it says what is next.

MARKED    DRAINING in the assignment: no new requests, those it has go on
EMPTYING  every Envoy has acknowledged that; its requests in flight are awaited
REMOVED   it was empty in two flushes begun after the acknowledgement (or its grace ended),
          and is no longer in the assignment
STOP      every Envoy has acknowledged that too: its process may be told to end
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

EMPTY_FLUSHES = 2  # one flush may have been under way when the acknowledgement came
FLUSH_S = 1.0


class Step(Enum):
    """How far a pod is on its way out."""

    MARKED = "marked"
    EMPTYING = "emptying"
    REMOVED = "removed"
    STOP = "stop"


@dataclass(frozen=True)
class Drain:
    """One pod on its way out. Times are monotonic seconds."""

    pod_id: str
    began_at_s: float
    grace_s: float
    step: Step = Step.MARKED
    acknowledged_at_s: float = 0.0
    empty_flushes: int = 0
    flush_at_s: float = 0.0  # of the last report that was looked at

    @property
    def in_assignment(self) -> bool:
        return self.step in (Step.MARKED, Step.EMPTYING)

    @property
    def revocable(self) -> bool:
        """Whether the pod may still be kept after all."""
        return self.in_assignment


def advance(drain: Drain, *, settled: bool, connected: bool, now_s: float) -> Drain:
    """One look. `settled`: every Envoy acknowledged the assignments as last published.

    Without any Envoy connected nothing can be acknowledged: only the grace period moves it on.
    """
    overdue = now_s - drain.began_at_s >= drain.grace_s
    if drain.step is Step.MARKED and settled and connected:
        drain = replace(drain, step=Step.EMPTYING, acknowledged_at_s=now_s)
    if drain.in_assignment and (overdue or drain.empty_flushes >= EMPTY_FLUSHES):
        return replace(drain, step=Step.REMOVED)
    if drain.step is Step.REMOVED and (settled or overdue):
        return replace(drain, step=Step.STOP)
    return drain


def with_flush(drain: Drain, *, at_s: float, in_flight: int) -> Drain:
    """Take one report of the pod's requests: each flush begun after the acknowledgement counts once."""
    if drain.step is not Step.EMPTYING or not _new(drain, at_s):
        return drain
    empty = drain.empty_flushes + 1 if in_flight == 0 else 0
    return replace(drain, empty_flushes=empty, flush_at_s=at_s)


def _new(drain: Drain, at_s: float) -> bool:
    """A flush is FLUSH_S long; half of that tells two flushes from two messages of one."""
    return at_s >= drain.acknowledged_at_s + FLUSH_S and at_s >= drain.flush_at_s + FLUSH_S / 2
