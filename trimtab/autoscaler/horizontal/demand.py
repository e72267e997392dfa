"""Demand: how many requests a revision must be able to hold at once, by Little's law and not by its queue.

    load    = needed rate × service time              what arrivals need (see `arrivals`)
    demand  = load + headroom × √load                 to vary within,
              or, if that is more, the mean of the last seconds + chance × its root,
              or, if that is more, load + backlog     to work off in the drain time
    backlog = queued × min(1, service time / drain) + what will queue until pods are ready / drain
    and never less than what has been held in flight over the last seconds.

A worked example: after a start of 60 s at 10 requests/s, 600 are queued and one pod of target 1
answers 5 a second. Load is 10 × 0.2 s = 2, and with a drain time of 6 s the backlog 600 × 0.2 s / 6 s = 20:
22 pods for six seconds, and 3 once it has gone. Queued plus in flight, read as concurrency, asks for 845.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

from trimtab.autoscaler.horizontal.arrivals import SlowRate, needed_rate, usual_rate
from trimtab.autoscaler.horizontal.tuning import Tuning


class Slots(NamedTuple):
    """The requests that the fleet can hold."""

    ready: float  # in ready pods
    expected: float  # in those and in pods that start and are not overdue; at least one pod's
    coming_s: tuple[float, ...]  # until each starting pod is ready
    per_pod: float
    start_time_s: float


class Given(NamedTuple):
    """What demand is measured from: the last seconds (oldest first, at least one), and the fleet."""

    asked: Sequence[float]  # arrivals in each second of the up window
    in_flight: Sequence[float]  # gauges in each second of the short window
    queued: Sequence[float]
    service_time_s: float  # 0: unknown
    stalled_s: float  # requests have been in flight for so long and none completed: each lasts longer
    slots: Slots


class Demand(NamedTuple):
    """What the load asks for, in concurrent requests, and its parts."""

    arrivals_per_s: float
    load: float
    headroom: float
    backlog: float
    held: float
    in_flight: float
    queued: float
    spare: float  # beside the load: slots kept to vary within are also those that drain a backlog
    total: float  # concurrent requests that the pods must be able to hold
    lasting: (
        float  # what of it is to be held for longer: a backlog, and what it keeps in flight, is gone soon
    )


def drain_s(slots: Slots, tuning: Tuning) -> float:
    """Time in which a backlog should be gone (s)."""
    return max(tuning.drain_s, tuning.drain_share * slots.start_time_s)


def measure(given: Given, slow: SlowRate, tuning: Tuning) -> Demand:
    """Demand and its parts."""
    rate = needed_rate(given.asked, given.service_time_s, slow, tuning)
    in_flight, queued = given.in_flight[-1], given.queued[-1]
    soon = in_flight + queued + rate * tuning.horizon_s
    load = min(rate * given.service_time_s, soon)
    lasts_s = given.service_time_s
    if given.stalled_s >= max(tuning.stall_s, tuning.stall_factor * lasts_s):
        lasts_s = given.stalled_s
        load = max(load, min(given.in_flight))  # streams, of which none has completed yet
    backlog = _backlog(given, load, lasts_s, tuning) if queued else 0.0
    headroom = tuning.headroom * sqrt(load)
    usual = min(usual_rate(given.asked, tuning) * given.service_time_s, soon)
    if usual >= 1.0:  # of less a pod is enough in most moments
        headroom = max(headroom, usual + tuning.chance * sqrt(usual) - load)
    spare = max(headroom, backlog)
    held = sum(given.in_flight) / len(given.in_flight)
    waiting = max(given.queued) >= given.slots.per_pod  # more than a pod holds
    return Demand(
        rate,
        load,
        headroom,
        backlog,
        held,
        in_flight,
        queued,
        spare,
        total=max(load + spare, held),
        lasting=load + headroom if waiting else max(load + headroom, held),
    )


def _backlog(given: Given, load: float, lasts_s: float, tuning: Tuning) -> float:
    """Slots that work off what is queued, and what will queue, in the drain time."""
    within_s = drain_s(given.slots, tuning)
    to_come = min(_to_come(given, load, tuning) / within_s, tuning.backlog_max * load)
    # A queued request needs one slot at most, and less if others follow it there within the drain time.
    return given.queued[-1] * min(1.0, lasts_s / within_s) + to_come


def _to_come(given: Given, load: float, tuning: Tuning) -> float:
    """Work that will queue until pods asked for now are ready (s of a slot), if the rise lasts."""
    slots = given.slots
    if load <= slots.ready:
        return 0.0
    risen_s = 0.0
    for asked in reversed(given.asked):
        if asked * given.service_time_s <= slots.ready:
            break
        risen_s += 1.0
    ahead_s = min(slots.start_time_s, tuning.lindy * risen_s)
    brought = slots.per_pod * sum([max(0.0, ahead_s - coming_s) for coming_s in slots.coming_s])
    return max(0.0, (load - slots.ready) * ahead_s - brought)
