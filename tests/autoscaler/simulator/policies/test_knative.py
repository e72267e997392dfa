"""The KPA's windows, its panic, and its way to zero."""

from __future__ import annotations

from trimtab.autoscaler.simulator.policies.base import Wish
from trimtab.autoscaler.simulator.policies.knative import Knative


def feed(
    policy: Knative, tick, seconds: float, begin_s: float = 0.0, **world: float
) -> list[tuple[float, Wish]]:
    """Ticks of one kind for `seconds` after `begin_s`; the wishes with their times."""
    made = []
    for i in range(1, round(seconds * 2) + 1):
        wish = policy.step(tick(begin_s + i / 2, **world), ())
        if wish is not None:
            made.append((begin_s + i / 2, wish))
    return made


def test_decides_each_2_s_and_keeps_the_limit_at_the_knee(setting, tick) -> None:
    made = feed(Knative(setting(phase_s=0.7)), tick, 9.0, in_flight=2.0)
    assert [at_s for at_s, _ in made] == [1.0, 3.0, 5.0, 7.0, 9.0]
    assert {wish for _, wish in made} == {Wish(1, 4)}


def test_a_phase_longer_than_the_period_counts_modulo(setting, tick) -> None:
    made = feed(Knative(setting(phase_s=13.0)), tick, 6.0, in_flight=2.0)
    assert [at_s for at_s, _ in made] == [1.0, 3.0, 5.0]


def test_nobody_reported_no_decision(setting, tick) -> None:
    assert feed(Knative(setting()), tick, 120.0, ready=0) == []


def test_an_old_window_decides_until_it_is_empty(setting, tick) -> None:
    """Silence at the end does not count as zero: the last mean stands, and then there is none."""
    policy = Knative(setting())
    assert feed(policy, tick, 60.0, in_flight=28.0, ready=10)[-1][1].pods == 10
    made = feed(policy, tick, 120.0, begin_s=60.0, ready=0)
    assert made[0][1].pods == 10
    assert made[-1][0] == 118.0  # the last report, of the second up to 60 s, is in the window until then


def test_the_window_begins_with_the_first_report(setting, tick) -> None:
    """10 s of load after 50 s without a pod: divided by 10 s, not by 60."""
    policy = Knative(setting())
    feed(policy, tick, 50.0, ready=0)
    assert feed(policy, tick, 10.0, begin_s=50.0, in_flight=28.0, ready=10)[-1][1].pods == 10


def test_a_gap_inside_the_window_counts_zero(setting, tick) -> None:
    policy = Knative(setting())
    for begin_s in range(0, 60, 2):
        feed(policy, tick, 1.0, begin_s=begin_s, ready=0)
        made = feed(policy, tick, 1.0, begin_s=begin_s + 1, in_flight=14.0, ready=4)
    assert made[-1][1].pods == 3  # 7 on average over the window, at 2.8 a pod; without the gaps 5


def test_queued_counts_like_in_flight(setting, tick) -> None:
    made = feed(Knative(setting()), tick, 60.0, in_flight=8.0, queued=20.0, ready=10)
    assert made[-1][1].pods == 10


def test_concurrency_is_weighted_by_time_not_sampled(setting, tick) -> None:
    """Half of each second is idle, and the gauge happens to be read in the other half."""
    policy = Knative(setting())
    wish = None
    for i in range(1, 121):
        world = tick(i / 2, in_flight=0.0 if i % 2 else 28.0, ready=5)
        wish = policy.step(world, ()) or wish
    assert wish == Wish(5, 4)


def test_panic_never_goes_down_and_ends_60_s_after_the_last_breach(setting, tick) -> None:
    policy = Knative(setting(pods_min=1))
    feed(policy, tick, 60.0, in_flight=28.0, ready=10)
    feed(policy, tick, 6.0, begin_s=60.0, in_flight=280.0, ready=10)  # 100 wanted, 10 ready: panic
    made = feed(policy, tick, 150.0, begin_s=66.0, in_flight=28.0, ready=100)
    left_s = next(at_s for at_s, wish in made if wish.pods < 100)
    assert left_s == 66.0 + 62.0  # at 126 s exactly 60 s have passed, which is not yet more than 60
    assert made[-1][1].pods == 50  # never below half of the ready pods at once


def test_up_at_most_a_thousandfold(setting, tick) -> None:
    made = feed(Knative(setting()), tick, 10.0, in_flight=100_000.0, ready=2)
    assert made[-1][1].pods == 2_000


def test_to_zero_after_an_idle_window_and_a_grace(setting, tick) -> None:
    policy = Knative(setting(pods_min=0))
    feed(policy, tick, 10.0, in_flight=2.0)
    made = feed(policy, tick, 120.0, begin_s=10.0)
    assert next(at_s for at_s, wish in made if wish.pods == 0) == 70.0 + 30.0


def test_from_zero_at_the_first_request(setting, tick) -> None:
    policy = Knative(setting(pods_min=0))
    assert policy.step(tick(0.5, queued=3.0, ready=0), ()) == Wish(1, 4)


def test_an_option_moves_the_target(setting, tick) -> None:
    made = feed(Knative(setting(), target=1.0), tick, 60.0, in_flight=28.0, ready=7)
    assert made[-1][1].pods == 7
