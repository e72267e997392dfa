"""What a decision is made from, and what is remembered between two of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import NamedTuple

from trimtab.autoscaler.horizontal.arrivals import SlowRate
from trimtab.autoscaler.horizontal.demand import Slots
from trimtab.autoscaler.horizontal.gain import NOTHING_KNOWN, Gain
from trimtab.autoscaler.horizontal.service_time import NEVER_FULL, FullTime, ServiceTime
from trimtab.autoscaler.horizontal.surges import Surges
from trimtab.autoscaler.horizontal.trial import Trial
from trimtab.autoscaler.horizontal.tuning import DEFAULT, Tuning
from trimtab.autoscaler.horizontal.windows import EnvoyHistory, Peaks
from trimtab.core.revision import RevisionKey
from trimtab.core.signals import RevisionSignal
from trimtab.core.spec import ConcurrencyRange

ROUNDING = 1e-9  # of a pod: what is left of a float's error is none

KNOWN_RANGES = 4096
"""Ranges whose pods, and the words for them, are remembered: mostly they are those of the last decision."""

_RANGE = ConcurrencyRange()
_NO_ARRIVALS = SlowRate()
_NO_SURGES = Surges()
_NO_TRIAL = Trial()


class Lull(NamedTuple):
    """Load has dropped, and may come back."""

    begin_s: float  # observed seconds
    slots: float  # held when it began


@dataclass(frozen=True)
class Signals:
    """All that one decision is made from. Times and ages in seconds; None is unknown, never zero."""

    revision: RevisionKey
    revision_signals: tuple[RevisionSignal, ...] = ()  # of this revision, since the last decision
    ready_pods: int = 0
    starting_ages_s: tuple[float, ...] = ()  # of each pod that is starting
    start_time_s: float | None = None  # what a start typically takes
    target_concurrency: int = 1
    concurrency: ConcurrencyRange = _RANGE
    max_pods: int = 0  # 0: no ceiling of its own
    room: int | None = None  # more pods that fit beside all that run and start
    room_why: str = ""


class State(NamedTuple):
    """What the axis remembers of one revision between decisions. Empty after a restart."""

    envoys: tuple[EnvoyHistory, ...] = ()
    pods: int | None = None  # wanted last, before the machine's bound
    service_time: ServiceTime | None = None
    full_time: FullTime = NEVER_FULL
    slow: SlowRate = _NO_ARRIVALS
    demand: float = 0.0  # accepted by the last decision, in concurrent requests
    peaks: Peaks = ()  # of the down window: (observed_s, demand)
    observed_s: float = 0.0  # seconds for which every Envoy reported; the down window's clock
    stalled_s: float = 0.0  # requests have been in flight for so long and none completed
    idle_s: float = 0.0  # no request has arrived, waited or been in flight for so long
    surges: Surges = _NO_SURGES
    spare: float = 0.0  # slots kept for the next surge, beside the largest of the down window
    lull: Lull | None = None
    trial: Trial = _NO_TRIAL
    gain: Gain = NOTHING_KNOWN
    first_pods: int | None = None  # that were there when this memory began: what they are for is not known
    lost_s: float | None = None  # when an Envoy was last forgotten that had requests (observed s)
    inherited: float = 0.0  # demand taken over from another revision, until the next decision


def inherit(old: State, new: State | None = None) -> State:
    """The state of a revision that takes over the traffic of another: it needs what the old one needs.

    May be called before each decision of a rollout. Demand is in concurrent requests, so the new
    revision's own target concurrency applies; its own service time, once seen, is kept.
    """
    new = State() if new is None else new
    largest = max(old.peaks[0][1] if old.peaks else 0.0, old.inherited)
    return new._replace(
        service_time=new.service_time or old.service_time,
        slow=max(new.slow, old.slow, key=lambda slow: slow.arrivals),
        demand=max(new.demand, old.demand),
        surges=new.surges if new.surges.seen else old.surges.moved(new.observed_s - old.observed_s),
        inherited=max(new.inherited, largest),
    )


def overdue_pods(signals: Signals, tuning: Tuning = DEFAULT) -> int:
    """How many starting pods are past the time in which a start should have ended."""
    if not signals.starting_ages_s:
        return 0
    limit_s = overdue_after_s(signals.start_time_s, tuning)
    return sum([age_s > limit_s for age_s in signals.starting_ages_s])


def overdue_after_s(start_time_s: float | None, tuning: Tuning = DEFAULT) -> float:
    """The age of a starting pod (s) from which it is overdue, by what a start typically takes."""
    if start_time_s is None:
        return tuning.overdue_unknown_s
    return max(tuning.overdue_min_s, tuning.overdue_factor * start_time_s)


def replaced_at_once(pods: int, tuning: Tuning = DEFAULT) -> int:
    """Starts that may be under way in place of overdue ones, where so many pods are wanted."""
    return max(1, int(tuning.replaced_share * pods))


def pods_range(signals: Signals) -> tuple[int, int]:
    """Fewest and most pods that the user's range and ceiling allow, the machine apart."""
    wanted = signals.concurrency
    return _pods_range(wanted.min, wanted.max, signals.target_concurrency, signals.max_pods)


@lru_cache(KNOWN_RANGES)
def _pods_range(least: int, largest: int, target: int, max_pods: int) -> tuple[int, int]:
    most = pods_for(largest, target)
    if max_pods:
        most = min(most, max_pods)
    return min(most, pods_for(least, target)) if least else 0, most


def pods_for(demand: float, target: int) -> int:
    """Pods that hold `demand` concurrent requests; at least 1."""
    return max(1, ceil(demand / target - ROUNDING))


def slots(signals: Signals, tuning: Tuning) -> Slots:
    """What the fleet can hold."""
    target, ready = signals.target_concurrency, signals.ready_pods
    starting = signals.starting_ages_s
    start_time_s = tuning.unknown_start_s if signals.start_time_s is None else signals.start_time_s
    expected = ready + len(starting) - overdue_pods(signals, tuning)
    return Slots(
        ready=float(ready * target),
        expected=float(max(1, expected) * target),
        coming_s=tuple([max(0.0, start_time_s - age_s) for age_s in starting]) if starting else (),
        per_pod=float(target),
        start_time_s=start_time_s,
    )


def brief_window_s(signals: Signals, tuning: Tuning) -> float:
    """The down window of a load that needs no longer one (observed s): see `trial`."""
    brief_s = max(tuning.brief_window_s, tuning.brief_starts * (signals.start_time_s or 0.0))
    return min(brief_s, down_window_s(signals, tuning))


def down_window_s(signals: Signals, tuning: Tuning) -> float:
    """How long a pod stays that is no longer needed (observed s): the longer, the dearer its start."""
    return max(tuning.down_window_s, tuning.down_starts * (signals.start_time_s or 0.0))


def window_in_force_s(state: State, signals: Signals, tuning: Tuning) -> float:
    """The one of the two that this load has shown to need (observed s)."""
    window_s = brief_window_s if state.trial.is_brief(tuning) else down_window_s
    return window_s(signals, tuning)
