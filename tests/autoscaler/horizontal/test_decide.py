"""`decide` by its rules: up, down, hold, and the bounds; with the reason that it gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest

from trimtab.autoscaler.horizontal import (
    Signals,
    State,
    Tuning,
    decide,
    inherit,
    overdue_pods,
    pods_range,
    replaced_at_once,
)
from trimtab.core.decision import Decision
from trimtab.core.signals import RevisionSignal
from trimtab.core.spec import ConcurrencyRange

Steady = Callable[..., tuple[RevisionSignal, ...]]
MakeSignals = Callable[..., Signals]
SHORT = Tuning(down_window_s=30.0)


@pytest.fixture
def after(steady: Steady, signals: MakeSignals) -> Callable[..., tuple[State, Decision]]:
    """The state and the decision after `seconds` of a steady load, decided each 5 s."""

    def run(
        rate: float,
        service_s: float,
        seconds: int,
        state: State | None = None,
        begin_s: float = 0.0,
        tuning: Tuning | None = None,
        **changed: object,
    ) -> tuple[State, Decision]:
        state, decision = state or State(), None
        for second in range(5, seconds + 1, 5):
            batch = steady(rate, service_s, begin_s + second - 4, 5)
            state, decision = decide(state, signals(*batch, **changed), begin_s + second, tuning or Tuning())
        assert decision is not None
        return state, decision

    return run


def test_without_any_signal_what_is_there_stays(signals: MakeSignals) -> None:
    _, decision = decide(State(), signals(ready_pods=3, starting_ages_s=(1.0,)), 100.0)
    assert (decision.pods, decision.rule, decision.binds) == (4, "unknown", "missing signals")
    assert decision.reason == "stays at 4: no signal from Envoy yet; unknown is not zero"


def test_without_pods_or_signals_there_is_one_pod(signals: MakeSignals) -> None:
    assert decide(State(), signals(ready_pods=0), 100.0)[1].pods == 1


def test_up_at_once(after: Callable[..., tuple[State, Decision]]) -> None:
    _, decision = after(80, 0.1, 5)
    assert (decision.pods, decision.rule, decision.binds) == (9, "load", "")
    told = "goes from 1 to 9: load wants 9 (78.7 requests/s keep 7.87 in flight, 0.561 spare)"
    assert decision.reason == told
    assert dict(decision.inputs)["service_time_s"] == pytest.approx(0.1)


def test_zero_is_not_unknown(signals: MakeSignals, after: Callable[..., tuple[State, Decision]]) -> None:
    state, decision = after(0, 0.1, 60, State(pods=8), tuning=SHORT, ready_pods=8)
    assert decision.pods < 8
    unknown, decision = decide(State(pods=8), signals(ready_pods=8), 60.0, SHORT)
    assert (decision.pods, unknown.observed_s) == (8, 0.0)
    assert state.observed_s >= 60.0


def test_down_only_after_the_window_and_a_quarter_at_a_time(
    after: Callable[..., tuple[State, Decision]],
) -> None:
    state, peak = after(80, 0.1, 20)
    state, decision = after(4, 0.1, 295, state, 20.0)
    assert decision.pods == peak.pods
    assert decision.reason == "stays at 11: load wants 1; the scale-down window still holds 10 s"
    assert decision.would_change == "10 s without more load"
    trace = []
    for begin_s in range(315, 400, 5):
        state, decision = after(4, 0.1, 5, state, float(begin_s))
        trace.append(decision.pods)
    assert trace[:3] == [11, 9, 7]
    assert all(after >= before - max(1, before // 4) for before, after in pairwise(trace))
    assert trace[-1] <= 2


def test_after_a_restart_nothing_is_removed_until_the_window_is_full(
    after: Callable[..., tuple[State, Decision]],
) -> None:
    _, decision = after(4, 0.1, 295, ready_pods=6)
    assert decision.pods == 6
    assert "the scale-down window still holds 5 s" in decision.reason
    assert after(4, 0.1, 305, ready_pods=6)[1].pods < 6


def test_silence_holds_and_does_not_fill_the_window(
    signals: MakeSignals, after: Callable[..., tuple[State, Decision]]
) -> None:
    state, _ = after(4, 0.1, 20, ready_pods=6)
    for now_s in range(25, 1000, 5):
        state, decision = decide(state, signals(ready_pods=6), float(now_s))
        assert decision.pods == 6
    assert decision.rule == "unknown"
    _, decision = after(4, 0.1, 270, state, 1000.0, ready_pods=6)
    assert decision.pods == 6


def test_one_late_flush_changes_nothing(
    signals: MakeSignals, after: Callable[..., tuple[State, Decision]]
) -> None:
    state, before = after(80, 0.1, 20)
    _, decision = decide(state, signals(ready_pods=10), 25.0)
    assert decision.pods == before.pods


def test_growth_is_capped_by_the_load_there_is(after: Callable[..., tuple[State, Decision]]) -> None:
    _, decision = after(5000, 0.1, 5)
    assert (decision.pods, decision.binds) == (20, "growth")
    assert "grows at most ×20 per decision" in decision.reason
    assert after(5000, 0.1, 10)[1].pods == 400
    assert after(5000, 0.1, 5, ready_pods=20)[1].pods == 400


@pytest.mark.parametrize(
    ("given", "pods", "binds", "words"),
    [
        ({"concurrency": ConcurrencyRange(1, 4)}, 4, "the range's maximum", "maximum of 4 at 4"),
        ({"max_pods": 3}, 3, "max_pods", "capped by max_pods at 3"),
        ({"room": 1, "room_why": "0.2 GB of memory free"}, 2, "this machine", "0.2 GB of memory free"),
        ({"room": 0}, 1, "this machine", "capped by this machine: 1 fit"),
        ({"concurrency": ConcurrencyRange(30, 64)}, 30, "the range's minimum", "minimum of 30 needs 30"),
        ({"target_concurrency": 4}, 3, "", "load wants 3"),
        ({"target_concurrency": 100}, 1, "", "load wants 1"),
        ({"concurrency": ConcurrencyRange(5, 5), "max_pods": 2}, 2, "max_pods", "max_pods at 2"),
    ],
)
def test_bounds(
    after: Callable[..., tuple[State, Decision]], given: dict[str, object], pods: int, binds: str, words: str
) -> None:
    _, decision = after(80, 0.1, 20, **given)
    assert (decision.pods, decision.binds) == (pods, binds)
    assert words in decision.reason
    assert bool(decision.would_change)


def test_a_lowered_range_acts_at_once(after: Callable[..., tuple[State, Decision]]) -> None:
    state, _ = after(80, 0.1, 20)
    _, decision = after(80, 0.1, 5, state, 20.0, concurrency=ConcurrencyRange(1, 3))
    assert (decision.pods_before, decision.pods) == (11, 3)


def test_pods_that_died_stay_wanted_though_there_is_no_room(
    after: Callable[..., tuple[State, Decision]],
) -> None:
    state, _ = after(80, 0.1, 20, ready_pods=10)
    state, decision = after(4, 0.1, 5, state, 20.0, ready_pods=7, room=0)
    assert (decision.pods, decision.binds) == (7, "this machine")
    _, decision = after(4, 0.1, 5, state, 25.0, ready_pods=7, room=9)
    assert decision.pods == 11


def test_growth_that_the_machine_refused_is_not_remembered(
    after: Callable[..., tuple[State, Decision]],
) -> None:
    state, decision = after(80, 0.1, 20, ready_pods=1, room=2)
    assert decision.pods == 3
    state, _ = after(4, 0.1, 120, state, 20.0, ready_pods=3, room=0)
    _, decision = after(4, 0.1, 60, state, 140.0, ready_pods=3, room=9)
    assert decision.pods == 3


def test_starting_pods_are_expected_until_overdue(signals: MakeSignals) -> None:
    fleet = signals(starting_ages_s=(1.0, 29.0, 31.0, 200.0), start_time_s=None)
    assert overdue_pods(replace(fleet, start_time_s=3.0)) == 2
    assert overdue_pods(fleet) == 0, "how long starts take is unknown"
    assert overdue_pods(replace(fleet, start_time_s=60.0)) == 1


def test_why_says_what_becomes_of_late_starts(after: Callable[..., tuple[State, Decision]]) -> None:
    ages_s = (1.0, 31.0, 200.0)
    state, decision = after(80, 0.1, 20, starting_ages_s=ages_s, start_time_s=3.0)
    assert decision.reason.endswith("; 2 starts are late (over 30 s), 1 at a time replaced")
    _, decision = after(
        80, 0.1, 5, state, 20.0, starting_ages_s=(1.0, 61.0), start_time_s=20.0, ready_pods=30
    )
    assert decision.reason.endswith("; 1 start is late (over 60 s), 1 at a time replaced")
    for start_time_s in (None, 100.0):
        _, decision = after(80, 0.1, 5, state, 20.0, starting_ages_s=ages_s, start_time_s=start_time_s)
        assert "late" not in decision.reason


@pytest.mark.parametrize(("wanted", "at_once"), [(0, 1), (2, 1), (19, 1), (20, 2), (100, 10)])
def test_a_tenth_of_the_pods_is_replaced_at_a_time(wanted: int, at_once: int) -> None:
    assert replaced_at_once(wanted) == at_once


def test_the_range_in_pods(signals: MakeSignals) -> None:
    given = signals(concurrency=ConcurrencyRange(5, 64), target_concurrency=4)
    assert pods_range(given) == (2, 16)
    assert pods_range(replace(given, max_pods=1)) == (1, 1)


def test_a_new_revision_inherits_the_demand_in_its_own_pods(
    signals: MakeSignals, after: Callable[..., tuple[State, Decision]]
) -> None:
    old, _ = after(80, 0.1, 20)
    state, decision = decide(inherit(old), signals(ready_pods=1, target_concurrency=2), 20.0)
    assert (decision.pods, decision.rule) == (6, "rollout")
    state, decision = after(0, 0.1, 200, state, 20.0, ready_pods=5, target_concurrency=2)
    assert decision.pods == 6
    assert inherit(state).inherited == pytest.approx(old.peaks[0][1])  # a second rollout finds it too
    again = inherit(old, state)
    assert inherit(old, again) == again


def test_a_state_is_plain_data(after: Callable[..., tuple[State, Decision]]) -> None:
    state, decision = after(80, 0.1, 20)
    assert json.loads(json.dumps(state))[State._fields.index("pods")] == 11
    assert all(name and (value is None or value >= 0) for name, value in decision.inputs)


def test_the_same_input_gives_the_same_output(after: Callable[..., tuple[State, Decision]]) -> None:
    assert after(80, 0.1, 60) == after(80, 0.1, 60)
