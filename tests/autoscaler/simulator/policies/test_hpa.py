"""The HPA's ratio, its tolerance, what it makes of pods that start, and its way down; KEDA's part of it."""

from __future__ import annotations

import pytest

from trimtab.autoscaler.simulator.policies.base import Wish
from trimtab.autoscaler.simulator.policies.hpa import Behavior, Hpa, recommend
from trimtab.autoscaler.simulator.policies.keda import Keda


def feed(
    policy: Hpa | Keda, tick, seconds: float, begin_s: float = 0.0, **world: float
) -> list[tuple[float, Wish]]:
    made = []
    for i in range(1, round(seconds * 2) + 1):
        wish = policy.step(tick(begin_s + i / 2, **world), ())
        if wish is not None:
            made.append((begin_s + i / 2, wish))
    return made


def test_decides_each_15_s(setting, tick) -> None:
    made = feed(Hpa(setting(phase_s=19.0)), tick, 40.0, in_flight=3.0)
    assert made == [(4.0, Wish(1, 4)), (19.0, Wish(1, 4)), (34.0, Wish(1, 4))]


@pytest.mark.parametrize(
    ("load", "ready", "missing", "present", "wanted"),
    [
        (10.9, 10, 0, 10, 10),  # within 10 %
        (9.1, 10, 0, 10, 10),
        (11.5, 10, 0, 10, 12),
        (8.5, 10, 0, 10, 9),
        (25.0, 10, 0, 10, 25),
        (25.0, 10, 10, 20, 25),  # up: those that start count 0, so 25 of 20
        (15.0, 10, 10, 20, 20),  # that would turn it round: nothing changes
        (21.0, 10, 10, 20, 20),  # within 10 % of all 20
        (4.0, 10, 5, 15, 9),  # down: those that start count as if at the target
        (9.5, 10, 5, 15, 15),  # and may bring it within the tolerance
    ],
)
def test_recommends(load: float, ready: int, missing: int, present: int, wanted: int) -> None:
    assert recommend(load, ready, missing, present) == wanted


def test_no_ready_pod_no_metric_no_decision(setting, tick) -> None:
    assert feed(Hpa(setting()), tick, 60.0, queued=50.0, ready=0, starting=1) == []


def test_up_by_100_percent_or_4_pods_a_decision() -> None:
    behavior = Behavior(1)
    assert [behavior.follow(100, 15.0 * i, 1, 1000) for i in range(1, 7)] == [5, 10, 20, 40, 80, 100]


def test_down_only_after_300_s_and_then_at_once(setting, tick) -> None:
    policy = Hpa(setting())
    assert feed(policy, tick, 60.0, in_flight=40.0, ready=10)[-1][1].pods == 13
    made = feed(policy, tick, 400.0, begin_s=60.0, in_flight=3.0, ready=10)
    assert next(at_s for at_s, wish in made if wish.pods < 13) == 60.0 + 300.0
    assert made[-1][1].pods == 1


def test_down_to_the_largest_of_the_window() -> None:
    behavior = Behavior(20)
    found = [behavior.follow(20 if i < 2 else 5 + i % 2, 15.0 * i, 1, 100) for i in range(30)]
    assert found[:21] == [20] * 21
    assert found[21] == 6  # the last of 20 was 300 s ago


def test_never_below_one(setting, tick) -> None:
    made = feed(Hpa(setting(pods_min=0)), tick, 600.0)
    assert {wish.pods for _, wish in made} == {1}


def test_keda_as_shipped_lets_100_wait_on_each_pod(setting, tick) -> None:
    made = feed(Keda(setting()), tick, 30.0, in_flight=4.0, queued=100.0)
    assert made[-1][1].pods == 1  # 104 of 100 is within the tolerance
    made = feed(Keda(setting()), tick, 30.0, in_flight=4.0, queued=150.0)
    assert made[-1][1].pods == 2


def test_keda_divides_by_all_pods_ready_or_not(setting, tick) -> None:
    """16 of 5 × 3.2: ready or not, there are enough, where a metric of pods would count the ready."""
    made = feed(Keda(setting(), target=0.8), tick, 15.0, in_flight=16.0, ready=1, starting=4)
    assert made == [(15.0, Wish(5, 4))]


def test_keda_from_zero_at_once_to_zero_after_300_s(setting, tick) -> None:
    policy = Keda(setting(pods_min=0, phase_s=7.0))
    assert policy.step(tick(0.5, queued=1.0, ready=0), ()) == Wish(1, 4)
    feed(policy, tick, 9.5, begin_s=0.5, in_flight=1.0)
    made = feed(policy, tick, 320.0, begin_s=10.0)
    assert next(at_s for at_s, wish in made if wish.pods == 0) == 10.0 + 300.0
    assert policy.step(tick(330.5, queued=1.0, ready=0), ()) == Wish(1, 4)


def test_a_range_from_zero_is_one_from_one(setting, tick) -> None:
    policy = Hpa(setting(pods_min=0))
    assert policy.step(tick(0.5, ready=0), ()) == Wish(1, 4)
    assert policy.step(tick(1.0, ready=0, starting=1), ()) is None
    made = [policy.step(tick(i / 2, ready=1), ()) for i in range(3, 2000)]
    assert {wish.pods for wish in made if wish} == {1}
