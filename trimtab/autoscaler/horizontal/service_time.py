"""The service time: how long a request is in a pod while that is not overloaded."""

from __future__ import annotations

from math import inf
from typing import NamedTuple

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
