"""What holds for every input: ranges, windows, caps, and that silence never removes a pod."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtab.autoscaler.horizontal import Signals, State, Tuning, decide, pods_range
from trimtab.core.decision import Decision
from trimtab.core.signals import RevisionSignal
from trimtab.core.spec import ConcurrencyRange

Make = Callable[..., RevisionSignal]
MakeSignals = Callable[..., Signals]

quick = settings(
    max_examples=60,
    deadline=None,
    # the fixtures are factories without state
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@dataclass(frozen=True)
class Second:
    """What one second of one Envoy was like; `kept` 0 if its signal got lost."""

    arrivals: int
    completions: int
    in_flight: int
    queued: int
    rejected: int
    each_s: float
    kept: int

    def signal(self, make: Make, at_s: float, envoy: str = "e1") -> RevisionSignal:
        return make(
            at_s,
            envoy=envoy,
            arrivals=self.arrivals,
            completions=self.completions,
            in_flight=self.in_flight,
            queued=self.queued,
            rejected=self.rejected,
            request_time_s=self.each_s * self.completions,
        )


counts = st.sampled_from([0, 0, 1, 2, 5, 20, 100, 1_000, 10_000_000])
seconds = st.builds(
    Second, counts, counts, counts, counts, counts, st.sampled_from([0.01, 0.2, 3.0, 90.0]), st.integers(0, 4)
)
scripts = st.lists(seconds, min_size=5, max_size=120)
fleets = st.fixed_dictionaries(
    {
        "ready_pods": st.integers(0, 40),
        "starting_ages_s": st.lists(st.floats(0, 500), max_size=4).map(tuple),
        "start_time_s": st.none() | st.floats(0, 300),
        "target_concurrency": st.integers(1, 100),
        "concurrency": st.builds(
            lambda low, more: ConcurrencyRange(low, low + more), *[st.integers(1, 300)] * 2
        ),
        "max_pods": st.integers(0, 50),
        "room": st.none() | st.integers(0, 20),
    }
)


def play(
    script: list[Second], make: Make, fleet: Signals, tuning: Tuning, state: State | None = None
) -> list[tuple[State, State, Decision]]:
    """(state before, state after, decision) of each 5 s of a script."""
    state, steps = state or State(), []
    for end in range(5, len(script) + 1, 5):
        batch = tuple(
            second.signal(make, float(end - 4 + i))
            for i, second in enumerate(script[end - 5 : end])
            if second.kept
        )
        after, decision = decide(state, replace(fleet, revision_signals=batch), float(end), tuning)
        steps.append((state, after, decision))
        state = after
    return steps


@quick
@given(scripts, fleets)
def test_never_outside_the_range_the_ceiling_or_the_machine(
    signal: Make, signals: MakeSignals, script: list[Second], fleet: dict[str, object]
) -> None:
    given_fleet = signals(**fleet)
    floor, most = pods_range(given_fleet)
    fits = most
    if given_fleet.room is not None:
        fits = max(1, given_fleet.ready_pods + len(given_fleet.starting_ages_s) + given_fleet.room)
    for _, _, decision in play(script, signal, given_fleet, Tuning(down_window_s=10.0)):
        assert min(floor, fits) <= decision.pods <= min(most, fits)
        assert decision.pods >= 1


@quick
@given(scripts, st.integers(1, 100))
def test_growth_is_capped(signal: Make, signals: MakeSignals, script: list[Second], ready: int) -> None:
    fleet = signals(ready_pods=ready, target_concurrency=2, concurrency=ConcurrencyRange(1, 10**6))
    tuning = Tuning()
    for before, _, decision in play(script, signal, fleet, tuning):
        present = max(before.demand, ready * 2)
        assert decision.pods <= max(decision.pods_before, ceil(tuning.growth * present / 2))


@quick
@given(scripts, st.integers(10, 100))
def test_no_pod_leaves_within_the_window_after_it_was_wanted(
    signal: Make, signals: MakeSignals, script: list[Second], window_s: int
) -> None:
    """The number never falls below what any decision of the window wanted for its load, backlogs apart."""
    steps = play(script, signal, signals(), Tuning(down_window_s=float(window_s)))
    for index, (_, _, decision) in enumerate(steps):
        recent = [
            d
            for _, _, d in steps[: index + 1]
            if decision.at_s - d.at_s < window_s - 5 and d.candidates[0].rule == "load"
        ]
        assert decision.pods >= max([min(lasting(d), d.candidates[0].pods, 1000) for d in recent], default=1)


def lasting(decision: Decision) -> int:
    """Pods that the load wanted, without those that only work a backlog off. Target 1."""
    inputs = dict(decision.inputs)
    return ceil((inputs["load"] or 0.0) + (inputs["headroom"] or 0.0))


@quick
@given(scripts, st.integers(1, 60))
def test_silence_removes_nothing(
    signal: Make, signals: MakeSignals, script: list[Second], decisions: int
) -> None:
    tuning = Tuning(down_window_s=10.0)
    state = play(script, signal, signals(), tuning)[-1][1]
    at_s, pods = float(len(script)), state.pods or 1
    for step in range(1, decisions + 1):
        state, decision = decide(state, signals(), at_s + 10 + 5 * step, tuning)
        assert decision.pods == pods


@quick
@given(scripts, st.integers(1, 8), st.integers(0, 10_000))
def test_at_most_a_quarter_leaves_at_once(
    signal: Make, signals: MakeSignals, script: list[Second], ready: int, pause_s: int
) -> None:
    tuning = Tuning(down_window_s=10.0)
    for _, _, decision in play(script, signal, signals(ready_pods=ready), tuning):
        assert decision.pods >= decision.pods_before - max(1, decision.pods_before // 4)


@quick
@given(scripts, st.randoms(use_true_random=False))
def test_order_and_repetition_do_not_matter(
    signal: Make, signals: MakeSignals, script: list[Second], rng: random.Random
) -> None:
    tidy, messy = State(), State()
    fleet = signals()
    for end in range(5, len(script) + 1, 5):
        batch = [
            second.signal(signal, end - 4 + i + offset, envoy)
            for i, second in enumerate(script[end - 5 : end])
            for envoy, offset in (("e1", 0.0), ("e2", 0.3))
            if second.kept
        ]
        shuffled = batch + rng.choices(batch, k=len(batch)) if batch else []
        rng.shuffle(shuffled)
        tidy, expected = decide(tidy, replace(fleet, revision_signals=tuple(batch)), end + 1.0)
        messy, decision = decide(messy, replace(fleet, revision_signals=tuple(shuffled)), end + 1.0)
        assert (decision.pods, decision.rule) == (expected.pods, expected.rule)
        assert messy.demand == pytest.approx(tidy.demand)


@quick
@given(scripts, st.lists(st.integers(0, 200), min_size=5, max_size=5))
def test_more_arrivals_never_give_fewer_pods(
    signal: Make, signals: MakeSignals, script: list[Second], more: list[int]
) -> None:
    state = play(script, signal, signals(), Tuning(down_window_s=10.0))[-1][1]
    begin_s = float(len(script) // 5 * 5 + 1)
    batch = [signal(begin_s + i, arrivals=7, completions=7, request_time_s=2.1) for i in range(5)]
    extra = [s._replace(arrivals=s.arrivals + n) for s, n in zip(batch, more, strict=True)]
    pods = decide(state, signals(*batch), begin_s + 5)[1].pods
    assert decide(state, signals(*extra), begin_s + 5)[1].pods >= pods


@quick
@given(scripts, st.floats(0, 1e6), st.floats(1, 1e5))
def test_the_clock_has_no_zero_and_a_pause_removes_nothing(
    signal: Make, signals: MakeSignals, script: list[Second], shift_s: float, pause_s: float
) -> None:
    fleet, tuning = signals(), Tuning(down_window_s=10.0)
    here, there = State(), State()
    shift_s = float(round(shift_s))
    for end in range(5, len(script) + 1, 5):
        batch = [s.signal(signal, float(end - 4 + i)) for i, s in enumerate(script[end - 5 : end]) if s.kept]
        moved = [s._replace(at_s=s.at_s + shift_s) for s in batch]
        here, expected = decide(here, replace(fleet, revision_signals=tuple(batch)), float(end), tuning)
        there, decision = decide(there, replace(fleet, revision_signals=tuple(moved)), end + shift_s, tuning)
        assert decision.pods == expected.pods
    at_s = len(script) + 5 + pause_s
    late, decision = decide(here, replace(fleet, revision_signals=()), at_s, tuning)
    assert decision.pods >= (here.pods or 1)
    assert late.observed_s == here.observed_s


@quick
@given(scripts, st.integers(1, 1000))
def test_clients_that_retry_rejections_do_not_multiply_demand(
    signal: Make, signals: MakeSignals, script: list[Second], retries: int
) -> None:
    """However many are rejected, demand is at most that of twice the accepted arrivals."""
    begin_s = 1.0
    plain = [
        signal(begin_s + i, arrivals=10, completions=10, request_time_s=2.0, rejected=10 * retries)
        for i in range(5)
    ]
    double = [s._replace(arrivals=20, rejected=0) for s in plain]
    assert decide(State(), signals(*plain), 6.0)[1].pods <= decide(State(), signals(*double), 6.0)[1].pods
