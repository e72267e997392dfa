"""Pods that wait for a slow dependency: more of them bring nothing, and growth stops where that is plain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

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
    stops = [decision for decision in told if decision.rule == "no gain"]
    first = stops[0]
    assert first.binds == "no gain"
    assert first.pods < dict(first.inputs)["demand"] / TARGET  # type: ignore[operator]
    assert "more pods do not help: 10 full ones answered 100/s" in first.reason
    assert "something that they share is slow" in first.reason
    assert first.would_change
    assert told[-1].pods <= first.pods * 1.25**2 + 2, "tried again after one minute, and after two more"


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


def poisson(
    per_s: Callable[[float], float], service_s: float, until_s: float
) -> Iterator[tuple[float, float]]:
    """(time, service time) of independent requests, exponential ones, from a seed."""
    drawn, at_s = Random(1), 0.0
    while (at_s := at_s + drawn.expovariate(per_s(at_s))) <= until_s:
        yield at_s, drawn.expovariate(1.0 / service_s)


@pytest.mark.parametrize("start_s", [2.0, 10.0, 30.0])
def test_pods_that_take_their_time_to_start_hide_nothing(revision: Any, start_s: float) -> None:
    """A dependency that answers 100/s, of which 150/s are asked: each decision finds other pods ready."""
    load = poisson(lambda at_s: 30 if at_s < 120 else 150, 0.1, 400.0)
    run = revision(target=4, start_s=start_s, shared_per_s=100.0).run(load, 400.0)
    stopped = [decision for decision in run.decisions if decision.rule == "no gain"]
    assert stopped
    assert stopped[0].at_s < 120 + start_s + 40
    assert stopped[0].pods < 80
    assert run.decisions[-1].pods <= stopped[0].pods * 1.25**2 + 2, "tried again, each time later"


@pytest.mark.parametrize("service_s", [0.1, 2.0, 30.0])
def test_new_pods_whose_requests_last_are_not_taken_for_useless(revision: Any, service_s: float) -> None:
    """30 s requests complete 30 s after a new pod is full: until then it has brought nothing."""
    slots = 80.0
    load = poisson(lambda at_s: slots / service_s * (0.1 if at_s < 200 else 1.0), service_s, 600.0)
    run = revision(target=4, start_s=10.0).run(load, 600.0)
    assert "no gain" not in {decision.rule for decision in run.decisions}
    assert run.decisions[-1].pods >= slots / 4
