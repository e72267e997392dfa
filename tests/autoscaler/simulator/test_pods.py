"""Pods come after their start, leave after their last request, and fail as told: all from the seed."""

from __future__ import annotations

import numpy as np
import pytest

from trimtab.autoscaler.simulator.engine import Engine
from trimtab.autoscaler.simulator.kernel import QUEUED
from trimtab.autoscaler.simulator.pods import NO_FAULTS, START_CV, Faults, Fleet

COLD_START_S = 10.0


def fleet(
    *, seed: int = 1, faults: Faults = NO_FAULTS, times_s: tuple[float, ...] = (), demand_s: float = 1.0
) -> tuple[Fleet, Engine]:
    engine = Engine(np.array(times_s), np.full(len(times_s), demand_s), np.ones(9), 1000)
    return Fleet(engine, COLD_START_S, seed, faults), engine


def pass_to(made: Fleet, engine: Engine, until_s: float, limit: int = 1) -> list[float]:
    """Let time pass as a run does; when something happened."""
    happened_s = []
    while (event_s := made.next_event_s) <= until_s:
        engine.advance(event_s, limit)
        made.happen(event_s)
        happened_s.append(event_s)
    engine.advance(until_s, limit)
    return happened_s


def test_pods_are_ready_after_their_start_and_credited_until_then() -> None:
    made, engine = fleet()
    made.want(3, 0, 0.0)
    assert (made.asked, made.ready) == (3, [])
    assert made.starting_ages_s(2.0) == (2.0, 2.0, 2.0)
    ready_s = pass_to(made, engine, 60.0)
    assert len(ready_s) == len(made.ready) == 3
    assert made.start_time_s == sorted(ready_s)[1], "what a start typically takes"
    assert made.starting_ages_s(60.0) == ()


def test_the_start_time_stays_known_when_no_pod_is_left() -> None:
    made, engine = fleet()
    assert made.start_time_s is None
    made.want(1, 0, 0.0)
    (took_s,) = pass_to(made, engine, 60.0)
    made.want(0, 0, 60.0)
    assert (made.ready, made.start_time_s) == ([], took_s)


def test_pods_that_are_there_at_the_begin_took_some_time_each_to_start() -> None:
    """The mean itself is known to nobody; and who begins with pods meets the same starts afterwards."""
    known_s, next_s = [], set()
    for pods in (0, 1, 3):
        made, engine = fleet(seed=2)
        made.begin(pods)
        known_s.append(made.start_time_s)
        made.want(pods + 1, 0, 0.0)
        next_s.update(pass_to(made, engine, 100.0))
    assert known_s[0] is None
    assert all(at_s != COLD_START_S and 0.3 < at_s / COLD_START_S < 2.0 for at_s in known_s[1:])
    assert len(next_s) == 1


def test_starts_have_the_mean_and_the_spread_that_are_stated() -> None:
    made, engine = fleet()
    made.want(2_000, 0, 0.0)
    took_s = np.array(pass_to(made, engine, 100.0))
    assert took_s.size == 2_000
    assert took_s.mean() == pytest.approx(COLD_START_S, rel=0.02)
    assert took_s.std() / took_s.mean() == pytest.approx(START_CV, rel=0.06)


def test_the_nth_start_takes_as_long_whoever_asks_and_whenever() -> None:
    eager, engine = fleet(seed=4)
    eager.want(4, 0, 0.0)
    at_once_s = sorted(pass_to(eager, engine, 60.0))
    hesitant, engine = fleet(seed=4)
    one_by_one_s = []
    for pods in range(1, 5):
        now_s = 100.0 * pods
        pass_to(hesitant, engine, now_s)
        hesitant.want(pods, 0, now_s)
        one_by_one_s += [at_s - now_s for at_s in pass_to(hesitant, engine, now_s + 99.0)]
    assert sorted(one_by_one_s) == pytest.approx(at_once_s)
    other, engine = fleet(seed=5)
    other.want(4, 0, 0.0)
    assert sorted(pass_to(other, engine, 60.0)) != pytest.approx(at_once_s)


def test_faults_leave_start_times_alone() -> None:
    first_s = set()
    for faults in (NO_FAULTS, Faults(deaths_per_hour=60.0, failed_starts=0.5)):
        made, _ = fleet(seed=4, faults=faults)
        made.want(3, 0, 0.0)
        first_s.add(made.next_event_s)
    assert len(first_s) == 1


def test_fewer_pods_cancel_the_newest_start_first() -> None:
    made, engine = fleet()
    made.want(1, 0, 0.0)
    pass_to(made, engine, 2.0)
    made.want(3, 0, 2.0)
    pass_to(made, engine, 3.0)
    made.want(1, 0, 3.0)
    assert made.starting_ages_s(3.0) == (3.0,)
    assert made.pod_seconds == pytest.approx(2.0)  # two pods that started for a second each


def test_of_ready_pods_the_least_loaded_leaves_and_only_when_it_is_empty() -> None:
    made, engine = fleet(times_s=(1.0, 1.1, 1.2), demand_s=10.0)
    made.begin(2)
    pass_to(made, engine, 2.0, limit=2)
    busiest, least = made.ready
    assert (engine.held(busiest), engine.held(least)) == (2, 1)
    made.want(1, 0, 2.0)
    assert made.ready == [busiest]
    assert engine.held(least) == 1
    assert made.pod_seconds == 0.0, "it drains, and is paid for"
    assert made.pod_seconds_by(2.0) == pytest.approx(4.0)
    pass_to(made, engine, 20.0, limit=2)
    made.want(1, 0, 20.0)
    assert made.pod_seconds == pytest.approx(20.0)
    assert made.pod_seconds_by(30.0) == pytest.approx(50.0)
    assert np.isfinite(engine.latencies).all()


def test_pod_seconds_run_from_the_request_to_start() -> None:
    made, engine = fleet()
    pass_to(made, engine, 5.0)
    made.want(2, 0, 5.0)
    assert made.pod_seconds_by(7.0) == pytest.approx(4.0)
    pass_to(made, engine, 100.0)
    assert made.pod_seconds_by(105.0) == pytest.approx(200.0)


def test_overdue_starts_are_begun_anew_the_oldest_first() -> None:
    made, engine = fleet(faults=Faults(stalled_starts=1.0))
    made.want(1, 0, 0.0)
    pass_to(made, engine, 50.0)
    made.want(2, 0, 50.0)
    pass_to(made, engine, 60.0)
    assert made.starting_ages_s(60.0) == (60.0, 10.0), "a stalled start never ends by itself"
    made.want(2, 1, 60.0)
    assert made.starting_ages_s(60.0) == (10.0, 0.0)
    assert made.pod_seconds == pytest.approx(60.0)


def test_failed_starts_end_in_nothing_and_are_paid_for() -> None:
    made, engine = fleet(faults=Faults(failed_starts=1.0))
    made.want(2, 0, 0.0)
    ended_s = pass_to(made, engine, 60.0)
    assert (made.asked, made.ready) == (0, [])
    assert made.pod_seconds == pytest.approx(sum(ended_s))


def test_the_shares_of_faulty_starts_are_those_asked_for() -> None:
    made, engine = fleet(faults=Faults(failed_starts=0.2, stalled_starts=0.1))
    made.want(3_000, 0, 0.0)
    pass_to(made, engine, 100.0)
    assert len(made.ready) / 3_000 == pytest.approx(0.7, abs=0.03)
    assert len(made.starting_ages_s(100.0)) / 3_000 == pytest.approx(0.1, abs=0.02)


def test_a_pod_that_dies_gives_back_what_it_held() -> None:
    made, engine = fleet(faults=Faults(deaths_per_hour=3600.0), times_s=(0.001,), demand_s=1_000.0)
    made.begin(1)
    (died_s,) = pass_to(made, engine, 60.0)
    assert (made.asked, engine.counts[QUEUED]) == (0, 1), "one waits again"
    assert made.pod_seconds == pytest.approx(died_s)


@pytest.mark.parametrize(
    ("faults", "latency_s"),
    [
        (Faults(hangs_per_hour=36_000.0), None),
        (Faults(slow_per_hour=36_000.0, slow_speed=0.5), 20.0),
    ],
)
def test_a_pod_that_hangs_or_slows_down_stays(faults: Faults, latency_s: float | None) -> None:
    made, engine = fleet(faults=faults, times_s=(5.0,), demand_s=10.0)
    made.begin(1)
    (struck_s,) = pass_to(made, engine, 60.0)
    assert struck_s < 5.0, "this seed strikes at once"
    assert len(made.ready) == 1
    if latency_s is None:
        assert np.isnan(engine.latencies[0])
    else:
        assert engine.latencies[0] == pytest.approx(latency_s)


def test_the_rate_of_faults_is_the_one_asked_for() -> None:
    made, engine = fleet(faults=Faults(deaths_per_hour=6.0))
    made.begin(2_000)
    died = len(pass_to(made, engine, 60.0))
    assert died == pytest.approx(2_000 * 0.1 * 0.95, rel=0.15)  # 1 - e^-0.1 of them in a minute
