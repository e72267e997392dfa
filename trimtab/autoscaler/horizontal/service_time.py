"""The service time: how long a request is in a pod while that is not overloaded.

Servers that batch take longer the more is in flight: what a request takes now, in pods that are half full,
does not tell how much they can do. So what it takes in full pods is remembered beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, inf, sqrt
from typing import NamedTuple

from trimtab.autoscaler.horizontal.demand import Slots
from trimtab.autoscaler.horizontal.tuning import Tuning
from trimtab.autoscaler.horizontal.windows import Evidence


class ServiceTime(NamedTuple):
    """Mean time of a request in the pod (s), and on how many, fading with age, it rests."""

    mean_s: float
    requests: float


def learn(
    known: ServiceTime | None, evidence: Evidence, elapsed_s: float, tuning: Tuning
) -> ServiceTime | None:
    """The service time after new evidence; None while nothing has completed.

    While nothing is queued, the time at Envoy is the time in the pod, exactly. While requests are
    queued, it is what is in flight over the rate of completions (Little, for the pods alone); pods
    that share a machine are slower then than their number explains, so it may only creep up.
    """
    busy = not evidence.quiet_completions
    if not busy:
        requests = evidence.quiet_completions
        seen_s = evidence.quiet_request_s / requests
    elif evidence.completions and evidence.in_flight_s:
        requests = evidence.completions
        seen_s = evidence.in_flight_s / requests
    else:
        return known
    if known is None:
        return ServiceTime(seen_s, requests)
    remembered = known.requests * max(0.0, 1.0 - elapsed_s / tuning.service_window_s)
    weight = requests / (requests + remembered)
    most_s = inf
    if known.requests >= tuning.settle_requests:
        most_s = max(known.mean_s, tuning.service_min_s) * (
            tuning.busy_growth if busy else tuning.service_growth
        )
        weight = max(weight, tuning.busy_weight) if busy else weight
    mean_s = min(known.mean_s + (seen_s - known.mean_s) * weight, most_s)
    return ServiceTime(mean_s, remembered + requests)


class FullTime(NamedTuple):
    """Mean time of a request in a full pod (s), on how many it rests, and the limit for which it holds."""

    mean_s: float = 0.0
    requests: float = 0.0  # as of the last of them; fading with age
    per_pod: float = 0.0
    at_s: float = 0.0  # observed seconds, of the last of them

    def left(self, slots: Slots, at_s: float, tuning: Tuning) -> float:
        """On how many requests it rests now, for pods of this limit."""
        if self.per_pod != slots.per_pod:
            return 0.0
        return self.requests * exp((self.at_s - at_s) / tuning.full_window_s)

    def counts_s(self, mean_s: float, slots: Slots, at_s: float, tuning: Tuning) -> float:
        """The time by which pods are to be counted, where requests take `mean_s` now: at least that."""
        if self.mean_s <= mean_s or (left := self.left(slots, at_s, tuning)) < tuning.settle_requests:
            return mean_s
        certain = 1.0 - tuning.doubt / sqrt(left)  # times spread as widely as their mean
        return max(mean_s, min(self.mean_s * certain, tuning.busy_growth * mean_s))


NEVER_FULL = FullTime()


def is_full(in_flight: Sequence[float], slots: Slots, tuning: Tuning) -> bool:
    """Whether nearly all ready slots were taken at the end of each of the last seconds."""
    return 0.0 < tuning.full_share * slots.ready <= min(in_flight)


def learn_full(
    known: FullTime,
    evidence: Evidence,
    queued: Sequence[float],
    slots: Slots,
    at_s: float,
    tuning: Tuning,
) -> FullTime:
    """The time in full pods after new evidence of such (see `is_full`). `queued`: gauges of the last seconds.

    Only where as many completed as are in flight: a few that fill a small fleet for long are just long ones.
    And only where no more wait than are served: under such a load what is slow may be beside the pods.
    """
    # one alone in its pod is with no other
    if slots.per_pod == 1.0 or evidence.completions < slots.ready or max(queued) > slots.ready:
        return known
    new, lasted_s = evidence.quiet_completions, evidence.quiet_request_s
    if not new:
        new, lasted_s = evidence.completions, evidence.in_flight_s
    left = known.left(slots, at_s, tuning)
    mean_s = (known.mean_s * left + lasted_s) / (left + new)
    return FullTime(mean_s, min(left + new, tuning.full_requests), slots.per_pod, at_s)
