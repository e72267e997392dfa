"""Surges: by how much the load has risen within the time that a pod takes to start, and what to keep for it.

No rule that waits for a rise can serve it sooner than pods start. What can be known is how this load
behaves: each rise over what was prepared one start time ago is remembered, and spare slots are kept for
the largest one of late, or for the second largest of a longer time: what came twice comes again. Loads
without surges pay nothing. Sizes are in √load, between a crowd that is so many requests whatever the
load and one that is so many times the load.
"""

from __future__ import annotations

from math import inf, sqrt
from typing import NamedTuple

from trimtab.autoscaler.horizontal.tuning import Tuning

SURGES_MAX = 24  # kept; two count


class Surge(NamedTuple):
    """One rise, or several within a start time of each other."""

    at_s: float  # observed seconds, of the last rise
    size: float  # largest rise, in √load; infinite: a jump that no spare pods are kept for


class Prepared(NamedTuple):
    """Slots that were held from a time on, headroom included."""

    at_s: float
    slots: float


class Surges(NamedTuple):
    """What is remembered of one revision's surges."""

    seen: tuple[Surge, ...] = ()
    prepared: tuple[Prepared, ...] = ()  # at each change, back to one start time ago


def learn(
    surges: Surges, asked: float, held: float, at_s: float, start_time_s: float, tuning: Tuning
) -> Surges:
    """After a decision at `at_s` (observed seconds) in which the load asked for slots, of `held` ones."""
    lead_s = min(start_time_s, tuning.surge_lead_max_s)
    prepared = surges.prepared
    if not prepared or prepared[-1].slots != held:
        prepared = (*prepared, Prepared(at_s, held))
    first = len(prepared) - 1
    while first and prepared[first].at_s > at_s - lead_s:
        first -= 1
    prepared = prepared[first:]
    if at_s <= tuning.slow_window_s or prepared[0].at_s > at_s - lead_s:  # what is usual is not known yet
        return Surges(surges.seen, prepared)
    before = prepared[0].slots
    rise, root = asked - before, sqrt(max(1.0, before))
    if rise <= max(tuning.surge_least, tuning.surge_noise * root):
        return Surges(surges.seen, prepared)
    size = inf if asked >= tuning.surge_ratio_max * before else rise / root
    return Surges(_with(surges.seen, Surge(at_s, size), lead_s, tuning), prepared)


def _with(seen: tuple[Surge, ...], new: Surge, lead_s: float, tuning: Tuning) -> tuple[Surge, ...]:
    """Together with those of the window; a rise that goes on is one surge."""
    last = seen[-1] if seen else None
    if last is not None and new.at_s - last.at_s <= lead_s + tuning.surge_apart_s:
        return (*seen[:-1], Surge(new.at_s, max(last.size, new.size)))
    kept = [surge for surge in seen if surge.at_s > new.at_s - tuning.surge_window_s]
    return (*kept[1 - SURGES_MAX :], new)


def spare(surges: Surges, held: float, at_s: float, tuning: Tuning) -> float:
    """Slots to keep beside the `held` ones for the next surge."""
    if not surges.seen:
        return 0.0
    sizes = []
    recent = 0.0
    for surge in surges.seen:
        if surge.size == inf or surge.at_s <= at_s - tuning.surge_window_s:
            continue
        sizes.append(surge.size)
        if surge.at_s > at_s - tuning.surge_recent_s:
            recent = max(recent, surge.size)
    again = sorted(sizes)[-2] if len(sizes) > 1 else 0.0
    slots = tuning.surge_factor * max(recent, again) * sqrt(max(1.0, held))
    return min(slots, tuning.surge_spare_max * held)
