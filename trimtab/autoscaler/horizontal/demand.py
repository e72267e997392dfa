"""Demand: how many requests a revision must be able to hold at once, by Little's law and not by its queue.

    load    = arrival rate × service time           what arrivals need
    demand  = load + headroom × √load               to vary within
            + queued × min(1, service time / drain) to work the backlog off in the drain time
    and never less than what has been held in flight throughout the last seconds: a single sample of
a gauge varies by its root, and would keep a second pod for one moment in which two requests met.

A worked example: after a start of 60 s at 10 requests/s, 600 are queued and one pod of target 1
answers 5 a second. Load is 10 × 0.2 s = 2, headroom 0.85, backlog 600 × 0.2 s / 60 s = 2: 4 pods,
and 3 once the backlog has gone. Queued plus in flight, read as concurrency, asks for 845.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, sqrt
from typing import NamedTuple

from trimtab.autoscaler.horizontal.tuning import Tuning
from trimtab.autoscaler.horizontal.windows import Evidence, largest_mean


class ServiceTime(NamedTuple):
    """Mean time of a request in the pod while it is not overloaded (s), and on how many it rests."""

    mean_s: float
    requests: float  # at most `Tuning.settle_requests`


class SlowRate(NamedTuple):
    """Exponentially weighted sums behind the slow mean of arrivals."""

    arrivals: float = 0.0
    seconds: float = 0.0

    def per_s(self, tuning: Tuning) -> float:
        """Arrivals per second; the first `up_window_s` after a start count as if partly empty."""
        return self.arrivals / max(self.seconds, tuning.up_window_s)

    def plus(self, arrivals: float, seconds: float, service_time_s: float, tuning: Tuning) -> SlowRate:
        """The sums after `seconds` more with `arrivals` in them."""
        window_s = max(tuning.slow_window_s, service_time_s)
        kept = max(0.0, 1.0 - seconds / window_s)
        return SlowRate(self.arrivals * kept + arrivals, self.seconds * kept + seconds)


class Given(NamedTuple):
    """What demand is measured from: the last seconds (oldest first, at least one), and the fleet."""

    asked: Sequence[float]  # arrivals in each second of the up window
    in_flight: Sequence[float]  # gauges in each second of the short window
    queued: Sequence[float]
    service_time_s: float  # 0: unknown
    stalled_s: float  # requests have been in flight for so long and none completed: each lasts longer
    capacity: float  # requests that the pods there, or still expected, can hold
    drain_s: float  # time in which a backlog should be gone


class Demand(NamedTuple):
    """What the load asks for, in concurrent requests, and its parts."""

    arrivals_per_s: float
    load: float
    headroom: float
    backlog: float
    held: float
    in_flight: float
    queued: float

    @property
    def total(self) -> float:
        """Concurrent requests that the pods must be able to hold."""
        return max(self.load + self.spare, self.held)

    @property
    def spare(self) -> float:
        """Slots beside the load: those kept to vary within are also those that drain a backlog."""
        return max(self.headroom, self.backlog)


def learn_service_time(known: ServiceTime | None, evidence: Evidence, tuning: Tuning) -> ServiceTime | None:
    """The service time after new evidence; None while nothing has completed.

    While nothing is queued, the time at Envoy is the time in the pod, exactly. While requests are
    queued, it is what is in flight over the rate of completions (Little, for the pods alone); pods
    that share a machine are slower then than their number explains, so it may only creep up.
    """
    if evidence.quiet_completions:
        seen_s = evidence.quiet_request_s / evidence.quiet_completions
        requests, limit = evidence.quiet_completions, inf
    elif evidence.completions and evidence.in_flight_s:
        seen_s = evidence.in_flight_s / evidence.completions
        requests, limit = evidence.completions, tuning.busy_growth
    else:
        return known
    if known is None:
        return ServiceTime(seen_s, min(requests, tuning.settle_requests))
    weight = requests / (requests + known.requests)
    if known.requests < tuning.settle_requests:
        limit = inf
    else:
        weight = min(weight, tuning.service_weight)
    mean_s = min(known.mean_s + (seen_s - known.mean_s) * weight, known.mean_s * limit)
    return ServiceTime(mean_s, min(known.requests + requests, tuning.settle_requests))


def measure(given: Given, slow: SlowRate, tuning: Tuning) -> Demand:
    """Demand and its parts."""
    rate = _arrival_rate(given, slow, tuning)
    in_flight, queued, held = given.in_flight[-1], given.queued[-1], min(given.in_flight)
    load = min(rate * given.service_time_s, in_flight + queued + rate * tuning.horizon_s)
    lasts_s = given.service_time_s
    if given.stalled_s >= max(tuning.stall_s, tuning.stall_factor * lasts_s):
        lasts_s = given.stalled_s
        load = max(load, held)  # streams, of which none has completed yet
    # A queued request needs one slot at most, and less if others follow it there within the drain time.
    share = min(1.0, lasts_s / given.drain_s)
    return Demand(rate, load, tuning.headroom * sqrt(load), queued * share, held, in_flight, queued)


def _arrival_rate(given: Given, slow: SlowRate, tuning: Tuning) -> float:
    """Arrivals per second that pods must be there for: the largest of what the windows have shown.

    Each window counts only as far as chance does not explain it.
    """
    asked = given.asked
    short, short_s = largest_mean(asked, tuning.short_window_s)
    rate = max(
        slow.per_s(tuning),
        _beyond_doubt(short, tuning) / short_s,
        _beyond_doubt(sum(asked), tuning) / len(asked),
    )
    lower, upper = sorted(asked[-2:]) if len(asked) > 1 else (0.0, 0.0)
    if _beyond_doubt(lower, tuning) * given.service_time_s > tuning.jump_ratio * given.capacity:
        rate = max(rate, upper)
    return rate


def _beyond_doubt(requests: float, tuning: Tuning) -> float:
    """How many of N requests are more than chance: N - z√N, never negative, rising with N."""
    return max(0.0, requests - tuning.doubt * sqrt(requests))
