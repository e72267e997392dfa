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
    assert feed(policy, tick, 10.0, in_flight=8.0) == []
    assert feed(policy, tick, 60.0, begin_s=10.0) == []  # the push at 40 s holds nothing of it
    made = feed(policy, tick, 60.0, begin_s=70.0, in_flight=8.0)
    assert made == [(110.0, Wish(4, 4))]  # asked for from the push at 80 s on


def test_a_burst_that_the_mean_still_holds_is_followed(setting, tick) -> None:
    policy = Ray(setting())
    feed(policy, tick, 30.0, in_flight=8.0)
    made = feed(policy, tick, 20.0, begin_s=30.0)
    assert made == [(40.0, Wish(3, 4))]  # 20 s of 8 and 10 s of nothing: 5.3 at 2 per replica


def test_down_after_600_s_of_agreement(setting, tick) -> None:
    policy = Ray(setting())
    feed(policy, tick, 60.0, in_flight=8.0, ready=4)
    made = feed(policy, tick, 700.0, begin_s=60.0, in_flight=2.0, ready=4)
    assert made == [(670.0, Wish(1, 4))]  # the mean pushed at 70 s is the first to ask for less


def test_it_follows_the_last_number_not_the_first(setting, tick) -> None:
    policy = Ray(setting())
    feed(policy, tick, 20.0, in_flight=200.0, ready=1)
    made = feed(policy, tick, 60.0, begin_s=20.0, in_flight=20.0, ready=1)
    assert made[0] == (40.0, Wish(40, 4))  # of the last 30 s, 10 s were of 200 and 20 s of 20: 80


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
