"""The vertical axis: how many requests one pod may hold, decided from signals and nothing else.

`decide_limit` is called each 30 s with the signals that came since the last call. It reads no clock,
keeps nothing outside `LimitState`, and answers the same for the same input. Its steps, in order:

1. Take the window together: pods compared, odd ones left out (`evidence`); metrics in their bands (`stress`).
2. Hold while nothing is known, a change has not settled, or load rather than the limit is what binds.
3. Lower at once for a metric that asks for it.
4. While exploring, look for the knee (`explore`, `curve`); at rest, watch for a changed profile (`steady`).
"""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import NamedTuple

from trimtab.autoscaler.vertical import reasons
from trimtab.autoscaler.vertical.evidence import Window, observe
from trimtab.autoscaler.vertical.explore import Bounds, Step, explore, falls_by_few, reconsider
from trimtab.autoscaler.vertical.levels import is_torn, level_at, with_noise, with_unloaded
from trimtab.autoscaler.vertical.state import ONBOARDING, RESTING, Level, LimitSignals, LimitState
from trimtab.autoscaler.vertical.steady import anew, watch, worth_another
from trimtab.autoscaler.vertical.stress import lower, lowered, most_in_memory, press, saturated, with_memory
from trimtab.autoscaler.vertical.tuning import DEFAULT, LimitTuning
from trimtab.core.decision import LimitCandidate, LimitDecision

_CHANGES = {
    "unknown": "a signal from a pod or from Envoy",
    "applying": "the limit in force",
    "settling": "a window after the change",
    "load": "more requests per pod",
    "silent": "a completed request",
    "disturbance": "windows that fit, or some more that do not",
    "evidence": "more completed requests",
}
_FLOOR, _CEILING = "the least limit", "the range's maximum"


class _Choice(NamedTuple):
    """What a rule gave, before the bounds; what binds it, and all that was weighed."""

    state: LimitState
    won: LimitCandidate
    binds: str = ""
    would_change: str = ""
    others: tuple[LimitCandidate, ...] = ()


def decide_limit(
    state: LimitState, signals: LimitSignals, now_s: float, tuning: LimitTuning = DEFAULT
) -> tuple[LimitState, LimitDecision]:
    """The next state, and how many requests one pod of the revision may hold.

    `now_s` is monotonic and only tells how old signals are. Deterministic; raises nothing.
    """
    state, applying = _in_force(state, signals, now_s, tuning)
    window = observe(state, signals, now_s, tuning)
    window = window._replace(torn=is_torn(state, window, tuning))
    if applying:
        won = LimitCandidate("applying", state.limit, reasons.applying(state.limit, signals.limit))
        choice = _Choice(state, won, "rest")
    else:
        choice = _choose(_taken_in(state, window, signals.limit, tuning), signals, window, now_s, tuning)
    # what is kept is what was wanted, also where the range lets less of it come into force
    wanted = choice.state.limit
    if choice.won.limit != _bounded(wanted, signals):
        wanted = choice.won.limit
    limit = _bounded(wanted, signals)
    floor, ceiling = _bounds(signals)
    bound = "" if limit == choice.won.limit else (_FLOOR if limit == floor else _CEILING)
    decision = LimitDecision(
        revision=signals.revision,
        at_s=now_s,
        limit_before=signals.limit,
        limit=limit,
        rule=bound or choice.won.rule,
        reason=reasons.sentence(
            signals.limit, limit, choice.won.why + reasons.capped(bound, limit), window.left_out
        ),
        binds=bound or choice.binds,
        would_change=choice.would_change or _CHANGES.get(choice.won.rule, ""),
        inputs=_inputs(choice.state, signals, window),
        candidates=(
            choice.won,
            *choice.others,
            LimitCandidate(_FLOOR, floor, f"no lower than {floor}"),
            LimitCandidate(_CEILING, ceiling, f"no higher than {ceiling}"),
        ),
    )
    return _after(choice.state, window, decision, wanted, tuning), decision


def _bounds(signals: LimitSignals) -> tuple[int, int]:
    floor = max(1, signals.floor)
    return floor, max(floor, signals.ceiling)


def _bounded(limit: int, signals: LimitSignals) -> int:
    """What the range lets come into force of a limit."""
    floor, ceiling = _bounds(signals)
    return max(floor, min(limit, ceiling))


def _in_force(
    state: LimitState, signals: LimitSignals, now_s: float, tuning: LimitTuning
) -> tuple[LimitState, bool]:
    """The state for the limit that is in force, and whether the wanted one is still to come into force."""
    if (
        state.decided_s is not None and now_s < state.decided_s
    ):  # another machine's clock: only times are wrong
        state = replace(state, decided_s=None, changed_s=None, settled_s=None, rested_s=None, looked_s=None)
    if not state.limit:
        return replace(state, limit=max(1, signals.limit)), False
    wanted, ranged = _bounded(state.limit, signals), state.applied == signals.limit
    if signals.limit == wanted:
        if ranged or not state.applied:
            return state, False
        # the range has changed meanwhile, and the limit with it
        return replace(state, changed_s=now_s, settled_s=now_s + tuning.settle_s), False
    since_s = now_s if ranged or state.changed_s is None else state.changed_s
    settled_s = now_s + tuning.settle_s
    if now_s - since_s < tuning.apply_s:
        # evidence counts once it is in force, at the earliest from the next decision on
        return replace(state, changed_s=since_s, settled_s=settled_s), True
    if state.phase == RESTING and level_at(state.levels, state.limit) is not None:
        return state, False  # what was found is asked for until it is in force
    return replace(state, limit=max(1, signals.limit), changed_s=now_s, settled_s=settled_s), False


def _taken_in(state: LimitState, window: Window, limit: int, tuning: LimitTuning) -> LimitState:
    """The state with what every window tells, whatever is decided."""
    state = with_unloaded(with_noise(state, window, tuning), window)
    return press(with_memory(state, window, limit, tuning), window.metrics, tuning)


def _choose(
    state: LimitState, signals: LimitSignals, window: Window, now_s: float, tuning: LimitTuning
) -> _Choice:
    limit = signals.limit
    pressing = lower(state.pressed, window, limit, tuning)
    if pressing is not None and pressing.limit < limit:
        pressed = lowered(state.pressed, pressing.rule, window.metrics)
        return _Choice(replace(state, pressed=pressed, cap=pressing.limit), pressing)
    wanted = limit if limit == _bounded(state.limit, signals) else state.limit  # late to come into force
    if held := _hold(state, window, limit, wanted, now_s, tuning):
        return held
    assert window.seen is not None
    if (
        state.decided_s is None
        and not state.levels
        and tuning.settle_times * (window.time_s or 0.0) > tuning.first_s
    ):
        return _Choice(
            state, LimitCandidate("settling", limit, reasons.filling(limit, (window.time_s or 0.0))), "rest"
        )
    if state.phase == ONBOARDING:
        return _early(state, window, limit, now_s, tuning) or _explore(
            state, window.seen, signals, window, now_s, tuning
        )
    return _rest(state, window.seen, signals, window, now_s, tuning)


def _hold(
    state: LimitState, window: Window, limit: int, wanted: int, now_s: float, tuning: LimitTuning
) -> _Choice | None:
    """Why this window is no evidence about the limit, so that what is wanted stays; None if it is."""
    if window.settling:
        why = reasons.settling(limit, (state.settled_s or now_s) - now_s)
        return _Choice(state, LimitCandidate("settling", wanted, why), "rest")
    if window.in_flight is None:
        silent_s = None if state.decided_s is None else now_s - state.decided_s
        return _Choice(state, LimitCandidate("unknown", wanted, reasons.unknown(silent_s)), "missing signals")
    if not window.binds(tuning):
        return _Choice(state, LimitCandidate("load", wanted, reasons.loose(window.in_flight, limit)), "load")
    if window.seen is None:
        return _Choice(state, LimitCandidate("silent", wanted, reasons.silent(limit)), "missing signals")
    return None


def _early(
    state: LimitState, window: Window, limit: int, now_s: float, tuning: LimitTuning
) -> _Choice | None:
    """Wait while what completes had begun before the limit was changed: it tells of that one, not of this."""
    since_s = inf if state.changed_s is None else now_s - state.changed_s
    if window.completed_s <= since_s or since_s > tuning.early_s or state.waited >= tuning.early_max:
        return None
    why = reasons.early(limit, window.completed_s)
    return _Choice(replace(state, waited=state.waited + 1), LimitCandidate("settling", limit, why), "rest")


def _explore(
    state: LimitState, seen: Level, signals: LimitSignals, window: Window, now_s: float, tuning: LimitTuning
) -> _Choice:
    bounds = _bounds_within(state, signals, window, tuning)
    step = explore(state, seen, window.torn, bounds, tuning)
    after = step.state
    if step.done:
        held_at = signals.ceiling if _range_held(step, signals.ceiling, tuning) else 0
        after = replace(after, limit=step.choice.limit, phase=RESTING, rested_s=now_s, looked_s=now_s)
        doubted = after.doubted + 1 if after.contradicted else 0
        if not state.doubted and falls_by_few(after, step.choice.limit, tuning):
            doubted = 1
        after = replace(after, contradicted=False, doubted=doubted, waited=0)
        after = replace(after, held_at=held_at, down_first=False, odd=0, residuals=())
    return _Choice(after, step.choice)


def _range_held(step: Step, ceiling: int, tuning: LimitTuning) -> bool:
    """Whether a wider range might bring more: the knee is at its end, or in the last doubling before it."""
    top, limit = step.state.levels[-1].limit, step.choice.limit
    return limit >= ceiling or (top >= ceiling and limit * tuning.step_up > top)


def _bounds_within(state: LimitState, signals: LimitSignals, window: Window, tuning: LimitTuning) -> Bounds:
    """Those of the range, what a metric beyond its band leaves of it, and what memory has room for."""
    floor, ceiling = _bounds(signals)
    ceiling = max(floor, int(min(ceiling, most_in_memory(state, signals.limit, tuning))))
    if state.cap:
        ceiling = max(floor, min(ceiling, state.cap))
    return Bounds(floor, ceiling, saturated(state.pressed, window.metrics))


def _rest(
    state: LimitState, seen: Level, signals: LimitSignals, window: Window, now_s: float, tuning: LimitTuning
) -> _Choice:
    if state.held_at and signals.ceiling > state.held_at:
        wider = LimitCandidate("range", seen.limit, reasons.wider(state.held_at, signals.ceiling))
        further = replace(state, phase=ONBOARDING, explored=0, held_at=0)
        return _explore(further, seen, signals, window, now_s, tuning)._replace(others=(wider,))
    known = level_at(state.levels, seen.limit)
    after, factor = watch(state, seen, now_s, tuning)
    if factor is not None:
        changed = LimitCandidate("change", seen.limit, reasons.changed(factor, seen))
        return _explore(after, seen, signals, window, now_s, tuning)._replace(others=(changed,))
    if after.rested_s is None and after.doubted:  # since a restart
        after = replace(after, rested_s=now_s)
    if known is not None and state.limit == seen.limit and worth_another(after, known, now_s, tuning):
        doubt = LimitCandidate("doubt", seen.limit, reasons.doubted(known))
        again = replace(anew(after, seen.limit, slower=False), cap=state.cap)  # no metric has changed
        return _explore(again, seen, signals, window, now_s, tuning)._replace(others=(doubt,))
    if after.looked_s is None:
        after = replace(after, looked_s=now_s)
    elif now_s - after.looked_s >= tuning.reconsider_s:
        better = reconsider(after, seen.limit, _bounds_within(after, signals, window, tuning), tuning)
        after = replace(after, looked_s=now_s)
        if better is not None:
            return _Choice(replace(after, rested_s=now_s, residuals=()), better)
    if state.limit != seen.limit:  # the range keeps it from coming into force, or Envoy is late
        found = LimitCandidate("rest", state.limit, reasons.elsewhere(state.limit))
        return _Choice(after, found, "rest")
    aside = known is not None and (not after.levels or level_at(after.levels, seen.limit) == known)
    why = reasons.odd(seen, known) if aside and known is not None else reasons.rests(known)
    change = f"throughput a third away from {known.rate:.3g}/s for minutes" if known else ""
    return _Choice(after, LimitCandidate("rest", seen.limit, why), "rest", change)


def _after(
    state: LimitState, window: Window, decision: LimitDecision, wanted: int, tuning: LimitTuning
) -> LimitState:
    """The state after the decision; after a change nothing counts until it has settled."""
    before, limit, now_s = state.applied or decision.limit_before, decision.limit, decision.at_s
    state = replace(state, limit=wanted, applied=limit, decided_s=now_s)
    if limit == before:
        return state
    time_s = (window.time_s or 0.0) * max(1.0, limit / decision.limit_before)
    settle_s = tuning.settle_s + min(tuning.settle_max_s, tuning.settle_times * time_s)
    return replace(state, changed_s=now_s, settled_s=now_s + settle_s)


def _inputs(state: LimitState, signals: LimitSignals, window: Window) -> tuple[tuple[str, float | None], ...]:
    seen, metrics = window.seen, window.metrics
    return (
        ("ready_pods", signals.ready_pods),
        ("in_flight", window.in_flight),
        ("in_flight_at_envoy", window.at_envoy),
        ("held_share", window.held),
        ("queued_share", window.queued),
        ("rate_per_s", seen.rate if seen else None),
        ("time_s", window.time_s),
        ("unloaded_s", state.unloaded_s or None),
        ("cpu_share", metrics.cpu),
        ("memory_share", metrics.memory),
        ("io_wait_share", metrics.io_wait),
        ("cache_share", metrics.cache),
        ("server_queue_share", metrics.server_queue),
        ("batch", metrics.batch),
        ("gpu_compute_share", metrics.compute),
        ("gpu_bandwidth_share", metrics.bandwidth),
        ("gpu_memory_share", metrics.gpu_memory),
        ("gpu_engine_share", metrics.engine),
        ("gpu_share", metrics.gpu),
        ("gpu_pods", metrics.gpu_pods),
        ("explored_decisions", state.explored),
    )
