"""Pods that wait for one slow dependency: more of them bring nothing, and growth stops where that is plain."""

from __future__ import annotations

from collections.abc import Callable

from trimtab.autoscaler.horizontal import Signals, State, decide
from trimtab.core.decision import Decision
from trimtab.core.signals import RevisionSignal

TARGET = 4
ASKED_PER_S, ANSWERED_PER_S = 300, 100


def overloaded(
    signal: Callable[..., RevisionSignal],
    signals: Callable[..., Signals],
    answered_per_s: Callable[[int], int],
    decisions: int,
) -> list[Decision]:
    """Decisions while every pod is full and requests wait; pods are there as soon as they are wanted."""
    state, pods, told = State(), 10, []
    for number in range(1, decisions + 1):
        second = {
            "arrivals": ASKED_PER_S,
            "completions": answered_per_s(pods),
            "in_flight": pods * TARGET,
            "queued": 800,
            "request_time_s": 8.0 * answered_per_s(pods),
        }
        batch = [signal(number * 5.0 + i - 4.0, **second) for i in range(5)]
        given = signals(*batch, ready_pods=pods, target_concurrency=TARGET, start_time_s=2.0)
        state, decision = decide(state, given, number * 5.0)
        pods = decision.pods
        told.append(decision)
    return told


def test_growth_stops_where_more_pods_bring_nothing_and_says_so(
    signal: Callable[..., RevisionSignal], signals: Callable[..., Signals]
) -> None:
    told = overloaded(signal, signals, lambda pods: ANSWERED_PER_S, 40)
    last = told[-1]
    assert (last.rule, last.binds) == ("no gain", "no gain")
    assert last.pods == told[-20].pods
    assert last.pods < dict(last.inputs)["demand"] / TARGET  # type: ignore[operator]
    assert "more pods do not help: 10 full ones answered 100/s" in last.reason
    assert last.would_change


def test_growth_goes_on_where_each_pod_brings_its_share(
    signal: Callable[..., RevisionSignal], signals: Callable[..., Signals]
) -> None:
    told = overloaded(signal, signals, lambda pods: 10 * pods, 40)
    assert "no gain" not in {decision.rule for decision in told}
    assert told[-1].pods > 30


def test_it_grows_again_when_the_dependency_has_recovered(
    signal: Callable[..., RevisionSignal], signals: Callable[..., Signals]
) -> None:
    calls = iter(range(10_000))
    told = overloaded(signal, signals, lambda pods: ANSWERED_PER_S if next(calls) < 40 else 10 * pods, 60)
    stopped = [decision.pods for decision in told if decision.rule == "no gain"]
    assert stopped
    assert told[-1].pods > stopped[0]
