"""Ray Serve's mean and its patience."""

from __future__ import annotations

from trimtab.autoscaler.simulator.policies.base import Wish
from trimtab.autoscaler.simulator.policies.ray import Ray


def feed(policy: Ray, tick, seconds: float, begin_s: float = 0.0, **world: float) -> list[tuple[float, Wish]]:
    made = []
    for i in range(1, round(seconds * 2) + 1):
        wish = policy.step(tick(begin_s + i / 2, **world), ())
        if wish is not None:
            made.append((begin_s + i / 2, wish))
    return made


def test_nothing_before_the_first_push(setting, tick) -> None:
    assert feed(Ray(setting()), tick, 9.5, queued=1000.0) == []


def test_up_after_30_s_of_agreement(setting, tick) -> None:
    made = feed(Ray(setting()), tick, 60.0, in_flight=8.0, ready=1)
    assert made == [(40.0, Wish(4, 4))]  # 8 at 2 per replica; pushed at 10 s


def test_a_doubt_begins_the_count_anew(setting, tick) -> None:
    policy = Ray(setting())
    feed(policy, tick, 30.0, in_flight=8.0)
    made = feed(policy, tick, 40.0, begin_s=30.0, in_flight=2.0)
    made += feed(policy, tick, 60.0, begin_s=70.0, in_flight=8.0)
    assert made[0][0] == 40.0  # the mean of 30 s still holds the burst at 40 s: followed
    assert made[0][1].pods == 4


def test_down_after_600_s_of_agreement(setting, tick) -> None:
    policy = Ray(setting())
    feed(policy, tick, 60.0, in_flight=8.0, ready=4)
    made = feed(policy, tick, 700.0, begin_s=60.0, in_flight=2.0, ready=4)
    assert made == [(680.0, Wish(1, 4))]  # the mean pushed at 80 s is the first to ask for less


def test_it_follows_the_last_number_not_the_first(setting, tick) -> None:
    policy = Ray(setting())
    feed(policy, tick, 20.0, in_flight=200.0, ready=1)
    made = feed(policy, tick, 60.0, begin_s=20.0, in_flight=20.0, ready=1)
    assert made[0] == (40.0, Wish(46, 4))  # samples at 12 and 18 s are of 200, those at 24, 30 and 36 s of 20


def test_no_replica_ready_no_decision(setting, tick) -> None:
    assert feed(Ray(setting()), tick, 100.0, queued=50.0, ready=0, starting=1) == []


def test_from_zero_at_once_and_to_zero_from_one_only(setting, tick) -> None:
    policy = Ray(setting(pods_min=0))
    assert policy.step(tick(0.5, queued=9.0, ready=0), ()) == Wish(1, 4)
    made = feed(policy, tick, 59.5, begin_s=0.5, in_flight=8.0)
    assert made[-1][1].pods == 4
    made = feed(policy, tick, 1400.0, begin_s=60.0, ready=4)
    assert [wish.pods for _, wish in made] == [1, 0]


def test_an_option_makes_the_target_a_share_of_the_knee(setting, tick) -> None:
    made = feed(Ray(setting(), target=1.0), tick, 60.0, in_flight=8.0)
    assert made == [(40.0, Wish(2, 4))]
