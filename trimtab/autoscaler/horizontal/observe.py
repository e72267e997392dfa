"""What one decision sees: its signals in their windows, the demand that they show, and what is remembered."""

from __future__ import annotations

from typing import NamedTuple

from trimtab.autoscaler.horizontal import gain, service_time, surges
from trimtab.autoscaler.horizontal.demand import Demand, Given, Slots, measure
from trimtab.autoscaler.horizontal.state import Lull, Signals, State, brief_window_s, down_window_s
from trimtab.autoscaler.horizontal.tuning import Tuning
from trimtab.autoscaler.horizontal.windows import (
    Evidence,
    Peaks,
    View,
    absorb,
    by_second,
    largest_since,
    push_peak,
)


class Seen(NamedTuple):
    """What one decision saw: the state after its signals, and the demand that they show."""

    state: State
    demand: Demand
    evidence: Evidence
    known_s: int  # seconds of the up window of which something is known


def absorbed(state: State, signals: Signals, fleet: Slots, now_s: float, tuning: Tuning) -> View:
    """The signals in their windows, believed as far as what is known so far allows."""
    known = state.service_time
    if known is None:
        return absorb(state.envoys, signals.revision_signals, now_s, tuning)
    return absorb(
        state.envoys,
        signals.revision_signals,
        now_s,
        tuning,
        service_time_s=known.mean_s,
        asked_max_per_s=_most(state, fleet, tuning) / max(known.mean_s, tuning.service_min_s),
    )


def _most(state: State, fleet: Slots, tuning: Tuning) -> float:
    """The most that demand may be after this decision."""
    return tuning.growth * max(state.demand, fleet.expected)


def observe(state: State, signals: Signals, fleet: Slots, view: View, now_s: float, tuning: Tuning) -> Seen:
    """Fold one decision's signals into the state, and measure demand."""
    last, short = by_second(view, tuning.up_window_s, tuning), tuning.short_window_s
    asked, in_flight, queued = last.asked, last.in_flight[-short:], last.queued[-short:]
    elapsed_s = _elapsed_s(state, view, len(asked))
    known = service_time.learn(state.service_time, view.evidence, elapsed_s, tuning)
    mean_s = known.mean_s if known else 0.0
    seconds = round(elapsed_s)
    new = sum(asked[len(asked) - seconds :])
    slow = state.slow.plus(new, seconds, mean_s, tuning)
    stalled = not view.evidence.completions and min(in_flight) > 0
    stalled_s = state.stalled_s + elapsed_s if stalled else 0.0
    full, lasts_s = state.full_time, mean_s
    if service_time.is_full(in_flight, fleet, tuning):
        full = service_time.learn_full(full, view.evidence, queued, fleet, state.observed_s, tuning)
    if full.requests:
        lasts_s = full.counts_s(mean_s, fleet, state.observed_s, tuning)
    demand = measure(Given(asked, in_flight, queued, lasts_s, stalled_s, fleet), slow, tuning)
    most = _most(state, fleet, tuning)
    total, lasting = demand.total, demand.lasting
    if state.inherited:
        total, lasting = max(total, state.inherited), max(lasting, state.inherited)
    wanted = min(total, most)
    lasting = min(wanted, lasting)
    complete = now_s - view.complete_s <= tuning.fresh_s
    observed_s = state.observed_s + elapsed_s if complete else state.observed_s
    window_s = down_window_s(signals, tuning)
    peaks = push_peak(state.peaks, observed_s, lasting, window_s)
    largest = peaks[0][1]
    new_load = new / seconds * mean_s if seconds else lasting
    near_s = observed_s - max(tuning.surge_near_s, fleet.start_time_s)
    recent = largest_since(peaks, near_s)
    lead_s = max(0.0, fleet.start_time_s - mean_s)  # whoever waits for less than a request takes is in time
    brief = _brief(state, signals, peaks, observed_s, tuning)
    kept = largest if brief is None or not state.trial.is_brief(tuning) else brief
    learned = surges.learn(
        state.surges, lasting, kept, observed_s, lead_s, tuning, largest if brief is None else brief
    )
    trial = state.trial
    if brief is not None:
        ready = learned.brief_at(observed_s - min(lead_s, tuning.surge_lead_max_s))
        trial = trial.followed(lasting, largest, brief, ready, fleet.per_pod, tuning)
    # by the window that is in force after this decision: its trial may just have failed
    keeps = largest if brief is None or not trial.is_brief(tuning) else brief
    idle = not (new or any(in_flight) or any(queued))
    compared = gain.NOTHING_KNOWN
    if any(queued):
        pods = gain.Pods(signals.ready_pods, fleet.per_pod, in_flight, queued)
        compared = gain.follow(state.gain, pods, view.evidence, observed_s, mean_s, tuning)
    after = State(
        envoys=view.envoys,
        pods=state.pods,
        service_time=known,
        full_time=full,
        slow=slow,
        demand=wanted,
        peaks=peaks,
        observed_s=observed_s,
        stalled_s=stalled_s,
        idle_s=state.idle_s + observed_s - state.observed_s if idle else 0.0,
        surges=learned,
        spare=min(surges.spare(learned, recent, kept, observed_s, tuning), max(0.0, most - keeps)),
        lull=_lull(state, max(new_load, demand.held), largest, observed_s, tuning),
        trial=trial,
        first_pods=state.first_pods,
        gain=compared,
        lost_s=lost_s(state, view),
    )
    return Seen(after, demand, view.evidence, len(asked))


def _brief(state: State, signals: Signals, peaks: Peaks, observed_s: float, tuning: Tuning) -> float | None:
    """What the brief down window and the rhythm alone would keep; None where that is much what is kept."""
    if peaks[-1][1] >= tuning.trial_share * peaks[0][1] and not state.trial.is_open:
        return None
    due = state.surges.due(observed_s)
    brief = largest_since(peaks, observed_s - brief_window_s(signals, tuning))
    return max(brief, due.reached) if due else brief


def lost_s(state: State, view: View) -> float | None:
    """When an Envoy was last forgotten that had requests (observed seconds): it may have them still."""
    heard = [history.envoy for history in view.envoys]
    for history in state.envoys:
        if history.envoy not in heard and not history.is_idle:
            return state.observed_s
    return state.lost_s


def _lull(state: State, load: float, largest: float, observed_s: float, tuning: Tuning) -> Lull | None:
    """The lull that goes on or begins, with this load now and this largest demand of the down window."""
    if load >= tuning.lull_share * largest:
        return None
    return state.lull or Lull(observed_s, state.peaks[0][1] + state.spare if state.peaks else 0.0)


def _elapsed_s(state: State, view: View, known: int) -> float:
    """Seconds that the new signals cover: a pause without signals is not among them."""
    covered_s = min(view.evidence.span_s, float(known))
    if not state.envoys:
        return covered_s
    return max(0.0, min(covered_s, view.newest_s - max([history.newest_s for history in state.envoys])))
