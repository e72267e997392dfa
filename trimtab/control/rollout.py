"""What one endpoint needs next: which pods to start, which should leave, which revision serves. Pure.

The plan compares whole states: what is wanted, and which pods are there. It is computed anew at
each look, so it may be repeated, and a control plane that was killed anywhere goes on from what
it finds. Worked example: revision 3 serves with 4 pods wanted, revision 4 is wanted, and a pod of it
holds half as much. Revision 4 gets 8 pods; when 8 are ready it takes the traffic; once Envoy has
acknowledged the routes, the pods of revision 3 leave.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf

from trimtab.autoscaler.horizontal import replaced_at_once
from trimtab.control.records import EndpointRecord, Outcome, RevisionRecord
from trimtab.core.pod import Pod, PodPhase

FAILURES_MAX = 3  # rounds; a load that failed three times in a row fails by its own doing
BACKOFF_MAX_S = 60.0
HELD_OUT_S = 60.0  # a pod that served this long was no failed start: the count begins anew
STARTS_AT_ONCE_MAX = max(2, os.cpu_count() or 1)  # per endpoint: more would only slow each other's imports


@dataclass(frozen=True)
class RevisionFacts:
    """A revision, its pods as observed, and how many the autoscaler wants of it."""

    record: RevisionRecord
    pods: tuple[Pod, ...] = ()
    leaving: frozenset[str] = frozenset()  # ids of pods that Envoy was told to drain
    gone_from_envoy: frozenset[str] = frozenset()  # of those, the ones past the point of return
    wanted: int = 1
    to_take_over: int = 1  # how many must be ready before it takes the traffic of another
    overdue_after_s: float = inf  # the age of a starting pod from which it should have been ready long ago
    replaced_max: float = inf  # starts in place of those, beside what its own pods allow
    capped: bool = False  # the machine has no room for one more pod
    has_environment: bool = True  # there is one for its pods to start in

    @property
    def number(self) -> int:
        return self.record.revision.key.number

    def ready(self) -> list[Pod]:
        """Pods that take traffic."""
        return [p for p in self.pods if p.phase is PodPhase.READY and p.id not in self.leaving]

    def usable(self) -> list[Pod]:
        """Pods that take or may again take traffic, or will, the best to keep first.

        Not those that are taken away from us, or soon will be: others are wanted in their place.
        """
        return list(self._usable)

    @cached_property
    def _usable(self) -> tuple[Pod, ...]:
        alive = [pod for pod in self.pods if _alive(pod) and pod.id not in self.gone_from_envoy]
        alive = [pod for pod in alive if not (pod.evicted or pod.node_goes)]
        return tuple(sorted(alive, key=self._rank))

    @cached_property
    def late(self) -> tuple[Pod, ...]:
        """Starts that are overdue, among those that may yet serve."""
        starting = [pod for pod in self._usable if pod.phase is PodPhase.STARTING]
        return tuple([pod for pod in starting if (pod.start_time_s or 0.0) > self.overdue_after_s])

    def places(self) -> int:
        """Pods that may be there at once: the wanted ones, and some in place of starts that are overdue.

        A late one goes on, and whichever is ready first stays. What is missing is replaced once, and a small
        share of what is wanted at a time: where all are late, starts are slow, and more of them would make
        them slower. The next turn comes with each that is ready and began when others were late already.
        """
        ready = [pod for pod in self._usable if pod.phase is PodPhase.READY]
        missing = self.wanted - len(ready)
        if missing <= 0 or not self.late:
            return self.wanted
        newest_s = max((pod.started_at_s for pod in ready), default=-inf)
        overtaken = sum(pod.started_at_s + self.overdue_after_s < newest_s for pod in self.late)
        replaced = min(len(self.late), missing, replaced_at_once(self.wanted), self.replaced_max)
        return self.wanted + max(0, overtaken - missing) + int(replaced)

    def _rank(self, pod: Pod) -> tuple[bool, bool, float, str]:
        return (pod.phase is not PodPhase.READY, pod.id in self.leaving, pod.started_at_s, pod.id)


@dataclass(frozen=True)
class Plan:
    """What to do now for one endpoint. Every part may be empty."""

    starts: tuple[tuple[int, int], ...] = ()  # (revision, how many pods)
    leaves: tuple[str, ...] = ()  # ids of pods that should leave, all of them, at each look
    serving: int = 0
    gave_up: bool = False  # the wanted revision failed for good
    complete: bool = False  # what is wanted serves, with as many pods as it should
    retry_at_s: float | None = None  # wall clock


def plan(
    endpoint: EndpointRecord,
    revisions: dict[int, RevisionFacts],
    *,
    routes_settled: bool,
    connected: bool,
    now_s: float,
    starts_at_once: int = STARTS_AT_ONCE_MAX,
) -> Plan:
    """The next steps of one endpoint. `now_s` is wall clock, as the records' times are.

    `routes_settled`: every connected Envoy has acknowledged the routes as the record wants them;
    `connected`: there is one. `starts_at_once`: pods of one revision that may be starting side by side.
    """
    if endpoint.deleting:
        return _withdraw(revisions, routes_settled=routes_settled)
    wanted = revisions[endpoint.wanted_revision]
    serving = revisions.get(endpoint.serving_revision)
    gave_up = endpoint.outcome is Outcome.FAILED or _gave_up(wanted, serving)
    if not gave_up and _takes_over(wanted, serving):
        serving = wanted
    # A switch made just now is in no route yet: what served before must not leave at this look.
    routes_settled = routes_settled and (serving.number if serving else 0) == endpoint.serving_revision
    keep = {facts.number for facts in (serving, None if gave_up else wanted) if facts is not None}
    starts, leaves, retry_at_s = [], [], None
    for number, facts in sorted(revisions.items()):
        if number in keep:
            missing, spare = _missing(facts, starts_at_once), _spare(facts)
            rest_s = _rest_s(facts.record, now_s)
            if missing and not rest_s:
                starts.append((number, missing))
            elif missing:
                retry_at_s = now_s + rest_s
            leaves += spare + _evicted(facts) + _going(facts)
        elif routes_settled or not _serves(facts, endpoint):
            leaves += [pod.id for pod in facts.pods if _alive(pod)]
    return Plan(
        starts=tuple(starts),
        leaves=tuple(leaves),
        serving=serving.number if serving else 0,
        gave_up=gave_up,
        complete=serving is wanted and routes_settled and connected and _enough(wanted),
        retry_at_s=retry_at_s,
    )


def backoff_s(failures: int) -> float:
    """Seconds to wait after the n-th failed round: 0, 0, 1, 2, 4, … at most BACKOFF_MAX_S.

    The first loss is replaced at once: a pod that was killed says nothing about the next one.
    """
    doublings = min(failures - 2, 16)  # far beyond the maximum, and no overflow
    return 0.0 if failures <= 1 else min(BACKOFF_MAX_S, 2.0**doublings)


def after_failure(record: RevisionRecord, pod: Pod, now_s: float) -> RevisionRecord:
    """The revision's record once `pod` was found FAILED.

    Pods that began before the last counted failure belong to its round: four that die together
    of one cause count once. A pod killed after long service is a loss, not a failure. A start
    that ran into its deadline is a verdict by itself. A last failure in the future was told by a
    clock that has been set back since: it says nothing of this pod.
    """
    served_s = now_s - pod.ready_at_s if pod.ready_at_s is not None else 0.0
    if served_s >= HELD_OUT_S:
        return replace(record, failures=0)
    if pod.started_at_s <= record.failed_at_s <= now_s:
        return record
    in_vain = pod.ready_at_s is None and (pod.start_time_s or 0.0) >= record.revision.model.start_timeout_s
    return replace(record, failures=FAILURES_MAX if in_vain else record.failures + 1, failed_at_s=now_s)


def after_refusal(record: RevisionRecord, now_s: float, *, for_good: bool = False) -> RevisionRecord:
    """The revision's record once a pod of it could not even be begun; `for_good`: nor will the next one."""
    failures = record.failures + 1
    return replace(record, failures=max(failures, FAILURES_MAX) if for_good else failures, failed_at_s=now_s)


def after_service(record: RevisionRecord, pods: tuple[Pod, ...], now_s: float) -> RevisionRecord:
    """The record with its failures forgotten once a pod has held out."""
    held_out = any(
        pod.phase is PodPhase.READY
        and pod.ready_at_s is not None
        and now_s - pod.ready_at_s >= HELD_OUT_S
        and pod.ready_at_s > record.failed_at_s
        for pod in pods
    )
    return replace(record, failures=0) if held_out and record.failures else record


def _withdraw(revisions: dict[int, RevisionFacts], *, routes_settled: bool) -> Plan:
    """Routes go first (serving 0), pods once Envoy knows; one that has begun to leave goes on."""
    return Plan(
        leaves=tuple(
            pod.id
            for facts in revisions.values()
            for pod in facts.pods
            if _alive(pod) and (routes_settled or pod.id in facts.leaving)
        )
    )


def _rest_s(record: RevisionRecord, now_s: float) -> float:
    """Seconds until a pod may be started again. None after the clock was set back: nobody knows then."""
    since_s = now_s - record.failed_at_s
    return max(0.0, backoff_s(record.failures) - since_s) if since_s >= 0 else 0.0


def _gave_up(wanted: RevisionFacts, serving: RevisionFacts | None) -> bool:
    """A revision that never took traffic is given up; one that did is tried again, ever more slowly."""
    never_served = serving is None or serving.number != wanted.number
    return never_served and wanted.record.failures >= FAILURES_MAX


def _takes_over(wanted: RevisionFacts, serving: RevisionFacts | None) -> bool:
    ready = len(wanted.ready())
    if serving is None or serving.number == wanted.number or not serving.ready():
        return ready >= 1
    return ready >= max(1, wanted.to_take_over)


def _enough(facts: RevisionFacts) -> bool:
    ready = sum(not pod.evicted for pod in facts.ready())
    capped = facts.capped and sum(not pod.blocked for pod in facts.usable()) < facts.wanted
    return ready >= facts.wanted or (capped and ready >= 1)


def _missing(facts: RevisionFacts, starts_at_once: int) -> int:
    usable = facts.usable()
    starting = sum(pod.phase is PodPhase.STARTING for pod in usable)
    in_time = starting - len(facts.late)
    return max(0, min(facts.places() - len(usable), starts_at_once - in_time))


def _spare(facts: RevisionFacts) -> list[str]:
    """Pods beyond those that may be there: those not yet ready first, then the youngest."""
    beyond = [pod.id for pod in facts.usable()[max(0, facts.places()) :]]
    return beyond + [pod.id for pod in facts.pods if pod.id in facts.gone_from_envoy and _alive(pod)]


def _evicted(facts: RevisionFacts) -> list[str]:
    """Pods that are taken away: they leave at once, or, if no other one serves, as soon as one does."""
    stays = any(pod.phase is PodPhase.READY for pod in facts.usable())
    return [
        pod.id
        for pod in facts.pods
        if pod.evicted and _alive(pod) and stays and pod.id not in facts.gone_from_envoy
    ]


def _going(facts: RevisionFacts) -> list[str]:
    """Pods whose node is about to go: each leaves once another one is ready in its place, and no sooner."""
    going = [
        pod
        for pod in facts.pods
        if pod.node_goes and not pod.evicted and _alive(pod) and pod.id not in facts.gone_from_envoy
    ]
    ready = sum(pod.phase is PodPhase.READY for pod in facts.usable())
    going.sort(key=lambda pod: (pod.phase is not PodPhase.READY, pod.started_at_s, pod.id))
    return [pod.id for pod in going[max(0, facts.wanted - ready) :]]


def _serves(facts: RevisionFacts, endpoint: EndpointRecord) -> bool:
    """Whether Envoy may still send requests to it: it served until this look."""
    return facts.number == endpoint.serving_revision or bool(facts.ready())


def _alive(pod: Pod) -> bool:
    return pod.phase in (PodPhase.STARTING, PodPhase.READY)
