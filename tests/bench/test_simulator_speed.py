"""The measurements of speed measure what they say. Bounds are wide here: machines are shared."""

from __future__ import annotations

from bench.decisions import BOUND_S, amortised_s, limit_s, noisy_limit_signals, noisy_signals
from bench.simulator import BOUND, engine_per_s
from trimtab.autoscaler.horizontal import State, decide
from trimtab.autoscaler.simulator.models import MODELS
from trimtab.autoscaler.vertical import LimitState, decide_limit


def test_the_signals_that_are_timed_need_the_ten_pods_that_are_there() -> None:
    state = State()
    for number, signals in enumerate(noisy_signals("one", 2, 30), 1):
        assert len(signals.revision_signals) == 10
        state, decision = decide(state, signals, number * 5.0)
    assert decision.pods in range(9, 15)  # the load is a fifth above its mean then


def test_a_decision_is_not_ten_times_too_dear() -> None:
    assert 0.0 < amortised_s(1) < 10 * BOUND_S


def test_a_limit_is_decided_from_every_pod_that_told() -> None:
    state = LimitState()
    for number, signals in enumerate(noisy_limit_signals(10), 1):
        assert len(signals.pod_signals) == 60
        state, decision = decide_limit(state, signals, number * 30.0)
    assert dict(decision.inputs)["held_share"] > 0.5
    assert limit_s() < 0.05


def test_the_engine_is_faster_than_the_whole_has_to_be() -> None:
    assert engine_per_s(MODELS["cpu"]) > BOUND
