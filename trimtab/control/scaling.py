"""Calls the autoscaler for each endpoint, every DECIDE_EACH_S and at once after a change of its spec."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil

from trimtab.autoscaler.horizontal import Signals, State, decide, inherit
from trimtab.autoscaler.horizontal.reasons import THIS_MACHINE
from trimtab.autoscaler.horizontal.tuning import DEFAULT, Tuning
from trimtab.control.decisions import decision_message
from trimtab.control.metrics import Metrics
from trimtab.control.observations import Observations
from trimtab.control.records import EndpointRecord, RevisionRecord
from trimtab.control.store import Store
from trimtab.control.view import target_concurrency
from trimtab.core.clock import Clock
from trimtab.core.errors import TrimtabError
from trimtab.core.names import EndpointName
from trimtab.core.pod import Pod, PodPhase
from trimtab.core.revision import Revision
from trimtab.fleet.protocol import Room
from trimtab.v1 import control_pb2 as v1

log = logging.getLogger(__name__)

DECIDE_EACH_S = 5.0


@dataclass
class _Axis:
    """The horizontal axis of one endpoint's serving revision."""

    revision: int
    state: State
    next_at_s: float
    capped_by: str = ""  # what keeps the machine from holding more, by the last decision
    start_time_s: float | None = None  # slowest start among the pods that were there last


class Scaling:
    """Holds the autoscaler's state per endpoint; all of it can be lost: the windows fill again."""

    def __init__(
        self,
        observations: Observations,
        store: Store,
        clock: Clock,
        metrics: Metrics,
        *,
        down_window_s: float | None = None,
    ) -> None:
        self._observations = observations
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._tuning = _tuned(down_window_s)
        self._axes: dict[EndpointName, _Axis] = {}
        self._unrecorded: list[tuple[EndpointName, v1.Decision]] = []

    def pods_wanted(
        self,
        record: EndpointRecord,
        serving: RevisionRecord,
        pods: tuple[Pod, ...],
        room_for: Callable[[Revision], Room],
    ) -> int:
        """How many pods the serving revision should have: decided anew when due, else as it was."""
        now_s = self._clock.now_s()
        axis = self._axis(record, serving, now_s)
        if now_s < axis.next_at_s:
            return max(1, serving.pods_wanted)
        axis.next_at_s = now_s + DECIDE_EACH_S
        axis.start_time_s = _slowest_start_s(pods) or axis.start_time_s
        room = room_for(serving.revision)
        signals = self._signals(record, serving, pods, room, axis.start_time_s)
        axis.state, decision = decide(axis.state, signals, now_s, self._tuning)
        axis.capped_by = (room.why or THIS_MACHINE) if decision.binds == THIS_MACHINE else ""
        self._metrics.decisions.labels(decision.rule).inc()
        self._unrecorded.append((record.name, decision_message(decision, self._clock.wall_s())))
        return decision.pods

    def record_decisions(self) -> None:
        """Write down what was decided since the last call, all at once.

        They are for people: if the disk is full they are lost, and scaling goes on.
        """
        told, self._unrecorded = self._unrecorded, []
        try:
            self._store.add_decisions(told)
        except TrimtabError as error:
            self._metrics.errors.labels("decisions").inc()
            log.warning("%d decisions were not recorded: %s", len(told), error)

    def capped_by(self, name: EndpointName) -> str:
        """What keeps the machine from holding as many pods as the load asks for; empty if it does."""
        return self._axes[name].capped_by if name in self._axes else ""

    def floor(self, record: EndpointRecord, revision: RevisionRecord) -> int:
        """The fewest pods that the range allows: what a revision begins with."""
        target = target_concurrency(revision)
        wanted = record.spec.models[0].concurrency
        pods = max(1, ceil(wanted.min / target))
        return min(pods, record.spec.max_pods) if record.spec.max_pods else pods

    def decide_now(self, name: EndpointName) -> None:
        """Let the next look decide, whatever the time: the spec has changed."""
        if name in self._axes:
            self._axes[name].next_at_s = self._clock.now_s()

    def forget(self, name: EndpointName) -> None:
        self._axes.pop(name, None)

    def _axis(self, record: EndpointRecord, serving: RevisionRecord, now_s: float) -> _Axis:
        number = serving.revision.key.number
        axis = self._axes.get(record.name)
        if axis is None:
            state = State(pods=serving.pods_wanted or None)
            axis = self._axes[record.name] = _Axis(number, state, now_s)
        elif axis.revision != number:  # it took over the traffic, and with it what the traffic needs
            state = replace(inherit(axis.state), pods=serving.pods_wanted or None)
            axis = self._axes[record.name] = _Axis(number, state, now_s + DECIDE_EACH_S)
        return axis

    def _signals(
        self,
        record: EndpointRecord,
        serving: RevisionRecord,
        pods: tuple[Pod, ...],
        room: Room,
        start_time_s: float | None,
    ) -> Signals:
        now_s = self._clock.wall_s()
        starting = [max(0.0, now_s - pod.started_at_s) for pod in pods if pod.phase is PodPhase.STARTING]
        return Signals(
            revision=serving.revision.key,
            revision_signals=self._observations.take(serving.revision.key),
            ready_pods=sum(pod.phase is PodPhase.READY for pod in pods),
            starting_ages_s=tuple(starting),
            start_time_s=start_time_s,
            target_concurrency=target_concurrency(serving),
            concurrency=record.spec.models[0].concurrency,
            max_pods=record.spec.max_pods,
            room=room.pods,
            room_why=room.why.removeprefix(f"{THIS_MACHINE}: "),  # a reason begins with it
        )


def _slowest_start_s(pods: tuple[Pod, ...]) -> float | None:
    """Of the pods that are there; a clock that was set back meanwhile makes none below 0."""
    took_s = [pod.ready_at_s - pod.started_at_s for pod in pods if pod.ready_at_s is not None]
    return max(0.0, *took_s) if took_s else None


def _tuned(down_window_s: float | None) -> Tuning:
    """The constants, with windows no longer than `down_window_s` if one is given."""
    if down_window_s is None:
        return DEFAULT
    slow_window_s = min(DEFAULT.slow_window_s, down_window_s)
    return replace(DEFAULT, down_window_s=down_window_s, slow_window_s=slow_window_s)
