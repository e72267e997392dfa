"""Whole runs against a queueing model with a seeded load: what issue and design promise, end to end."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest

from trimtab.autoscaler.horizontal import Tuning

Arrivals = Iterator[tuple[float, float]]


def poisson(
    rate_at: Callable[[float], float], until_s: float, service_s: float, seed: int, *, spread: bool = True
) -> Arrivals:
    """Independent arrivals with exponential (or, without `spread`, equal) service times."""
    rng = random.Random(seed)
    most = max(rate_at(second) for second in range(int(until_s) + 1))
    at_s = 0.0
    while (at_s := at_s + rng.expovariate(most)) <= until_s:
        if rng.random() * most < rate_at(at_s):
            yield at_s, rng.expovariate(1 / service_s) if spread else service_s


@pytest.mark.parametrize("phase_s", [0.01, 1.01, 1.5, 2.01, 3.01, 4.01])
@pytest.mark.parametrize(
    ("service_s", "target", "pods"), [(0.2, 4, 20), (1.0, 8, 20), (2.0, 100, 5), (0.1, 1, 5)]
)
def test_a_step_of_ten_is_covered_within_6_s_of_its_first_signal(
    revision: Any, phase_s: float, service_s: float, target: int, pods: int
) -> None:
    peak = pods * target / service_s
    load = poisson(lambda t: peak if t >= 100 else peak / 10, 140, service_s, 3, spread=False)
    run = revision(target=target).run(load, 140, phase_s)
    assert run.pods_at(100.0) <= pods / 2
    assert run.pods_at(101.0 + 6.0) >= pods


def test_a_step_does_not_overshoot_a_second_time(revision: Any) -> None:
    load = poisson(lambda t: 400 if t >= 100 else 40, 400, 0.2, 3)
    run = revision(target=4).run(load, 400)
    after = [d.pods for d in run.decisions if d.at_s > 112]
    assert max(after) == after[0]


def test_a_drop_of_95_percent_for_less_than_300_s_removes_nothing(revision: Any) -> None:
    rate = 100.0
    load = poisson(lambda t: rate if t < 400 or t > 690 else rate / 20, 900, 0.1, 5)
    run = revision().run(load, 900)
    during = [d for d in run.decisions if 400 < d.at_s < 695]
    assert {d.pods for d in during} == {during[0].pods}


def test_after_the_window_pods_leave_down_to_what_is_needed(revision: Any) -> None:
    load = poisson(lambda t: 100 if t < 400 else 5, 1200, 0.1, 5)
    run = revision().run(load, 1200)
    assert run.pods_at(695) == run.pods_at(400)
    assert run.decisions[-1].pods <= 2


@pytest.mark.parametrize(
    ("load", "service_s", "target"),
    [(5, 0.1, 1), (10, 1.0, 4), (80, 0.1, 4), (80, 1.0, 8), (100, 0.2, 4)],
)
def test_a_steady_load_rests_within_a_tenth_of_what_suffices(
    revision: Any, load: float, service_s: float, target: int
) -> None:
    """Suffices: load and its own root over the target, by which 98 % of moments are covered."""
    arrivals = poisson(lambda _: load / service_s, 1200, service_s, 7)
    run = revision(target=target).run(arrivals, 1200)
    suffices = -(-(load + load**0.5) // target)
    last = [d.pods for d in run.decisions if d.at_s > 900]
    assert load / target < min(last)
    assert max(last) <= suffices + max(1, suffices / 10)


def test_the_first_ramp_is_met_with_slots_to_vary_within(revision: Any) -> None:
    """From 8 to 80 in flight within 10 min: nothing was there before that would hold what chance adds."""

    def in_flight(at_s: float) -> float:
        return 8.0 + 72.0 * min(1.0, max(0.0, at_s - 300.0) / 600.0)

    run = revision(target=4).run(poisson(lambda t: in_flight(t) / 0.2, 900, 0.2, 7), 900)
    risen = [(d.pods * 4, in_flight(d.at_s)) for d in run.decisions if d.at_s > 300]
    assert sum(slots < held + 0.5 * held**0.5 for slots, held in risen) <= 1


def test_a_backlog_after_a_cold_start_is_not_growth(revision: Any) -> None:
    """Where 2 pods are needed, queued plus in flight asks for 845 after a start of 60 s.

    600 requests of 0.2 s each are worked off in 6 s by 20 pods, beside what arrives, and ten come for
    what queues until these are there.
    """
    run = revision(start_s=60.0, begin_cold=True).run(poisson(lambda _: 10, 1500, 0.2, 4), 1500)
    assert max(d.pods for d in run.decisions) <= 2 + 20 + 10 + 5
    assert {d.pods for d in run.decisions if d.at_s > 500} <= {3, 4, 5}
    assert run.waits_s[-1] < 1.0


@pytest.mark.parametrize(("load", "service_s"), [(0.1, 0.02), (0.1, 1.0), (0.3, 0.1), (0.3, 0.5)])
def test_a_noisy_low_load_rests_at_one_pod_and_seldom_at_two(
    revision: Any, load: float, service_s: float
) -> None:
    run = revision().run(poisson(lambda _: load / service_s, 7200, service_s, 1), 7200)
    pods = [d.pods for d in run.decisions]
    assert set(pods) <= {1, 2}
    assert sum(pods) / len(pods) < 1.5


def test_a_load_of_more_than_one_core_gets_two_or_three(revision: Any) -> None:
    run = revision().run(poisson(lambda _: 12, 1200, 0.1, 2), 1200)
    assert {d.pods for d in run.decisions if d.at_s > 60} <= {2, 3}


def test_streams_of_minutes_get_their_slots_before_any_ends(revision: Any) -> None:
    load = ((1.0 + i * 0.5, 600.0) for i in range(100))
    run = revision(target=10, start_s=2.0).run(load, 120)
    assert run.decisions[-1].pods in range(10, 14)


def test_pods_do_not_flap_on_a_steady_load(revision: Any) -> None:
    run = revision(target=4).run(poisson(lambda _: 200, 3600, 0.1, 11), 3600)
    settled = [d.pods for d in run.decisions if d.at_s > 600]
    assert sum(before != after for before, after in pairwise(settled)) <= 12  # one in 4 minutes


def test_a_burst_that_returns_finds_its_pods(revision: Any) -> None:
    load = poisson(lambda t: 100 if t % 240 < 20 else 5, 1200, 0.1, 9)
    run = revision().run(load, 1200)
    assert {d.pods >= 10 for d in run.decisions if d.at_s > 60} == {True}


def test_a_model_that_became_slower_is_followed_in_a_minute(revision: Any) -> None:
    load = ((at_s, 0.1 if at_s < 600 else 0.3) for at_s, _ in poisson(lambda _: 40, 800, 0.1, 6))
    run = revision().run(load, 800)
    assert run.pods_at(600) < 10
    assert 12 <= run.pods_at(675) <= 25


def test_a_shorter_window_can_be_asked_for(revision: Any) -> None:
    load = poisson(lambda t: 100 if t < 60 else 1, 300, 0.1, 5)
    run = revision(tuning=Tuning(down_window_s=20.0, slow_window_s=20.0)).run(load, 300)
    assert run.pods_at(60) > 10
    assert run.pods_at(160) == 1
