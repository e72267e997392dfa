"""The horizontal axis: how many pods a revision should have, decided from signals and nothing else.

`decide` is called each 5 s with the signals that came since the last call, sooner if they are `urgent`, and
more seldom while a revision may `rest`.
It reads no clock, keeps nothing outside `State`, and answers the same for the same input. Its steps:

1. Put the signals into their windows (`windows`); if no Envoy speaks, hold what there is.
2. Measure demand (`demand`), its growth capped, and remember it (`observe`).
3. Up at once to what demand needs, and to what is kept for surges; but not where more pods bring nothing.
4. Down slowly to what the largest demand of the window needs, once no backlog is left.
5. Keep within the range, the ceiling, and the machine.
"""

from __future__ import annotations

from typing import NamedTuple

from trimtab.autoscaler.horizontal import reasons
from trimtab.autoscaler.horizontal.observe import Seen, absorbed, lost_s, observe
from trimtab.autoscaler.horizontal.state import (
    ROUNDING,
    Signals,
    State,
    down_window_s,
    overdue_after_s,
    overdue_pods,
    pods_for,
    pods_range,
    replaced_at_once,
    slots,
    window_in_force_s,
)
from trimtab.autoscaler.horizontal.tuning import DEFAULT, Tuning
from trimtab.autoscaler.horizontal.windows import largest_since
from trimtab.core.decision import Candidate, Decision


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
    held = before
    if state.inherited:
        held = max(before, pods_for(state.inherited, signals.target_concurrency))
    fleet = slots(signals, tuning)
    view = absorbed(state, signals, fleet, now_s, tuning)
    silent_s = now_s - view.newest_s
    if silent_s > tuning.fresh_s:
        after = state._replace(envoys=view.envoys, lost_s=lost_s(state, view))
        choice, inputs = _without_signals(held, before, silent_s), _fleet_inputs(signals, tuning)
    else:
        seen = observe(state, signals, fleet, view, now_s, tuning)
        after = seen.state
        choice, inputs = _choose(seen, signals, held, tuning), _inputs(seen, signals, tuning)
    wanted, pods, binds, bounds = _bound(choice.won.pods, signals)
    reason = reasons.sentence(before, pods, choice.won.why, bounds, binds)
    if signals.starting_ages_s:
        reason += _late(signals, pods, tuning)
    decision = Decision(
        revision=signals.revision,
        at_s=now_s,
        pods_before=before,
        pods=pods,
        rule=binds or choice.won.rule,
        reason=reason,
        binds=binds or choice.binds,
        would_change=reasons.BOUNDS_CHANGE.get(binds) or choice.would_change,
        inputs=inputs,
        candidates=choice.candidates + bounds,
    )
    # The machine keeps pods from starting, but makes nobody forget those that were there and died.
    kept = wanted if wanted <= before else max(before, pods)
    return (after if after.pods == kept else after._replace(pods=kept)), decision


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


def _without_signals(held: int, before: int, silent_s: float) -> _Choice:
    """Hold: what nobody reports is unknown, not zero. A rollout's inherited demand still counts."""
    rule = "rollout" if held > before else "unknown"
    why = reasons.inherited(held) if held > before else reasons.unknown(silent_s)
    won = Candidate(rule, held, why)
    return _Choice(won, "missing signals", "a signal from Envoy", (won,))


def _choose(seen: Seen, signals: Signals, held: int, tuning: Tuning) -> _Choice:
    """Up to what demand needs and surges may need, down to what the window needs, or neither."""
    state, target = seen.state, signals.target_concurrency
    if state.idle_s and not signals.concurrency.min and (idle := _idle(state, signals, held, tuning)):
        return idle
    capped = state.demand < seen.demand.total
    now = pods_for(state.demand, target)
    load = Candidate("load", now, reasons.load(seen.demand, now, capped, tuning))
    up = load
    candidates: tuple[Candidate, ...] = (load,)
    window_s = window_in_force_s(state, signals, tuning)
    largest = largest_since(state.peaks, state.observed_s - window_s)
    if state.spare and (ready := pods_for(largest + state.spare, target)) > now:
        due = state.surges.due(state.observed_s)
        why = reasons.surges(ready, largest, state.spare, due.period_s if due else None)
        up = Candidate("surges", ready, why)
        candidates = (load, up)
    if up.pods > held and (stopped := _stopped(state, held, up.pods, candidates, tuning)):
        return stopped
    if up.pods >= held or held <= pods_range(signals)[0]:
        change = f"demand above {up.pods * target} concurrent requests" if not capped else "the next decision"
        return _Choice(up, "growth" if capped else "", change, candidates)
    known_s = seen.known_s if seen.evidence.seconds else 0  # nothing new is no news
    if known_s < tuning.short_window_s:
        few = Candidate("unknown", held, reasons.few_seconds(now, known_s))
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
    window_s = window_in_force_s(state, signals, tuning)
    keep, left_s = _window(state, signals.target_concurrency, held, window_s, tuning)
    keep = max(keep, up)
    window = Candidate("window", keep, reasons.window(up, keep, held, left_s, window_s))
    if keep >= held:
        return _Choice(window, "scale-down window", reasons.window_change(left_s), (*weighed, window))
    step = _step(held, tuning)
    passed = len(state.trial.passed) if state.trial.is_brief(tuning) else 0
    down = Candidate("down", max(keep, held - step), reasons.down(keep, held, step, window_s, passed))
    return _Choice(down, "scale-down step" if down.pods > keep else "", "", (*weighed, window, down))


def _window(state: State, target: int, held: int, window_s: float, tuning: Tuning) -> tuple[int, float]:
    """Pods that the largest demand of the down window needs, and the seconds until fewer may do."""
    left_s = window_s - state.observed_s
    keep = min(held, max(1, state.first_pods or 0)) if left_s > 0 else 1
    fewer_do = (held - 1 - tuning.down_slack_pods + ROUNDING) * target
    for at_s, demand in state.peaks:
        if at_s <= state.observed_s - window_s:
            continue
        if demand <= fewer_do:
            keep = max(keep, pods_for(demand + tuning.down_slack_pods * target, target))
            break
        keep, left_s = held, max(left_s, window_s - (state.observed_s - at_s))
    if (
        not state.trial.is_brief(tuning)
        and state.lull is not None
        and (lull_left_s := window_s - (state.observed_s - state.lull.begin_s)) > 0
    ):
        keep = max(keep, min(held, pods_for(state.lull.slots + tuning.down_slack_pods * target, target)))
        left_s = max(left_s, lull_left_s)
    return keep, max(0.0, left_s)


def _bound(wanted: int, signals: Signals) -> tuple[int, int, str, tuple[Candidate, ...]]:
    """`wanted` within the user's range, then within the machine; what bound it; each bound's number."""
    floor, most = pods_range(signals)
    asked = signals.concurrency
    bounds = reasons.bounds(floor, most, asked.min, asked.max, signals.max_pods)
    allowed = min(max(wanted, floor), most)
    binds = "" if allowed == wanted else bounds[allowed < wanted].rule
    if signals.room is None:
        return allowed, allowed, binds, bounds
    fits = max(min(1, allowed), signals.ready_pods + len(signals.starting_ages_s) + signals.room)
    machine = reasons.machine(fits, signals.room_why)
    if fits < allowed:
        return allowed, fits, machine.rule, (*bounds, machine)
    return allowed, allowed, binds, (*bounds, machine)


def _late(signals: Signals, pods: int, tuning: Tuning) -> str:
    """What becomes of starts that are overdue, if any are."""
    late = overdue_pods(signals, tuning)
    if not late or signals.start_time_s is None:
        return ""
    after_s = overdue_after_s(signals.start_time_s, tuning)
    return reasons.late(late, after_s, replaced_at_once(pods, tuning))


def _fleet_inputs(signals: Signals, tuning: Tuning) -> tuple[tuple[str, float | None], ...]:
    return (
        ("ready_pods", signals.ready_pods),
        ("starting_pods", len(signals.starting_ages_s)),
        ("overdue_pods", overdue_pods(signals, tuning)),
        ("start_time_s", signals.start_time_s),
        ("target_concurrency", signals.target_concurrency),
        ("room_pods", signals.room),
    )


def _inputs(seen: Seen, signals: Signals, tuning: Tuning) -> tuple[tuple[str, float | None], ...]:
    state, demand, evidence, _ = seen
    seconds = evidence.seconds
    return (
        ("arrivals_per_s", demand.arrivals_per_s),
        ("service_time_s", state.service_time.mean_s if state.service_time else None),
        ("full_time_s", state.full_time.mean_s or None),
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
