"""The horizontal axis: how many pods a revision should have, decided from signals and nothing else.

`decide` is called each 5 s with the signals that came since the last call. It reads no clock, keeps
nothing outside `State`, and answers the same for the same input. Its steps, in order:

1. Put the signals into their windows; if no Envoy speaks, hold what there is.
2. Measure demand (see `demand`), its growth capped, and remember it in the down window.
3. Up at once to what demand needs; down, slowly, to what the largest demand of the window needs.
4. Keep within the range, the ceiling, and the machine.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from trimtab.autoscaler.horizontal import reasons
from trimtab.autoscaler.horizontal.demand import Demand, Given, learn_service_time, measure
from trimtab.autoscaler.horizontal.state import Signals, State, capacity, inherit, overdue_pods, pods_for, pods_range
from trimtab.autoscaler.horizontal.tuning import DEFAULT, Tuning
from trimtab.autoscaler.horizontal.windows import ASKED, IN_FLIGHT, QUEUED, Evidence, View, absorb, by_second, push_peak
from trimtab.core.decision import Candidate, Decision




class _Seen(NamedTuple):
    """What one decision saw: the state after its signals, and the demand that they show."""

    state: State
    demand: Demand
    evidence: Evidence


class _Choice(NamedTuple):
    """The number that a rule gave, before the bounds; what binds it, and all that was weighed."""

    won: Candidate
    binds: str
    would_change: str
    candidates: tuple[Candidate, ...]


def decide(state: State, signals: Signals, now_s: float, tuning: Tuning = DEFAULT) -> tuple[State, Decision]:
    """The next state, and how many pods the revision should have.

    `now_s` is monotonic and only tells how old signals are. Deterministic; raises nothing.
    """
    before = _present(state, signals)
    held = max(before, pods_for(state.inherited, signals.target_concurrency))
    service_time_s = state.service_time.mean_s if state.service_time else 0.0
    view = absorb(state.envoys, signals.revision_signals, service_time_s, now_s, tuning)
    silent_s = now_s - view.newest_s
    if silent_s > tuning.fresh_s:
        after = replace(state, envoys=view.envoys)
        choice, inputs = _without_signals(held, before, silent_s), _fleet_inputs(signals, tuning)
    else:
        seen = _observe(state, signals, view, now_s, tuning)
        after = seen.state
        choice, inputs = _choose(seen, signals, held, tuning), _inputs(seen, signals, tuning)
    wanted, pods, binds, bounds = _bound(choice.won.pods, signals)
    decision = Decision(
        revision=signals.revision,
        at_s=now_s,
        pods_before=before,
        pods=pods,
        rule=binds or choice.won.rule,
        reason=reasons.sentence(before, pods, choice.won.why, bounds, binds),
        binds=binds or choice.binds,
        would_change=reasons.BOUNDS_CHANGE.get(binds) or choice.would_change,
        inputs=inputs,
        candidates=choice.candidates + bounds,
    )
    # The machine keeps pods from starting, but makes nobody forget those that were there and died.
    return replace(after, pods=wanted if wanted <= before else max(before, pods)), decision


def _present(state: State, signals: Signals) -> int:
    """The number that a hold keeps: what was wanted last, or after a restart what is there."""
    if state.pods is not None:
        return state.pods
    return max(1, signals.ready_pods + len(signals.starting_ages_s))


def _observe(state: State, signals: Signals, view: View, now_s: float, tuning: Tuning) -> _Seen:
    """Fold one decision's signals into the state, and measure demand."""
    asked = by_second(view, tuning.up_window_s, ASKED, tuning)
    in_flight = by_second(view, tuning.short_window_s, IN_FLIGHT, tuning)
    elapsed_s = _elapsed_s(state, view, len(asked))
    service_time = learn_service_time(state.service_time, view.evidence, tuning)
    service_time_s = service_time.mean_s if service_time else 0.0
    seconds = round(elapsed_s)
    slow = state.slow.plus(sum(asked[len(asked) - seconds :]), seconds, service_time_s, tuning)
    stalled = not view.evidence.completions and min(in_flight) > 0
    stalled_s = state.stalled_s + elapsed_s if stalled else 0.0
    given = Given(
        asked=asked,
        in_flight=in_flight,
        queued=by_second(view, tuning.short_window_s, QUEUED, tuning),
        service_time_s=service_time_s,
        stalled_s=stalled_s,
        capacity=capacity(signals, tuning),
        drain_s=max(tuning.drain_s, signals.start_time_s or 0.0),
    )
    demand = measure(given, slow, tuning)
    wanted = min(max(demand.total, state.inherited), tuning.growth * max(state.demand, given.capacity))
    complete = now_s - min([history.newest_s for history in view.envoys]) <= tuning.fresh_s
    observed_s = state.observed_s + elapsed_s if complete else state.observed_s
    after = State(
        envoys=view.envoys,
        pods=state.pods,
        service_time=service_time,
        slow=slow,
        demand=wanted,
        peaks=push_peak(state.peaks, observed_s, wanted, tuning.down_window_s),
        observed_s=observed_s,
        stalled_s=stalled_s,
    )
    return _Seen(after, demand, view.evidence)


def _elapsed_s(state: State, view: View, known: int) -> float:
    """Seconds that the new signals cover: a pause without signals is not among them."""
    covered_s = min(view.evidence.span_s, float(known))
    if not state.envoys:
        return covered_s
    return max(0.0, min(covered_s, view.newest_s - max([history.newest_s for history in state.envoys])))


def _without_signals(held: int, before: int, silent_s: float) -> _Choice:
    """Hold: what nobody reports is unknown, not zero. A rollout's inherited demand still counts."""
    rule = "rollout" if held > before else "unknown"
    why = reasons.inherited(held) if held > before else reasons.unknown(silent_s)
    won = Candidate(rule, held, why)
    return _Choice(won, "missing signals", "a signal from Envoy", (won,))


def _choose(seen: _Seen, signals: Signals, held: int, tuning: Tuning) -> _Choice:
    """Up to what demand needs, down to what the window needs, or neither."""
    state, target = seen.state, signals.target_concurrency
    now = pods_for(state.demand, target)
    capped = state.demand < seen.demand.total
    load = Candidate("load", now, reasons.load(seen.demand, now, capped, tuning))
    if now >= held or held <= pods_range(signals)[0]:
        change = f"demand above {now * target} concurrent requests" if not capped else "the next decision"
        return _Choice(load, "growth" if capped else "", change, (load,))
    keep, left_s = _window(state, target, held, tuning)
    window = Candidate("window", keep, reasons.window(now, keep, held, left_s, tuning))
    if keep >= held:
        return _Choice(window, "scale-down window", reasons.window_change(left_s), (load, window))
    step = max(1, int(held * tuning.down_share))
    down = Candidate("down", max(keep, held - step), reasons.down(keep, held, step, tuning))
    return _Choice(down, "scale-down step" if down.pods > keep else "", "", (load, window, down))


def _window(state: State, target: int, held: int, tuning: Tuning) -> tuple[int, float]:
    """Pods that the largest demand of the down window needs, and the seconds until fewer may do."""
    left_s = tuning.down_window_s - state.observed_s
    keep = held if left_s > 0 else 1
    for at_s, demand in state.peaks:
        pods = pods_for(demand + tuning.down_slack_pods * target, target)
        keep = max(keep, min(pods, held))
        if pods < held:
            break
        left_s = max(left_s, tuning.down_window_s - (state.observed_s - at_s))
    return keep, max(0.0, left_s)


def _bound(wanted: int, signals: Signals) -> tuple[int, int, str, tuple[Candidate, ...]]:
    """`wanted` within the user's range, then within the machine; what bound it; each bound's number."""
    floor, most = pods_range(signals)
    bounds = reasons.bounds(floor, most, signals.concurrency, signals.max_pods)
    allowed = min(max(wanted, floor), most)
    binds = "" if allowed == wanted else bounds[allowed < wanted].rule
    if signals.room is None:
        return allowed, allowed, binds, bounds
    fits = max(1, signals.ready_pods + len(signals.starting_ages_s) + signals.room)
    machine = reasons.machine(fits, signals.room_why)
    if fits < allowed:
        return allowed, fits, machine.rule, (*bounds, machine)
    return allowed, allowed, binds, (*bounds, machine)


def _fleet_inputs(signals: Signals, tuning: Tuning) -> tuple[tuple[str, float | None], ...]:
    return (
        ("ready_pods", signals.ready_pods),
        ("starting_pods", len(signals.starting_ages_s)),
        ("overdue_pods", overdue_pods(signals, tuning)),
        ("start_time_s", signals.start_time_s),
        ("target_concurrency", signals.target_concurrency),
        ("room_pods", signals.room),
    )


def _inputs(seen: _Seen, signals: Signals, tuning: Tuning) -> tuple[tuple[str, float | None], ...]:
    state, demand, evidence = seen
    seconds = evidence.seconds
    return (
        ("arrivals_per_s", demand.arrivals_per_s),
        ("service_time_s", state.service_time.mean_s if state.service_time else None),
        ("in_flight", demand.in_flight),
        ("queued", demand.queued),
        ("rejected_per_s", evidence.rejected / seconds if seconds else None),
        ("load", demand.load),
        ("headroom", demand.headroom),
        ("backlog", demand.backlog),
        ("demand", state.demand),
        ("window_demand", state.peaks[0][1]),
        ("observed_s", state.observed_s),
        *_fleet_inputs(signals, tuning),
    )
