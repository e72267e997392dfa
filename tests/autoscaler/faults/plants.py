"""Bugs that autoscalers have had, planted around the true `decide`: what the simulation must find.

Each wraps the function rather than its insides, so that it stays the same bug however `decide` is written.
Beside each stands the invariant (or the invariants) that it must break.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from trimtab.autoscaler.horizontal import Signals, State, Tuning, decide, pods_range
from trimtab.autoscaler.horizontal.trial import Trial
from trimtab.core.decision import Decision
from trimtab.core.signals import RevisionSignal

Decided = tuple[State, Decision]


@dataclass(frozen=True)
class Plant:
    """A `decide` with a bug, and which invariants tell of it."""

    decide: Callable[[State, Signals, float, Tuning], Decided]
    breaks: tuple[str, ...]


def missing_is_zero(state: State, signals: Signals, now_s: float, tuning: Tuning) -> Decided:
    """When nobody reports, there is no traffic: the usual outage of usual autoscalers."""
    if not signals.revision_signals:
        zeros = [_zero(signals, history.envoy, now_s - i) for history in state.envoys for i in range(5)]
        signals = replace(signals, revision_signals=tuple(reversed(zeros)))
    return decide(state, signals, now_s, tuning)


def _zero(signals: Signals, envoy: str, at_s: float) -> RevisionSignal:
    return RevisionSignal(signals.revision, envoy, at_s, 1.0, 0, 0, 0, 0, 0, 0, 0.0)


def window_cleared_at_restart(state: State, signals: Signals, now_s: float, tuning: Tuning) -> Decided:
    """An empty window is taken for a window in which nothing was needed: pods leave right after a restart."""
    full = state._replace(observed_s=max(state.observed_s, tuning.down_window_s))
    return decide(full, signals, now_s, tuning)


def growth_from_the_range(state: State, signals: Signals, now_s: float, tuning: Tuning) -> Decided:
    """Growth is capped relative to the end of the range rather than to what is there."""
    most = max(float(pods_range(signals)[1] * signals.target_concurrency), state.demand)
    return decide(state._replace(demand=most), signals, now_s, tuning)


def machine_before_range(state: State, signals: Signals, now_s: float, tuning: Tuning) -> Decided:
    """The floor has the last word, so that more pods are asked for than the machine holds."""
    after, decision = decide(state, signals, now_s, tuning)
    floor = pods_range(signals)[0]
    return after, decision._replace(pods=max(decision.pods, floor))


def repeated_counts_twice(state: State, signals: Signals, now_s: float, tuning: Tuning) -> Decided:
    """A message that is sent again is counted again: requests double when a stream is resumed."""
    told: dict[tuple[str, float], RevisionSignal] = {}
    for signal in signals.revision_signals:
        key = (signal.envoy, signal.at_s)
        before = told.get(key)
        told[key] = signal._replace(arrivals=signal.arrivals + before.arrivals) if before else signal
    return decide(state, replace(signals, revision_signals=tuple(told.values())), now_s, tuning)


def stale_envoy_is_frozen(state: State, signals: Signals, now_s: float, tuning: Tuning) -> Decided:
    """The last word of an Envoy counts for ever, though it is gone and others have its traffic."""
    return decide(state, signals, now_s, replace(tuning, fresh_s=1e7, forget_s=2e7))


def late_is_now(state: State, signals: Signals, now_s: float, tuning: Tuning) -> Decided:
    """A signal counts for the second in which it came: an old burst is a new one."""
    told = tuple(signal._replace(at_s=now_s - 0.1 * i) for i, signal in enumerate(signals.revision_signals))
    return decide(state, replace(signals, revision_signals=told), now_s, tuning)


def window_without_memory(state: State, signals: Signals, now_s: float, tuning: Tuning) -> Decided:
    """The down window holds the last demand rather than the largest."""
    return decide(state._replace(peaks=state.peaks[-1:]), signals, now_s, tuning)


def every_load_is_trusted(state: State, signals: Signals, now_s: float, tuning: Tuning) -> Decided:
    """The brief window for everybody, though nothing is known of how soon a load comes back."""
    known = Trial((1e9,) * tuning.trial_passes, height=1.0)
    after, decision = decide(state._replace(trial=known), signals, now_s, tuning)
    return after._replace(trial=known), decision


def all_leave_at_once(state: State, signals: Signals, now_s: float, tuning: Tuning) -> Decided:
    """No limit to how many pods one decision removes."""
    return decide(state, signals, now_s, replace(tuning, down_share=1.0))


def rollout_starts_anew(state: State, signals: Signals, now_s: float, tuning: Tuning) -> Decided:
    """A new revision has the old one's number of pods, but nothing of what its traffic needs."""
    if state.inherited:
        state = State(pods=state.pods)
    return decide(state, signals, now_s, tuning)


def pause_is_observed(state: State, signals: Signals, now_s: float, tuning: Tuning) -> Decided:
    """Time in which nobody reported lets the down window pass: a pause of the controller empties it."""
    newest_s = max([history.newest_s for history in state.envoys], default=now_s)
    passed_s = max(0.0, now_s - newest_s - tuning.fresh_s)
    return decide(state._replace(observed_s=state.observed_s + passed_s), signals, now_s, tuning)


PLANTS = {
    plant.decide.__name__: plant
    for plant in (
        Plant(missing_is_zero, ("silence_removes_nothing", "needed_pods_stay", "wanted_pods_stay")),
        Plant(window_cleared_at_restart, ("a_start_removes_nothing",)),
        Plant(growth_from_the_range, ("growth_capped",)),
        Plant(machine_before_range, ("machine_respected",)),
        Plant(repeated_counts_twice, ("order_and_repetition",)),
        Plant(stale_envoy_is_frozen, ("comes_to_rest", "memory_bounded")),
        Plant(late_is_now, ("order_and_repetition", "comes_to_rest")),
        Plant(window_without_memory, ("needed_pods_stay", "wanted_pods_stay")),
        Plant(every_load_is_trusted, ("a_brief_window_is_earned",)),
        Plant(all_leave_at_once, ("leaves_in_steps",)),
        Plant(rollout_starts_anew, ("rollout_keeps_capacity", "a_start_removes_nothing")),
        Plant(pause_is_observed, ("needed_pods_stay", "wanted_pods_stay", "a_start_removes_nothing")),
    )
}
