"""From zero and to zero, where the range begins there."""

from __future__ import annotations

from collections.abc import Callable

from trimtab.autoscaler.horizontal import Signals, State, Tuning, decide
from trimtab.core.decision import Decision
from trimtab.core.signals import RevisionSignal
from trimtab.core.spec import ConcurrencyRange

FROM_ZERO = ConcurrencyRange(0, 100)
Signal = Callable[..., RevisionSignal]
Make = Callable[..., Signals]


def lived(
    signal: Signal, signals: Make, state: State, begin_s: float, seconds: int, pods: int, **each: float
) -> tuple[State, Decision]:
    """The last of the decisions of so many seconds, all alike, with so many pods ready."""
    decision = None
    for at_s in range(5, seconds + 1, 5):
        batch = [signal(begin_s + at_s - 4.0 + i, **each) for i in range(5)]
        given = signals(*batch, ready_pods=pods, concurrency=FROM_ZERO)
        state, decision = decide(state, given, begin_s + at_s)
        pods = decision.pods
    assert decision is not None
    return state, decision


BUSY = {"arrivals": 10, "completions": 10, "in_flight": 1, "request_time_s": 1.0}


def test_to_zero_after_a_window_without_a_request(signal: Signal, signals: Make) -> None:
    state, decision = lived(signal, signals, State(), 0.0, 400, 1, **BUSY)
    assert decision.pods >= 1
    state, decision = lived(signal, signals, state, 400.0, 295, decision.pods)
    assert decision.pods >= 1
    _, decision = lived(signal, signals, state, 695.0, 60, decision.pods)
    assert (decision.pods, decision.rule) == (0, "idle")
    assert "no request for 3" in decision.reason


def test_one_request_in_the_window_keeps_a_pod(signal: Signal, signals: Make) -> None:
    state, decision = lived(signal, signals, State(), 0.0, 400, 1, **BUSY)
    state, decision = lived(signal, signals, state, 400.0, 200, decision.pods)
    once = {"arrivals": 1, "completions": 1, "request_time_s": 0.1}
    state, decision = lived(signal, signals, state, 600.0, 5, decision.pods, **once)
    _, decision = lived(signal, signals, state, 605.0, 200, decision.pods)
    assert decision.pods == 1


def test_the_first_request_wakes_it(signal: Signal, signals: Make) -> None:
    idle = State(pods=0, idle_s=900.0, observed_s=900.0)
    state, decision = lived(signal, signals, idle, 0.0, 20, 0)
    assert decision.pods == 0
    _, decision = lived(signal, signals, state, 20.0, 5, 0, arrivals=1, queued=1)
    assert decision.pods >= 1


def test_silence_is_not_idleness(signals: Make) -> None:
    state = State(pods=3, idle_s=1e6, observed_s=1e6)
    for at_s in range(5, 900, 5):
        state, decision = decide(state, signals(ready_pods=3, concurrency=FROM_ZERO), float(at_s), Tuning())
        assert decision.pods == 3


def test_a_range_that_begins_at_one_never_ends_at_zero(signal: Signal, signals: Make) -> None:
    state = State(pods=1)
    for at_s in range(5, 900, 5):
        batch = [signal(at_s - 4.0 + i) for i in range(5)]
        state, decision = decide(state, signals(*batch, concurrency=ConcurrencyRange(1, 9)), float(at_s))
        assert decision.pods == 1


def test_a_restart_at_zero_stays_there(signals: Make) -> None:
    assert decide(State(), signals(ready_pods=0, concurrency=FROM_ZERO), 5.0)[1].pods == 0


def test_a_restart_at_zero_starts_no_pod_for_nobody(signal: Signal, signals: Make) -> None:
    assert lived(signal, signals, State(), 0.0, 60, 0)[1].pods == 0
