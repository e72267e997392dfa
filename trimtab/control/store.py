"""What the control plane keeps, behind one protocol: SQLite in a home, or Kubernetes' API server.

Reading answers from what was put last, at once. Where a write goes over a network, as on Kubernetes, it
is under way when the call returns; `recorded` tells of what may not be lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from trimtab.control.decisions import Logged
from trimtab.control.records import Change, EndpointRecord, LearnedLimit, RevisionRecord
from trimtab.core.names import EndpointName
from trimtab.core.revision import RevisionKey
from trimtab.v1 import control_pb2 as v1


class Decisions(Protocol):
    """The log of decisions, bounded."""

    def latest(
        self,
        name: EndpointName,
        limit: int,
        before_s: float,
        *,
        axis: v1.Axis.ValueType = v1.AXIS_PODS,
        changes_only: bool = False,
    ) -> list[v1.Decision]:
        """Newest first, each made before `before_s` (wall clock)."""
        ...

    def to_replay(self, name: EndpointName, since_s: float, until_s: float) -> list[Logged]:
        """Decisions about pods, oldest first, from the last checkpoint at or before `since_s` on."""
        ...


class Store(Protocol):
    """Endpoints, revisions, changes, decisions (`log`) and what was learned.

    Every call may raise Exhausted where a disk is full; then nothing was changed.
    """

    @property
    def log(self) -> Decisions: ...

    def close(self) -> None: ...

    def transaction(self) -> AbstractContextManager[None]:
        """All that is put within it, or nothing."""
        ...

    def recorded(self, name: EndpointName) -> bool:
        """Whether the next control plane would find which revisions there are, and which of them serves.

        Nothing may be started or ended by what it would not find.
        """
        ...

    def endpoints(self) -> list[EndpointRecord]:
        """In the order of their names."""
        ...

    def endpoint(self, name: EndpointName) -> EndpointRecord | None: ...

    def put_endpoint(self, record: EndpointRecord) -> None: ...

    def remove_endpoint(self, name: EndpointName) -> None:
        """The endpoint and all that was recorded of it."""
        ...

    def revisions(self, name: EndpointName) -> list[RevisionRecord]:
        """Oldest first."""
        ...

    def put_revision(self, record: RevisionRecord) -> None: ...

    def remove_revision(self, key: RevisionKey) -> None: ...

    def put_change(self, name: EndpointName, change: Change) -> None:
        """Adds or replaces one change; the oldest beyond a bound go."""
        ...

    def changes(self, name: EndpointName, limit: int) -> list[Change]:
        """Newest first."""
        ...

    def set_change_outcome(self, name: EndpointName, generation: int, outcome: str) -> None: ...

    def learned(self, revision_hash: str) -> LearnedLimit | None: ...

    def record(self, logged: Sequence[Logged], learned: Sequence[LearnedLimit] = ()) -> None:
        """All or none of it."""
        ...
