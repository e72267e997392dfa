"""The store on Kubernetes: all of it in memory, and what must outlive us in each ServingEndpoint's status.

A put is in memory at once; `dirty` tells who writes it to the API server (`writing`). Decisions that changed
nothing stay in memory alone: one in five seconds of each endpoint would be the API server's main load.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from trimtab.control.decisions import Logged
from trimtab.control.kubernetes.memory import CHANGES_KEPT, DECISIONS_KEPT, Memory
from trimtab.control.records import Change, EndpointRecord, LearnedLimit, RevisionRecord
from trimtab.control.sqlite import SqliteStore
from trimtab.core.names import EndpointName
from trimtab.core.revision import RevisionKey
from trimtab.v1 import control_pb2 as v1

LOG_BYTES_MAX = 64 << 20  # of all endpoints: 64 KB each of a thousand, which is five minutes of decisions

Head = tuple[Any, ...]


@dataclass
class Identity:
    """What nothing may be started or ended by before it is written: see `Store.recorded`."""

    head: Head = ()
    revisions: dict[int, str] = field(default_factory=dict)  # number → hash


class KubernetesStore(SqliteStore):
    """See `control.store.Store`. Ours beyond it: `load` and `memory`, and news for who writes.

    `dirty` is called with an endpoint of which something was put, `removed` with one that has gone, `decided`
    with what was decided.
    """

    def __init__(self) -> None:
        super().__init__(None, LOG_BYTES_MAX)
        self.dirty: Callable[[EndpointName], None] = lambda _: None
        self.removed: Callable[[EndpointName], None] = lambda _: None
        self.decided: Callable[[Sequence[Logged]], None] = lambda _: None
        self.observed: dict[EndpointName, int] = {}  # the generation of the object that was taken last
        self._now: defaultdict[EndpointName, Identity] = defaultdict(Identity)
        self._recorded: dict[EndpointName, Identity] = {}
        self._decisions: dict[EndpointName, deque[bytes]] = {}
        self._memories: dict[EndpointName, Memory] = {}  # of which nothing was put since

    # what is written

    def load(self, memory: Memory) -> None:
        """Take over what an earlier control plane remembered, before anybody hears of what is dirty."""
        name = memory.endpoint.name
        with self.transaction():
            self.put_endpoint(memory.endpoint)
            for revision in memory.revisions:
                self.put_revision(revision)
            for change in memory.changes:
                self.put_change(name, change)
            for learned in memory.learned:
                known = self.learned(learned.hash)
                if known is None or known.at_s < learned.at_s:
                    self._put_learned(learned)
            self.log.add(Logged(name, v1.Decision.FromString(each)) for each in memory.decisions)
        self._memories.clear()  # limits are shared
        self._decisions[name] = deque(memory.decisions, DECISIONS_KEPT)
        self.observed[name] = memory.observed
        self.written(memory)

    def memory(self, name: EndpointName) -> Memory | None:
        """What must outlive us of one endpoint; None if there is none of that name."""
        kept = self._memories.get(name)
        if kept is not None and kept.observed == self.observed.get(name, 0):
            return kept
        endpoint = self.endpoint(name)
        if endpoint is None:
            return None
        revisions = tuple(self.revisions(name))
        learned = (self.learned(hash_) for hash_ in sorted({each.revision.hash for each in revisions}))
        made = self._memories[name] = Memory(
            self.observed.get(name, 0),
            endpoint,
            revisions,
            tuple(self.changes(name, CHANGES_KEPT)),
            tuple(each for each in learned if each is not None),
            tuple(self._decisions.get(name, ())),
        )
        return made

    def written(self, memory: Memory) -> None:
        """The API server has it."""
        hashes = {each.revision.key.number: each.revision.hash for each in memory.revisions}
        self._recorded[memory.endpoint.name] = Identity(_head(memory.endpoint), hashes)

    def recorded(self, name: EndpointName) -> bool:
        """See `Store`: whether the API server has it."""
        return self._recorded.get(name) == self._now.get(name)

    # what is put

    def put_endpoint(self, record: EndpointRecord) -> None:
        super().put_endpoint(record)
        self._now[record.name].head = _head(record)
        self._changed(record.name)

    def remove_endpoint(self, name: EndpointName) -> None:
        super().remove_endpoint(name)
        for kept in (self.observed, self._now, self._recorded, self._decisions, self._memories):
            kept.pop(name, None)
        self.removed(name)

    def put_revision(self, record: RevisionRecord) -> None:
        super().put_revision(record)
        key = record.revision.key
        self._now[key.endpoint].revisions[key.number] = record.revision.hash
        self._changed(key.endpoint)

    def remove_revision(self, key: RevisionKey) -> None:
        super().remove_revision(key)
        self._now[key.endpoint].revisions.pop(key.number, None)
        self._changed(key.endpoint)

    def put_change(self, name: EndpointName, change: Change) -> None:
        super().put_change(name, change)
        self._changed(name)

    def set_change_outcome(self, name: EndpointName, generation: int, outcome: str) -> None:
        super().set_change_outcome(name, generation, outcome)
        self._changed(name)

    def record(self, logged: Sequence[Logged], learned: Sequence[LearnedLimit] = ()) -> None:
        """See `Store`."""
        super().record(logged, learned)
        for entry in logged:
            if entry.changed:
                kept = self._decisions.setdefault(entry.name, deque(maxlen=DECISIONS_KEPT))
                kept.append(entry.message.SerializeToString())
                self._changed(entry.name)
        for each in learned:
            query = "SELECT DISTINCT namespace, name FROM revisions WHERE hash = ?"
            for namespace, name in self._query(query, each.hash):
                self._changed(EndpointName(namespace, name))
        if logged:
            self.decided(logged)

    def _changed(self, name: EndpointName) -> None:
        self._memories.pop(name, None)
        self.dirty(name)


def _head(record: EndpointRecord) -> Head:
    return (
        record.generation,
        record.wanted_revision,
        record.serving_revision,
        record.outcome,
        record.deleting,
    )
