"""The horizontal axis: how many pods a revision should have, decided from signals and nothing else.

`decide` is called each 5 s with the signals that came since the last call, and sooner if they are `urgent`.
It reads no clock, keeps nothing outside `State`, and answers the same for the same input. Its steps:

1. Put the signals into their windows; if no Envoy speaks, hold what there is.
2. Measure demand (see `demand`), its growth capped, and remember it in the down window.
3. Up at once to what demand needs, and to what is kept for surges; but not where more pods bring nothing.
4. Down slowly to what the largest demand of the window needs, once no backlog is left.
5. Keep within the range, the ceiling, and the machine.
"""

from __future__ import annotations

from typing import NamedTuple

from trimtab.autoscaler.horizontal import gain, reasons, service_time, surges
from trimtab.autoscaler.horizontal.demand import Demand, Given, Slots, measure
from trimtab.autoscaler.horizontal.state import (
    ROUNDING,
    Lull,
    Signals,
    State,
    down_window_s,
    overdue_pods,
    pods_for,
    pods_range,
    slots,
)
from trimtab.autoscaler.horizontal.tuning import DEFAULT, Tuning
from trimtab.autoscaler.horizontal.windows import Evidence, View, absorb, by_second, push_peak
from trimtab.core.decision import Candidate, Decision


class _Seen(NamedTuple):
    """What one decision saw: the state after its signals, and the demand that they show."""

    state: State
    demand: Demand
    evidence: Evidence
    known_s: int  # seconds of the up window of which something is known


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
    if state.first_pods is None:
        state = state._replace(first_pods=before)
    held = max(before, pods_for(state.inherited, signals.target_concurrency) if state.inherited else 0)
    fleet = slots(signals, tuning)
    view = _absorbed(state, signals, fleet, now_s, tuning)
    silent_s = now_s - view.newest_s
    if silent_s > tuning.fresh_s:
        after = state._replace(envoys=view.envoys, lost_s=_lost_s(state, view))
        choice, inputs = _without_signals(held, before, silent_s), _fleet_inputs(signals, tuning)
    else:
        seen = _observe(state, signals, fleet, view, now_s, tuning)
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
    return after._replace(pods=wanted if wanted <= before else max(before, pods)), decision


def urgent(state: State, signals: Signals, tuning: Tuning = DEFAULT) -> bool:
    """Whether a decision should not wait: requests queue, and the newest second brings far more than fits."""
    if state.service_time is None or not signals.revision_signals:
        return False
    newest = {signal.envoy: signal for signal in signals.revision_signals}.values()
    queued = sum([signal.queued for signal in newest])
    fleet = slots(signals, tuning)
    if queued <= tuning.jump_queue * fleet.ready:
        return False
    arrivals_per_s = sum([signal.arrivals / max(signal.period_s, 1.0) for signal in newest])
    return arrivals_per_s * state.service_time.mean_s > tuning.jump_ratio * fleet.expected


def _present(state: State, signals: Signals) -> int:
    """The number that a hold keeps: what was wanted last, or after a restart what is there."""
    if state.pods is not None:
        return state.pods
    return max(1 if signals.concurrency.min else 0, signals.ready_pods + len(signals.starting_ages_s))


def _absorbed(state: State, signals: Signals, fleet: Slots, now_s: float, tuning: Tuning) -> View:
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


def _observe(
    state: State, signals: Signals, fleet: Slots, view: View, now_s: float, tuning: Tuning
) -> _Seen:
    """Fold one decision's signals into the state, and measure demand."""
    asked, *gauges = by_second(view, tuning.up_window_s, tuning)
    in_flight, queued = [gauge[-tuning.short_window_s :] for gauge in gauges]
    elapsed_s = _elapsed_s(state, view, len(asked))
    known = service_time.learn(state.service_time, view.evidence, elapsed_s, tuning)
    mean_s = known.mean_s if known else 0.0
    seconds = round(elapsed_s)
    new = sum(asked[len(asked) - seconds :])
    slow = state.slow.plus(new, seconds, mean_s, tuning)
    stalled = not view.evidence.completions and min(in_flight) > 0
    stalled_s = state.stalled_s + elapsed_s if stalled else 0.0
    demand = measure(Given(asked, in_flight, queued, mean_s, stalled_s, fleet), slow, tuning)
    most = _most(state, fleet, tuning)
    wanted = min(max(demand.total, state.inherited), most)
    complete = now_s - min([history.newest_s for history in view.envoys]) <= tuning.fresh_s
    observed_s = state.observed_s + elapsed_s if complete else state.observed_s
    lasting = min(wanted, max(demand.lasting, state.inherited))
    window_s = down_window_s(signals, tuning)
    peaks = push_peak(state.peaks, observed_s, lasting, window_s)
    largest = peaks[0][1]
    new_load = new / seconds * mean_s if seconds else lasting
    near_s = observed_s - max(tuning.surge_near_s, fleet.start_time_s)
    recent = next(value for at_s, value in peaks if at_s > near_s)
    lead_s = max(0.0, fleet.start_time_s - mean_s)  # whoever waits for less than a request takes is in time
    learned = surges.learn(state.surges, lasting, largest, observed_s, lead_s, tuning)
    idle = not (new or any(in_flight) or any(queued))
    pods = gain.Pods(signals.ready_pods, fleet.per_pod, in_flight, queued)
    after = State(
        envoys=view.envoys,
        pods=state.pods,
        service_time=known,
        slow=slow,
        demand=wanted,
        peaks=peaks,
        observed_s=observed_s,
        stalled_s=stalled_s,
        idle_s=state.idle_s + observed_s - state.observed_s if idle else 0.0,
        surges=learned,
        spare=min(surges.spare(learned, recent, largest, observed_s, tuning), max(0.0, most - largest)),
        lull=_lull(state, max(new_load, demand.held), largest, observed_s, tuning),
        first_pods=state.first_pods,
        gain=gain.follow(state.gain, pods, view.evidence, observed_s, mean_s, tuning),
        lost_s=_lost_s(state, view),
    )
    return _Seen(after, demand, view.evidence, len(asked))


def _lost_s(state: State, view: View) -> float | None:
    """When an Envoy was last forgotten that had requests (observed seconds): it may have them still."""
    heard = {history.envoy for history in view.envoys}
    lost = any(history.envoy not in heard and not history.is_idle for history in state.envoys)
    return state.observed_s if lost else state.lost_s


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


def _without_signals(held: int, before: int, silent_s: float) -> _Choice:
    """Hold: what nobody reports is unknown, not zero. A rollout's inherited demand still counts."""
    rule = "rollout" if held > before else "unknown"
    why = reasons.inherited(held) if held > before else reasons.unknown(silent_s)
    won = Candidate(rule, held, why)
    return _Choice(won, "missing signals", "a signal from Envoy", (won,))


def _choose(seen: _Seen, signals: Signals, held: int, tuning: Tuning) -> _Choice:
    """Up to what demand needs and surges may need, down to what the window needs, or neither."""
    state, target = seen.state, signals.target_concurrency
    if state.idle_s and not signals.concurrency.min and (idle := _idle(state, signals, held, tuning)):
        return idle
    capped = state.demand < seen.demand.total
    now = pods_for(state.demand, target)
    load = Candidate("load", now, reasons.load(seen.demand, now, capped, tuning))
    up = load
    candidates: tuple[Candidate, ...] = (load,)
    largest = state.peaks[0][1]
    if state.spare and (ready := pods_for(largest + state.spare, target)) > now:
        up = Candidate("surges", ready, reasons.surges(ready, largest, state.spare))
        candidates = (load, up)
    if up.pods > held and (stopped := _stopped(state, held, up.pods, candidates, tuning)):
        return stopped
    if up.pods >= held or held <= pods_range(signals)[0]:
        change = f"demand above {up.pods * target} concurrent requests" if not capped else "the next decision"
        return _Choice(up, "growth" if capped else "", change, candidates)
    if seen.known_s < tuning.short_window_s:
        few = Candidate("unknown", held, reasons.few_seconds(now, seen.known_s))
        return _Choice(few, "missing signals", "some more seconds of signals", (*candidates, few))
    if seen.demand.backlog > seen.demand.headroom:
        backlog = Candidate("backlog", held, reasons.backlog(now, seen.demand))
        return _Choice(backlog, "backlog", "the backlog gone", (*candidates, backlog))
    return _down(state, signals, held, up.pods, candidates, tuning)


def _idle(state: State, signals: Signals, held: int, tuning: Tuning) -> _Choice | None:
    """Step by step to zero, where the range begins there; None while somebody asks, or may be asking."""
    if held and state.idle_s < down_window_s(signals, tuning):
        return None
    pods = held - _step(held, tuning) if held else 0
    unsure = state.lost_s is not None and state.observed_s - state.lost_s < tuning.zero_after_loss_s
    if held and not pods and unsure:
        return None
    idle = Candidate("idle", pods, reasons.idle(state.idle_s))
    return _Choice(idle, "scale-down step" if pods else "", "a request", (idle,))


def _stopped(
    state: State, held: int, up: int, weighed: tuple[Candidate, ...], tuning: Tuning
) -> _Choice | None:
    """No more than are held, or a few more, where more pods bring nothing; None if they do, or may."""
    if state.gain.is_missing(tuning):
        none = Candidate("no gain", held, reasons.no_gain(state.gain))
        left_s = state.gain.tried_again_s(tuning) - state.observed_s
        return _Choice(none, none.rule, reasons.no_gain_change(left_s), (*weighed, none))
    most = state.gain.most(tuning)
    if up <= max(held, most):
        return None
    few = Candidate("no gain", max(held, int(most)), reasons.tried(state.gain))
    return _Choice(few, few.rule, reasons.MORE_ANSWERS, (*weighed, few))


def _step(held: int, tuning: Tuning) -> int:
    """How many pods leave at most in one decision."""
    return max(1, int(held * tuning.down_share))


def _down(
    state: State, signals: Signals, held: int, up: int, weighed: tuple[Candidate, ...], tuning: Tuning
) -> _Choice:
    """Fewer than are held, as far as the down window and the step allow."""
    window_s = down_window_s(signals, tuning)
    keep, left_s = _window(state, signals.target_concurrency, held, window_s, tuning)
    keep = max(keep, up)
    window = Candidate("window", keep, reasons.window(up, keep, held, left_s, window_s))
    if keep >= held:
        return _Choice(window, "scale-down window", reasons.window_change(left_s), (*weighed, window))
    step = _step(held, tuning)
    down = Candidate("down", max(keep, held - step), reasons.down(keep, held, step, window_s))
    return _Choice(down, "scale-down step" if down.pods > keep else "", "", (*weighed, window, down))


def _window(state: State, target: int, held: int, window_s: float, tuning: Tuning) -> tuple[int, float]:
    """Pods that the largest demand of the down window needs, and the seconds until fewer may do."""
    left_s = window_s - state.observed_s
    keep = min(held, max(1, state.first_pods or 0)) if left_s > 0 else 1
    fewer_do = (held - 1 - tuning.down_slack_pods + ROUNDING) * target
    for at_s, demand in state.peaks:
        if demand <= fewer_do:
            keep = max(keep, pods_for(demand + tuning.down_slack_pods * target, target))
            break
        keep, left_s = held, max(left_s, window_s - (state.observed_s - at_s))
    if state.lull is not None and (lull_left_s := window_s - (state.observed_s - state.lull.begin_s)) > 0:
        keep = max(keep, min(held, pods_for(state.lull.slots + tuning.down_slack_pods * target, target)))
        left_s = max(left_s, lull_left_s)
    return keep, max(0.0, left_s)


def _bound(wanted: int, signals: Signals) -> tuple[int, int, str, tuple[Candidate, ...]]:
    """`wanted` within the user's range, then within the machine; what bound it; each bound's number."""
    floor, most = pods_range(signals)
    bounds = reasons.bounds(floor, most, signals.concurrency, signals.max_pods)
    allowed = min(max(wanted, floor), most)
    binds = "" if allowed == wanted else bounds[allowed < wanted].rule
    if signals.room is None:
        return allowed, allowed, binds, bounds
    fits = max(min(1, allowed), signals.ready_pods + len(signals.starting_ages_s) + signals.room)
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
    state, demand, evidence, _ = seen
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
