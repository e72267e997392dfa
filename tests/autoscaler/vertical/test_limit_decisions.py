"""The decisions of one onboarding, in the words in which `why` tells them; and what they cost."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from tests.autoscaler.vertical.models import cpu
from tests.autoscaler.vertical.world import REVISION, Loop, World, lognormal
from trimtab.autoscaler.vertical import LimitSignals, LimitState, decide_limit
from trimtab.core.signals import PodSignal


def told(*periods: PodSignal, limit: int = 4) -> LimitSignals:
    return LimitSignals(REVISION, periods, ready_pods=1, limit=limit)


def period(at_s: float, in_flight: float, completions: float) -> PodSignal:
    return PodSignal(REVISION, "iris-0", at_s, 5.0, in_flight=in_flight, completions=completions)


def test_an_onboarding_in_words() -> None:
    even = lognormal(0.01)
    loop = Loop(World(cpu(4, 0.2), even, pods=2, limit=2)).run(8)
    words = [decision.reason for decision in loop.decisions]
    assert words[0].startswith("goes from 2 to 4: the limit binds (")
    assert words[0].endswith("at 2) and no other has been tried")
    assert words[1].startswith("goes from 4 to 8: the limit binds and throughput still rises (")
    assert any(
        word.startswith("goes from ") and " to 4: throughput did not rise beyond 4 (" in word
        for word in words
    )
    assert any("while each request takes" in word for word in words)
    assert words[-1].startswith("stays at 4: the knee was found here (")
    last = loop.decisions[-1]
    assert (last.rule, last.binds) == ("rest", "rest")
    assert last.would_change.startswith("throughput a third away from ")
    assert dict(last.inputs)["rate_per_s"] is not None
    assert {c.rule for c in last.candidates} == {"rest", "the least limit", "the range's maximum"}


def test_unknown_is_not_zero() -> None:
    _, decision = decide_limit(LimitState(), told(), 30.0)
    assert decision.reason == "stays at 4: no signal of what its pods hold yet; unknown is not zero"


def test_a_limit_that_does_not_bind() -> None:
    periods = [period(5.0 * i, 2.5, 10) for i in range(1, 7)]
    _, decision = decide_limit(LimitState(), told(*periods), 30.0)
    assert decision.reason == "stays at 4: the limit does not bind (2.5 of 4 in flight)"


def test_pods_that_complete_nothing_say_nothing() -> None:
    periods = [period(5.0 * i, 4, 0) for i in range(1, 7)]
    _, decision = decide_limit(LimitState(), told(*periods), 30.0)
    assert decision.reason == "stays at 4: pods hold their 4 requests and complete none"


def test_batches_are_told_and_are_no_reason() -> None:
    periods = [period(5.0 * i, 4, 10) for i in range(1, 7)]
    batched = [replace(each, batch=3.0) for each in periods]
    (_, plain), (_, decision) = (decide_limit(LimitState(), told(*some), 30.0) for some in (periods, batched))
    assert dict(decision.inputs)["batch"] == 3.0
    assert dict(plain.inputs)["batch"] is None
    assert (decision.reason, decision.limit) == (plain.reason, plain.limit)


def test_the_range_binds() -> None:
    periods = [period(5.0 * i, 1, 10) for i in range(1, 7)]
    _, decision = decide_limit(LimitState(), replace(told(*periods), ceiling=3), 30.0)
    assert (decision.limit, decision.rule, decision.binds) == (
        3,
        "the range's maximum",
        "the range's maximum",
    )
    assert (
        decision.reason
        == "goes from 4 to 3: the limit does not bind (1 of 4 in flight); held by the range's maximum at 3"
    )


@pytest.mark.parametrize("silent", [False, True])
def test_a_knee_that_is_late_to_come_into_force_is_still_asked_for(silent: bool) -> None:
    loop = Loop(World(cpu(4, 0.1), pods=2, limit=2)).onboard()
    state, found = loop.state, loop.limit
    loop.world.limit = 2  # and stays so: Envoy does not take another
    for _ in range(6):
        signals = loop.world.window()
        if silent:
            signals = replace(signals, pod_signals=(), revision_signals=())
        state, decision = decide_limit(state, signals, loop.world.now_s)
        assert (decision.limit_before, decision.limit) == (2, found)


def test_a_decision_for_ten_pods_costs_well_below_a_millisecond() -> None:
    loop = Loop(World(cpu(4, 0.1), pods=10, limit=4)).onboard()
    signals = loop.world.window()
    spent_s = []
    for _ in range(20):
        begin_s = time.perf_counter()
        decide_limit(loop.state, signals, loop.world.now_s)
        spent_s.append(time.perf_counter() - begin_s)
    assert min(spent_s) < 0.001
