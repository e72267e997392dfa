"""Bugs of a vertical axis, planted around the true `decide_limit`, and the invariants that they break."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from trimtab.autoscaler.vertical import LimitSignals, LimitState, LimitTuning, decide_limit
from trimtab.core.decision import LimitDecision

Decided = tuple[LimitState, LimitDecision]
DecideLimit = Callable[[LimitState, LimitSignals, float, LimitTuning], Decided]


def old_evidence_counts(
    state: LimitState, signals: LimitSignals, now_s: float, tuning: LimitTuning
) -> Decided:
    """What came late counts for now: a limit is judged by what another one gave."""
    told = tuple(
        replace(s, at_s=now_s - 1e-3 * index, period_s=1.0) for index, s in enumerate(signals.pod_signals)
    )
    unsettled = replace(state, settled_s=None)
    return decide_limit(unsettled, replace(signals, pod_signals=told), now_s, tuning)


def idle_pods_are_full(
    state: LimitState, signals: LimitSignals, now_s: float, tuning: LimitTuning
) -> Decided:
    """It is not asked whether the limit binds: pods without load are taken to have room for more."""
    told = tuple(replace(signal, in_flight=float(signals.limit)) for signal in signals.pod_signals)
    return decide_limit(state, replace(signals, pod_signals=told), now_s, tuning)


def leaps(state: LimitState, signals: LimitSignals, now_s: float, tuning: LimitTuning) -> Decided:
    """No cap on the change of one decision."""
    return decide_limit(state, signals, now_s, replace(tuning, step_up=16.0))


def ceiling_is_forgotten(
    state: LimitState, signals: LimitSignals, now_s: float, tuning: LimitTuning
) -> Decided:
    """The range counts only while the knee is looked for."""
    if state.phase == "onboarding":
        return decide_limit(state, signals, now_s, tuning)
    return decide_limit(state, replace(signals, ceiling=10**6), now_s, tuning)


PLANTS: dict[DecideLimit, tuple[str, ...]] = {
    old_evidence_counts: ("silence_changes_no_limit", "order_and_repetition"),
    idle_pods_are_full: ("load_raises_no_limit",),
    leaps: ("limit_steps_bounded",),
    ceiling_is_forgotten: ("limit_within_bounds", "limit_comes_to_rest"),
}
