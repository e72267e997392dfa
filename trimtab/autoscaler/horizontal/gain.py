"""Whether more pods bring more: throughput of full pods, before and after there were more of them.

Where a database, a disk or the cores of one machine bind all pods alike, each new pod only makes the others
slower. Then growth stops at what there is, until throughput rises or requests no longer wait. What is slow
may recover, and chance may have misled: after a while a quarter more pods are tried, each time later.

A pod counts once it has been ready for longer than a request takes: before, it is full and has completed
nothing. An example: 4 full pods answer 100/s. 6 that have been ready for 5 s and for as long as 4 × 4 slots
at 100/s take for a request (0.16 s) answer 101/s, and so do 8 and 8 again: growth stops at 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, inf
from typing import NamedTuple

from trimtab.autoscaler.horizontal.tuning import Tuning
from trimtab.autoscaler.horizontal.windows import Evidence

FULL = 0.9  # of what ready pods can hold: balancing leaves a slot open now and then


class Ready(NamedTuple):
    """So many pods were ready from a time on."""

    at_s: float  # observed seconds
    pods: int


class Gain(NamedTuple):
    """Throughput that full pods had, to compare with; in how many decisions more of them brought none."""

    pods: int = 0  # 0: nothing to compare with
    per_s: float = 0.0
    missing: int = 0
    pods_now: int = 0  # of the last decision that compared
    per_s_now: float = 0.0
    per_pod: float = 0.0  # requests that a pod held
    stops: int = 0  # how often in a row growth was stopped
    stopped_s: float = 0.0  # the last time (observed seconds)
    ready: tuple[Ready, ...] = ()  # at each change, back to when what is full now began to count

    def is_missing(self, tuning: Tuning) -> bool:
        """Whether more pods would not help."""
        return self.missing >= tuning.help_decisions

    def most(self, tuning: Tuning) -> float:
        """Pods up to which growth is tried."""
        return ceil(self.pods * tuning.help_pods) if self.stops else inf

    def tried_again_s(self, tuning: Tuning) -> float:
        """When growth is tried again that was stopped (observed seconds)."""
        return self.stopped_s + min(tuning.help_again_s * 2.0 ** (self.stops - 1), tuning.help_again_max_s)


NOTHING_KNOWN = Gain()


class Pods(NamedTuple):
    """The pods as one decision sees them; gauges of the last seconds, oldest first."""

    ready: int
    per_pod: float  # requests that one holds
    in_flight: Sequence[float]
    queued: Sequence[float]


def follow(
    gain: Gain, pods: Pods, evidence: Evidence, at_s: float, service_time_s: float, tuning: Tuning
) -> Gain:
    """After a decision at `at_s` (observed seconds) in which requests were queued at some time.

    Once none is any more, nothing is known: pods suffice.
    """
    if gain.per_pod != pods.per_pod:  # the limit has changed, and with it what a full pod is
        gain = Gain(per_pod=pods.per_pod)
    lasts_s = gain.pods * pods.per_pod / gain.per_s if gain.pods else service_time_s
    since_s = at_s - tuning.help_settle_s - tuning.help_settle_times * lasts_s
    ready = _ready(gain.ready, pods.ready, at_s, since_s, tuning)
    settled = min([each.pods for each in ready]) if ready[0].at_s <= since_s else 0
    if settled and full(pods.in_flight, pods.queued, settled * pods.per_pod):
        before, gain = gain, compare(gain, settled, evidence, tuning)
        if gain.is_missing(tuning) and not before.is_missing(tuning):
            gain = gain._replace(stops=gain.stops + 1, stopped_s=at_s)
    if gain.stops and at_s >= gain.tried_again_s(tuning):
        per_s = gain.per_s_now if gain.missing else gain.per_s
        gain = gain._replace(pods=pods.ready, per_s=per_s, missing=0, stopped_s=at_s)
    return gain._replace(ready=ready)


def _ready(
    ready: tuple[Ready, ...], pods: int, at_s: float, since_s: float, tuning: Tuning
) -> tuple[Ready, ...]:
    """With the pods of now; without what was over before `since_s`, so that it is bounded."""
    if not ready or ready[-1].pods != pods:
        ready = (*ready, Ready(at_s, pods))
    first = 0
    while first + 1 < len(ready) and ready[first + 1].at_s <= since_s:
        first += 1
    return ready[max(first, len(ready) - tuning.help_changes_max) :]


def full(in_flight: Sequence[float], queued: Sequence[float], ready_slots: float) -> bool:
    """Whether throughout the last seconds all these slots were full and requests waited."""
    return ready_slots > 0 and min(queued) > 0 and min(in_flight) >= FULL * ready_slots


def compare(gain: Gain, pods: int, evidence: Evidence, tuning: Tuning) -> Gain:
    """After a decision in which so many pods were full."""
    if evidence.completions < tuning.help_requests or not evidence.span_s:
        return gain
    per_s = evidence.completions / evidence.span_s
    anew = Gain(pods, per_s, per_pod=gain.per_pod)
    if not gain.pods or pods < gain.pods:
        return anew
    grown = pods / gain.pods - 1.0
    told = grown >= tuning.help_pods - 1.0
    if per_s > gain.per_s * (1.0 + tuning.help_gain * (grown if told else 1.0)):
        return anew
    if per_s < gain.per_s * tuning.help_fall:  # it is the requests that are others, or the dependency
        return anew._replace(stops=gain.stops, stopped_s=gain.stopped_s)
    if not told:
        return gain
    missing = min(gain.missing + 1, tuning.help_decisions)
    return gain._replace(missing=missing, pods_now=pods, per_s_now=per_s)
