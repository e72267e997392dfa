"""Calls the vertical axis for what serves, every LIMIT_EACH_S, and keeps what it learns under the hash."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple
from zlib import crc32

from trimtab.autoscaler.vertical import (
    RESTING,
    Learned,
    LimitSignals,
    LimitState,
    decide_limit,
    learned,
    resume,
)
from trimtab.control.records import EndpointRecord, LearnedLimit, RevisionRecord
from trimtab.control.view import limit_ceiling, target_concurrency
from trimtab.core.clock import Clock
from trimtab.core.decision import LimitDecision
from trimtab.core.names import EndpointName
from trimtab.core.pod import Pod, PodPhase
from trimtab.core.revision import RevisionKey
from trimtab.core.signals import PodSignal, RevisionSignal

log = logging.getLogger(__name__)

LIMIT_EACH_S = 30.0
WAITING_MAX = 600  # signals of Envoys that wait for a decision: one a second from each of twenty
SEEN_MAX = 32  # looks at the pods that wait for one: two seconds apart at the least
CONFIRMED_EACH_S = 600.0  # what was learned changes a little with each decision; a crash loses this much

PodSignals = Callable[[RevisionKey], tuple[PodSignal, ...]]


@dataclass
class _Axis:
    """The vertical axis of one endpoint's serving revision."""

    revision: int
    state: LimitState
    next_at_s: float
    stored: LearnedLimit | None
    waiting: deque[RevisionSignal] = field(default_factory=lambda: deque(maxlen=WAITING_MAX))
    seen: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=SEEN_MAX))  # when, ready pods


class Learning(NamedTuple):
    """A decision; the limit that was learned, 0 if none was; what has to be stored."""

    decision: LimitDecision
    limit: int
    to_store: LearnedLimit | None


class Limits:
    """The vertical axes of all endpoints. What they learned survives in the store, the rest may be lost."""

    def __init__(
        self, stored: Callable[[str], LearnedLimit | None], pod_signals: PodSignals, clock: Clock
    ) -> None:
        """`stored(hash)`: what was learned before. `pod_signals`: what came since the last time."""
        self._stored = stored
        self._pod_signals = pod_signals
        self._clock = clock
        self._axes: dict[EndpointName, _Axis] = {}

    def forget(self, name: EndpointName) -> None:
        self._axes.pop(name, None)

    def look(
        self,
        record: EndpointRecord,
        serving: RevisionRecord,
        pods: tuple[Pod, ...],
        signals: tuple[RevisionSignal, ...],
    ) -> Learning | None:
        """Take in Envoy's signals; decide if it is time to."""
        now_s = self._clock.now_s()
        axis = self._axis(record.name, serving, now_s)
        axis.waiting.extend(signals)
        axis.seen.append((now_s, sum(pod.phase is PodPhase.READY for pod in pods)))
        if now_s < axis.next_at_s:
            return None
        axis.next_at_s = now_s + LIMIT_EACH_S
        axis.state, decision = decide_limit(axis.state, self._signals(axis, record, serving), now_s)
        axis.waiting.clear()
        axis.seen = deque(list(axis.seen)[-1:], maxlen=SEEN_MAX)  # the next window begins with as many
        to_store = self._worth_storing(axis, serving.revision.hash, decision)
        return Learning(decision, axis.state.limit if axis.stored else 0, to_store)

    def _axis(self, name: EndpointName, serving: RevisionRecord, now_s: float) -> _Axis:
        key = serving.revision.key
        axis = self._axes.get(name)
        if axis is None or axis.revision != key.number:
            stored = self._stored(serving.revision.hash)
            first_s = now_s + crc32(str(key).encode()) % LIMIT_EACH_S  # not all endpoints at the same time
            axis = self._axes[name] = _Axis(key.number, _resumed(stored), first_s, stored)
        return axis

    def _signals(self, axis: _Axis, record: EndpointRecord, serving: RevisionRecord) -> LimitSignals:
        resources = serving.revision.model.resources
        return LimitSignals(
            revision=serving.revision.key,
            pod_signals=self._pod_signals(serving.revision.key),
            revision_signals=tuple(axis.waiting),
            ready_pods=axis.seen[-1][1],
            pods_seen=tuple(axis.seen),
            limit=target_concurrency(record, serving),
            cores=resources.cpu,
            memory_limit_bytes=float(resources.memory_bytes),
            ceiling=limit_ceiling(record),
        )

    def _worth_storing(self, axis: _Axis, revision_hash: str, decision: LimitDecision) -> LearnedLimit | None:
        """What was learned, if it moved the limit or has not been stored for a while; None before that."""
        now, before, wall_s = learned(axis.state), axis.stored, self._clock.wall_s()
        if before is None and not now.levels and decision.limit == decision.limit_before:
            return None  # no limit has shown yet what it gives
        fresh = before is not None and 0 <= wall_s - before.at_s < CONFIRMED_EACH_S
        if fresh and before is not None and before.target == now.limit:
            return None
        axis.stored = LearnedLimit(revision_hash, now.limit, now.to_json(), wall_s)
        there = self._stored(revision_hash)
        if there is None or (before is not None and there.content == before.content):
            return axis.stored
        # another endpoint with the same hash has stored something since
        news = before is None or before.content != axis.stored.content
        return axis.stored if news and not _knows_more(_resumed(there), now) else None


def _knows_more(there: LimitState, now: Learned) -> bool:
    """Whether there is found what is still looked for here, or only as far as a narrower range lets it."""
    held = now.held_at and not there.held_at and there.limit > now.limit
    return there.phase == RESTING and bool(now.phase != RESTING or held)


def _resumed(stored: LearnedLimit | None) -> LimitState:
    """What was learned before; anew if another version wrote it."""
    if stored is None:
        return LimitState()
    try:
        return resume(Learned.from_json(stored.content))
    except ValueError as error:
        log.warning("what was learned of %s cannot be read, and is learned anew: %s", stored.hash, error)
        return LimitState()
