"""What must hold at every decision, whatever goes wrong. Each function tells what is wrong, or nothing.

They are written against what users and operators are promised, not against the code: bounds are computed
anew, and what the load needed is counted from the true arrivals (see `Truth`), of which `decide` saw only
what the faults let through.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, isfinite

from trimtab.autoscaler.horizontal import Signals, State, Tuning, pods_range
from trimtab.core.decision import Decision

STATE_BYTES_MAX = 64_000  # 10,000 endpoints within 640 MB at the worst; usual are 2 KB per Envoy
DECISION_BYTES_MAX = 8_000  # of JSON: the store keeps thousands
DECIDE_EACH_S = 5.0
ASKED_UNSEEN = 20  # requests whose seconds may all have been lost on the way


@dataclass(frozen=True)
class Moment:
    """One decision, and what the world knows about it. `pods` were told last; times in seconds."""

    at_s: float  # since the begin of the seed
    now_s: float  # as the controller's clock tells
    signals: Signals
    before: State
    after: State
    decision: Decision
    pods: int
    fresh: bool  # some signal of the last `fresh_s` has been delivered, true or passing for it
    known_s: float  # since the controller began to watch this revision: a start, a restart, a rollout
    first_pods: int  # that were there then
    demand: float  # what the decision before accepted; 0 after a restart
    took_over: float | None  # right after a rollout: concurrent requests that pods were there for
    window_s: (
        float  # the down window in force: for a load that has shown that it needs no longer one, a brief one
    )
    asked: int  # true requests of the down window that could be seen
    needed: float  # largest true and plainly seen need of the window in force, in concurrent requests
    rose_to: int  # pods that the load alone asked for within the window in force, at the target of now
    envoys: int  # names heard of lately


Invariant = Callable[[Moment, Tuning], str]


def bounds(signals: Signals) -> tuple[int, int, int]:
    """(floor, most, what the machine holds) in pods, by the words of the range, not by the code."""
    low = ceil(signals.concurrency.min / signals.target_concurrency)
    high = max(1, ceil(signals.concurrency.max / signals.target_concurrency))
    if signals.max_pods:
        low, high = min(low, signals.max_pods), min(high, signals.max_pods)
    fits = high
    if signals.room is not None:
        fits = max(min(1, high), signals.ready_pods + len(signals.starting_ages_s) + signals.room)
    return low, high, fits


def held_to(pods: int, signals: Signals) -> int:
    """What is left of a wish after range, ceiling and machine."""
    low, high, fits = bounds(signals)
    return min(max(pods, low), high, fits)


def range_respected(moment: Moment, tuning: Tuning) -> str:
    """The range is the one thing that is the user's: never fewer than its floor, never more than its end."""
    low, high, fits = bounds(moment.signals)
    if pods_range(moment.signals) != (low, high):
        return f"pods_range says {pods_range(moment.signals)}, the range means {(low, high)}"
    if not min(low, fits) <= moment.decision.pods <= high:
        return f"{moment.decision.pods} pods, the range allows {low}..{high}"
    return ""


def machine_respected(moment: Moment, tuning: Tuning) -> str:
    """More pods than fit would make all of them fail; no wish, nor the floor, makes the machine larger."""
    fits = bounds(moment.signals)[2]
    return f"{moment.decision.pods} pods, {fits} fit" if moment.decision.pods > fits else ""


def silence_removes_nothing(moment: Moment, tuning: Tuning) -> str:
    """Unknown is not zero: an outage of the metrics must not become one of the endpoint."""
    least = held_to(moment.pods, moment.signals)
    if not moment.fresh and moment.decision.pods < least:
        return f"from {moment.pods} to {moment.decision.pods} with no signal of the last {tuning.fresh_s:g} s"
    return ""


def a_start_removes_nothing(moment: Moment, tuning: Tuning) -> str:
    """Who has just started has not seen a down window of load: nobody knows what the pods there are for."""
    least = held_to(min(moment.pods, moment.first_pods), moment.signals)
    if moment.known_s < tuning.down_window_s and moment.decision.pods < least:
        return f"from {moment.pods} to {moment.decision.pods}, {moment.known_s:.0f} s after a start"
    return ""


def a_brief_window_is_earned(moment: Moment, tuning: Tuning) -> str:
    """Whoever has not yet seen a load fall twice knows nothing of how soon it comes back."""
    least_s = tuning.trial_passes * tuning.brief_window_s
    if moment.window_s < tuning.down_window_s and moment.known_s < least_s:
        return f"a window of {moment.window_s:g} s, {moment.known_s:.0f} s after a start"
    return ""


def needed_pods_stay(moment: Moment, tuning: Tuning) -> str:
    """Bursts come back within minutes: no pod leaves that the load of the down window needed."""
    needed = ceil(moment.needed / moment.signals.target_concurrency - 1e-9)
    least = held_to(min(moment.pods, needed), moment.signals)
    if 0 < moment.decision.pods < least:
        return f"from {moment.pods} to {moment.decision.pods}, where {moment.needed:.1f} were in flight"
    return ""


def never_to_zero_while_asked(moment: Moment, tuning: Tuning) -> str:
    """Without a pod a caller waits for a start: only a load that was gone for a whole window may do without.

    What an Envoy never told since the controller began is not known to anybody.
    """
    if moment.decision.pods == 0 and moment.pods > 0 and moment.asked > ASKED_UNSEEN:
        return f"to zero, with {moment.asked} requests within the down window"
    return ""


def wanted_pods_stay(moment: Moment, tuning: Tuning) -> str:
    """What the load asked for within the down window is not taken back within it: that would be flapping."""
    least = held_to(min(moment.pods, moment.rose_to), moment.signals)
    if moment.decision.pods < least:
        return f"from {moment.pods} to {moment.decision.pods}, {moment.rose_to} were asked for in the window"
    return ""


def growth_capped(moment: Moment, tuning: Tuning) -> str:
    """One wild signal must cost no more than a factor: of the load of before, or of the pods there are."""
    signals = moment.signals
    known_s = signals.start_time_s
    limit_s = tuning.overdue_unknown_s
    if known_s is not None:
        limit_s = max(tuning.overdue_min_s, tuning.overdue_factor * known_s)
    starting = sum(age_s <= limit_s for age_s in signals.starting_ages_s)
    present = max(1, signals.ready_pods + starting) * signals.target_concurrency
    most = tuning.growth * max(moment.demand, present)
    most = max(most, moment.before.inherited)
    floor = bounds(signals)[0]
    pods = max(moment.pods, moment.decision.pods_before, floor, ceil(most / signals.target_concurrency))
    if moment.decision.pods > pods:
        return (
            f"{moment.decision.pods} pods from a load of {moment.demand:.1f} and room for {present} in flight"
        )
    return ""


def leaves_in_steps(moment: Moment, tuning: Tuning) -> str:
    """At most a share of the pods leaves at once, so that a rise meets most of them still there."""
    step = max(1, int(moment.pods * tuning.down_share))
    least = held_to(moment.pods - step, moment.signals)
    if moment.decision.pods < least:
        return f"from {moment.pods} to {moment.decision.pods} at once, {step} may leave"
    return ""


def rollout_keeps_capacity(moment: Moment, tuning: Tuning) -> str:
    """A new revision takes the old one's traffic, so it begins with what that needed."""
    if moment.took_over is None:
        return ""
    needed = ceil(moment.took_over / moment.signals.target_concurrency - 1e-9)
    if moment.decision.pods < held_to(needed, moment.signals):
        return f"{moment.decision.pods} pods after a rollout, the old revision's load needed {needed}"
    return ""


def told_as_it_is(moment: Moment, tuning: Tuning) -> str:
    """`why` must not say one thing while another happens."""
    decision, before = moment.decision, moment.before.pods
    begin = f"stays at {decision.pods}" if decision.pods == decision.pods_before else f"to {decision.pods}"
    ruled = [candidate.pods for candidate in decision.candidates if candidate.rule == decision.rule]
    if before is not None and decision.pods_before != before:
        return f"pods_before is {decision.pods_before}, the state said {before}"
    if decision.revision != moment.signals.revision or decision.at_s != moment.now_s:
        return "a decision of another revision or time"
    if not decision.rule or begin not in decision.reason:
        return f"{decision.pods} pods, but the reason is {decision.reason!r}"
    if decision.pods not in ruled:
        return f"{decision.rule!r} won, with {ruled}, but pods are {decision.pods}"
    return ""


def inputs_are_true(moment: Moment, tuning: Tuning) -> str:
    """A decision is explained and replayed from its inputs: they must be numbers, and those of the world."""
    inputs = dict(moment.decision.inputs)
    if inputs.get("ready_pods") != moment.signals.ready_pods:
        return "inputs do not hold the ready pods"
    if any(value is not None and not isfinite(value) for value in inputs.values()):
        return f"inputs hold a number that is none: {inputs}"
    return ""


def memory_bounded(moment: Moment, tuning: Tuning) -> str:
    """State and decisions live for months, for thousands of endpoints."""
    after = moment.after
    if len(after.envoys) > moment.envoys:
        return f"{len(after.envoys)} Envoys remembered, {moment.envoys} heard of"
    most = tuning.down_window_s / DECIDE_EACH_S * 2
    if len(after.peaks) > most:
        return f"{len(after.peaks)} peaks remembered for a window of {tuning.down_window_s:g} s"
    if (size := len(pickle.dumps(after))) > STATE_BYTES_MAX:
        return f"a state of {size} bytes"
    if (size := len(repr(moment.decision))) > DECISION_BYTES_MAX:
        return f"a decision of {size} bytes"
    return ""


AT_EACH: tuple[Invariant, ...] = (
    range_respected,
    machine_respected,
    silence_removes_nothing,
    a_start_removes_nothing,
    a_brief_window_is_earned,
    needed_pods_stay,
    never_to_zero_while_asked,
    wanted_pods_stay,
    growth_capped,
    leaves_in_steps,
    rollout_keeps_capacity,
    told_as_it_is,
    inputs_are_true,
)
NOW_AND_THEN: tuple[Invariant, ...] = (memory_bounded,)  # costs more than the decision


def broken(moment: Moment, tuning: Tuning, which: Sequence[Invariant]) -> tuple[str, str, str] | None:
    """(name, what is wrong, why it matters) of the first invariant that does not hold."""
    for invariant in which:
        if wrong := invariant(moment, tuning):
            return invariant.__name__, wrong, (invariant.__doc__ or "").strip()
    return None
