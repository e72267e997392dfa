"""Calls the autoscaler for each endpoint: every DECIDE_EACH_S, sooner if load jumps or the spec changes.

What rests is decided on every REST_WITHIN_S, until something comes that could change what was decided.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from math import inf
from typing import NamedTuple

from trimtab.autoscaler.horizontal import (
    REST_WITHIN_S,
    Rest,
    Signals,
    State,
    decide,
    inherit,
    overdue_after_s,
    pods_range,
    rest,
    urgent,
)
from trimtab.autoscaler.horizontal.reasons import THIS_MACHINE
from trimtab.autoscaler.horizontal.state import pods_for
from trimtab.autoscaler.horizontal.tuning import DEFAULT, shortened
from trimtab.autoscaler.starts import typical_start_s
from trimtab.control.decisions import Logged, decision_message, limit_message
from trimtab.control.limits import Limits, PodSignals
from trimtab.control.metrics import Metrics
from trimtab.control.observations import Observations
from trimtab.control.records import EndpointRecord, LearnedLimit, RevisionRecord
from trimtab.control.replay import CHECKPOINT_EACH_S, packed_checkpoint, packed_given
from trimtab.control.sharing import Sharing, Standing, decide_in_share
from trimtab.control.store import Store
from trimtab.control.view import target_concurrency
from trimtab.core.clock import Clock
from trimtab.core.decision import Decision
from trimtab.core.errors import TrimtabError
from trimtab.core.names import EndpointName
from trimtab.core.pod import Pod, PodPhase
from trimtab.core.revision import Revision, RevisionKey
from trimtab.core.signals import PodSignal, RevisionSignal
from trimtab.fleet.protocol import Room

log = logging.getLogger(__name__)

DECIDE_EACH_S = 5.0

URGENT_AFTER_S = 2.0
"""Least time between two decisions when load jumps (s): the first of them has then met its second signal."""

RoomFor = Callable[[Revision], Room]


@dataclass
class _Axis:
    """The horizontal axis of one endpoint's serving revision."""

    revision: int
    state: State
    decided_at_s: float
    next_at_s: float
    rest: Rest = Rest.NONE  # by the last decision
    capped_by: str = ""  # what keeps the machine from holding more, by the last decision
    start_time_s: float | None = None  # what a start typically took, of the pods that were there last
    checkpoint_at_s: float | None = None  # the last one; None: a replay cannot go on from what is logged


class Due(NamedTuple):
    """When the next decision is: at `at_s`, or sooner where what Envoy tells asks for it.

    That is a jump from `jump_s` on; and of what rests any request from `asked_s` on.
    """

    jump_s: float
    asked_s: float
    at_s: float

    def begins(self, before_s: float, now_s: float) -> bool:
        """Whether one of these times has come since `before_s`."""
        return before_s < self.jump_s <= now_s or before_s < self.asked_s <= now_s


class Begin(NamedTuple):
    """What a revision that does not serve yet should have."""

    pods: int
    to_take_over: int  # of these, those that hold what the traffic needs: ready before it is theirs


def no_pod_signals(_revision: RevisionKey) -> tuple[PodSignal, ...]:
    """Where nobody reads the pods' own metrics: all of it is unknown."""
    return ()


class Scaling:
    """Holds both axes' state per endpoint; all of it can be lost: windows fill again, limits are stored."""

    def __init__(
        self,
        observations: Observations,
        store: Store,
        clock: Clock,
        metrics: Metrics,
        *,
        down_window_s: float | None = None,
        pod_signals: PodSignals = no_pod_signals,
    ) -> None:
        self._observations = observations
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._tuning = DEFAULT if down_window_s is None else shortened(down_window_s)
        self._axes: dict[EndpointName, _Axis] = {}
        self._limits = Limits(store.learned, pod_signals, clock)
        self._sharing = Sharing()
        self._unrecorded: list[Logged] = []
        self._learned: dict[str, LearnedLimit] = {}  # by hash

    def decided(
        self,
        record: EndpointRecord,
        serving: RevisionRecord,
        pods: tuple[Pod, ...],
        leaving: Collection[str],
        room_for: RoomFor,
    ) -> RevisionRecord:
        """The serving revision with the pods and the limit it should have: anew when due, else as it was.

        `leaving`: ids of pods that get no new requests. They are no capacity, though they finish what they
        have and hold memory meanwhile; until then they may be taken back, which takes no room.
        """
        now_s = self._clock.now_s()
        axis = self._axis(record, serving, now_s)
        out = 0
        if leaving:
            out = sum(pod.id in leaving and pod.phase is PodPhase.READY for pod in pods)
            pods = tuple(pod for pod in pods if pod.id not in leaving)
        if now_s < axis.next_at_s and not self._urgent(axis, record, serving, pods, now_s):
            return _wants(serving, max(1, serving.pods_wanted))
        axis.decided_at_s, axis.next_at_s = now_s, now_s + DECIDE_EACH_S
        axis.start_time_s = _typical_start_s(pods) or axis.start_time_s
        taken = self._observations.take(serving.revision.key)
        serving = self._limited(record, serving, pods, taken)
        signals = self._signals(record, serving, pods, taken, axis.start_time_s)
        room = self._room(record, signals, out, room_for(serving.revision))
        more = None if room.pods is None else room.pods + out
        signals = replace(signals, room=more, room_why=room.why.removeprefix(f"{THIS_MACHINE}: "))
        before = axis.state
        axis.state, decision = decide_in_share(before, signals, now_s, self._tuning)
        axis.rest = rest(axis.state, signals, decision, self._tuning)
        if axis.rest is not Rest.NONE:
            axis.next_at_s = now_s + REST_WITHIN_S[axis.rest]
        self._log(record.name, axis, before, signals, decision)
        self._note(record.name, before, signals, decision, room)
        axis.capped_by = (room.why or THIS_MACHINE) if decision.binds == THIS_MACHINE else ""
        return _wants(serving, decision.pods)

    def due(self, name: EndpointName) -> Due:
        """When the next decision is; one that was never made is due now."""
        axis = self._axes.get(name)
        if axis is None:
            return Due(-inf, -inf, -inf)
        return Due(axis.decided_at_s + URGENT_AFTER_S, axis.decided_at_s + DECIDE_EACH_S, axis.next_at_s)

    def is_urgent(self, record: EndpointRecord, serving: RevisionRecord, pods: tuple[Pod, ...]) -> bool:
        """Whether what Envoy told of late asks for a decision before it is due."""
        axis = self._axes.get(record.name)
        return axis is not None and self._urgent(axis, record, serving, pods, self._clock.now_s())

    def begin(
        self,
        record: EndpointRecord,
        newest: RevisionRecord,
        serving: RevisionRecord | None,
        pods: tuple[Pod, ...],
        room_for: RoomFor,
    ) -> Begin:
        """The fewest pods that the range allows and, in an update, no fewer than the traffic needs.

        That is slots divided by the new revision's own limit: what 40 pods with one request each hold, one
        pod may hold that bears 50, and the other way round.
        """
        target = target_concurrency(record, newest)
        concurrency, ceiling = record.spec.models[0].concurrency, record.spec.max_pods
        floor, most = pods_range(
            Signals(newest.revision.key, target_concurrency=target, concurrency=concurrency, max_pods=ceiling)
        )
        if serving is None:  # it makes no decision yet, and waits for its floor all the same
            room = room_for(newest.revision)
            free = floor if room.pods is None else len(pods) + room.pods
            self._sharing.note(record.name, Standing(floor, min(floor, free), floor, room.pod_bytes))
            return Begin(floor, 1)
        needed = min(most, pods_for(self._slots_needed(record, serving), target))
        return Begin(max(floor, needed), needed)

    def _slots_needed(self, record: EndpointRecord, serving: RevisionRecord) -> float:
        """Requests in flight for which the traffic needs room; never more than what serves has room for.

        Demand is believed once it was seen for as long as a rise is looked for. Before that, as after a
        restart in the middle of a rollout, all that is held may be needed.
        """
        held = serving.pods_wanted * target_concurrency(record, serving)
        axis = self._axes.get(record.name)
        if axis is None or axis.state.observed_s < self._tuning.up_window_s:
            return held
        return min(held, inherit(axis.state).inherited + axis.state.spare)

    def overdue_after_s(self, revision: RevisionKey, pods: tuple[Pod, ...]) -> float:
        """The age of a revision's starting pod from which it should have been ready long ago.

        Without end while nobody knows what a start of it takes: the first one of a large model takes minutes.
        """
        axis = self._axes.get(revision.endpoint)
        known_s = axis.start_time_s if axis is not None and axis.revision == revision.number else None
        typical_s = _typical_start_s(pods) or known_s
        return inf if typical_s is None else overdue_after_s(typical_s, self._tuning)

    def record_decisions(self, most: int = sys.maxsize) -> bool:
        """Write down what was decided and learned since the last call; of decisions so many, all at once.

        Returns whether there are more. Decisions are for people: if the disk is full all that wait are lost,
        and scaling goes on. What was learned is tried again.
        """
        told, self._unrecorded = self._unrecorded[:most], self._unrecorded[most:]
        try:
            self._store.record(told, tuple(self._learned.values()))
            self._learned.clear()
        except TrimtabError as error:
            told, self._unrecorded = [*told, *self._unrecorded], []
            for entry in told:  # a replay cannot pass over a decision that is missing
                if entry.name in self._axes:
                    self._axes[entry.name].checkpoint_at_s = None
            self._metrics.errors.labels("decisions").inc()
            log.warning("%d decisions were not recorded: %s", len(told), error)
        return bool(self._unrecorded)

    def capped_by(self, name: EndpointName) -> str:
        """What keeps the machine from holding as many pods as the load asks for; empty if it does."""
        return self._axes[name].capped_by if name in self._axes else ""

    def decide_now(self, name: EndpointName) -> None:
        """Let the next look decide, whatever the time: the spec has changed."""
        if name in self._axes:
            self._axes[name].next_at_s = self._clock.now_s()

    def wants_nothing(self, name: EndpointName) -> None:
        """It is being deleted, or nothing of it is tried any more: its share is the others'."""
        self._sharing.forget(name)

    def forget(self, name: EndpointName) -> None:
        self._axes.pop(name, None)
        self._limits.forget(name)
        self._sharing.forget(name)

    def _axis(self, record: EndpointRecord, serving: RevisionRecord, now_s: float) -> _Axis:
        number = serving.revision.key.number
        axis = self._axes.get(record.name)
        if axis is None:
            state = State(pods=serving.pods_wanted or None)
            axis = self._axes[record.name] = _Axis(number, state, now_s, now_s)
        elif axis.revision != number:  # it took over the traffic, and with it what the traffic needs
            state = inherit(axis.state)._replace(pods=serving.pods_wanted or None)
            axis = self._axes[record.name] = _Axis(number, state, now_s, now_s + DECIDE_EACH_S)
        return axis

    def _urgent(
        self,
        axis: _Axis,
        record: EndpointRecord,
        serving: RevisionRecord,
        pods: tuple[Pod, ...],
        now_s: float,
    ) -> bool:
        """Whether what Envoy told since the last decision should not wait for the next one."""
        since_s, key = now_s - axis.decided_at_s, serving.revision.key
        if since_s < URGENT_AFTER_S:
            return False
        asked = self._observations.asked(key)
        if since_s >= DECIDE_EACH_S:  # it rests
            told = axis.rest is Rest.UNTIL_TOLD and bool(self._observations.waiting(key))
            return asked or told or self._sharing.others_are_short(record.name)
        return asked and urgent(
            axis.state,
            self._signals(record, serving, pods, self._observations.waiting(key), axis.start_time_s),
            self._tuning,
        )

    def _limited(
        self,
        record: EndpointRecord,
        serving: RevisionRecord,
        pods: tuple[Pod, ...],
        taken: tuple[RevisionSignal, ...],
    ) -> RevisionRecord:
        """The revision with its limit, decided anew if that is due."""
        learning = self._limits.look(record, serving, pods, taken)
        if learning is None:
            return serving
        self._metrics.decisions.labels("limit", learning.decision.rule).inc()
        message = limit_message(learning.decision, self._clock.wall_s())
        self._unrecorded.append(Logged(record.name, message))
        if learning.to_store is not None:
            self._learned[learning.to_store.hash] = learning.to_store
        same = learning.limit == serving.learned_limit
        return serving if same else replace(serving, learned_limit=learning.limit)

    def _signals(
        self,
        record: EndpointRecord,
        serving: RevisionRecord,
        pods: tuple[Pod, ...],
        taken: tuple[RevisionSignal, ...],
        start_time_s: float | None,
    ) -> Signals:
        """All but the room."""
        return Signals(
            revision=serving.revision.key,
            revision_signals=taken,
            ready_pods=sum(pod.phase is PodPhase.READY for pod in pods),
            starting_ages_s=_starting_ages_s(pods),
            start_time_s=start_time_s,
            target_concurrency=target_concurrency(record, serving),
            concurrency=record.spec.models[0].concurrency,
            max_pods=record.spec.max_pods,
        )

    def _room(self, record: EndpointRecord, signals: Signals, leaving: int, free: Room) -> Room:
        held = signals.ready_pods + len(signals.starting_ages_s) + leaving
        return self._sharing.room(record.name, pods_range(signals)[0], held, free)

    def _note(
        self, name: EndpointName, before: State, signals: Signals, decision: Decision, room: Room
    ) -> None:
        """What this one wants bears on the others' shares: more than it got if the machine caps it."""
        wanted = decision.pods
        if decision.binds == THIS_MACHINE:
            unbound = replace(signals, room=None)
            wanted = decide(before, unbound, decision.at_s, self._tuning)[1].pods
        standing = Standing(pods_range(signals)[0], decision.pods, wanted, room.pod_bytes)
        self._sharing.note(name, standing)

    def _log(
        self, name: EndpointName, axis: _Axis, before: State, signals: Signals, decision: Decision
    ) -> None:
        self._metrics.decisions.labels("pods", decision.rule).inc()
        checkpoint, last_s = b"", axis.checkpoint_at_s
        if last_s is None or decision.at_s - last_s >= CHECKPOINT_EACH_S:
            checkpoint = packed_checkpoint(before, self._tuning, begins=last_s is None)
            axis.checkpoint_at_s = decision.at_s
        message = decision_message(decision, self._clock.wall_s())
        given = packed_given(signals, decision.at_s)
        self._unrecorded.append(Logged(name, message, given, checkpoint))


def _wants(serving: RevisionRecord, pods: int) -> RevisionRecord:
    """The very same where it wants so many already: mostly nothing follows from a decision."""
    return serving if serving.pods_wanted == pods else replace(serving, pods_wanted=pods)


def _starting_ages_s(pods: tuple[Pod, ...]) -> tuple[float, ...]:
    return tuple([pod.start_time_s or 0.0 for pod in pods if pod.phase is PodPhase.STARTING])


def _typical_start_s(pods: tuple[Pod, ...]) -> float | None:
    """Of the pods that are there, which come oldest first."""
    took_s = [pod.start_time_s for pod in pods if pod.phase is PodPhase.READY]
    return typical_start_s([each_s for each_s in took_s if each_s is not None])
