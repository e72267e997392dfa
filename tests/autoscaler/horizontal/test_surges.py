"""What is remembered of surges, and what is kept spare for them."""

from __future__ import annotations

from math import sqrt

import pytest

from trimtab.autoscaler.horizontal import State, inherit
from trimtab.autoscaler.horizontal.surges import SURGES_MAX, Surge, Surges, learn, spare
from trimtab.autoscaler.horizontal.tuning import DEFAULT

START_S = 10.0


def lived(loads: list[tuple[float, float]], until_s: float, begin_s: float = 0.0) -> Surges:
    """Surges after a load in steps of (from when, slots), decided each 5 s, held for 300 s."""
    surges, seen = Surges(), []
    at_s = begin_s
    while at_s <= until_s:
        asked = [slots for since_s, slots in loads if since_s <= at_s][-1]
        seen.append((at_s, asked))
        held = max(slots for then_s, slots in seen if then_s > at_s - 300.0)
        surges = learn(surges, asked, held, at_s, START_S, DEFAULT)
        at_s += 5.0
    return surges


def test_a_steady_load_has_no_surges_and_keeps_nothing() -> None:
    surges = lived([(0.0, 20.0)], 2_000.0)
    assert surges.seen == ()
    assert spare(surges, 20.0, 20.0, 2_000.0, DEFAULT) == 0.0


def test_a_rise_within_chance_is_no_surge() -> None:
    assert lived([(0.0, 25.0), (600.0, 27.0)], 700.0).seen == ()


def test_a_surge_is_as_large_as_it_rose_over_what_was_held() -> None:
    (surge,) = lived([(0.0, 16.0), (600.0, 36.0), (630.0, 4.0)], 700.0).seen
    assert surge.size == pytest.approx((36.0 - 16.0) / sqrt(16.0))


def test_one_surge_is_prepared_for_only_for_a_while_and_two_for_longer() -> None:
    once = lived([(0.0, 16.0), (600.0, 36.0), (630.0, 16.0)], 1_000.0)
    twice = lived([(0.0, 16.0), (600.0, 36.0), (630.0, 16.0), (1_000.0, 56.0), (1_030.0, 16.0)], 1_100.0)
    slots = DEFAULT.surge_factor * 5.0 * sqrt(36.0)
    assert spare(once, 36.0, 36.0, 1_000.0, DEFAULT) == pytest.approx(slots)
    assert spare(once, 36.0, 36.0, 600.0 + DEFAULT.surge_recent_s + 100.0, DEFAULT) == 0.0
    later_s = 1_000.0 + DEFAULT.surge_recent_s + 100.0
    assert later_s < 600.0 + DEFAULT.surge_window_s
    assert spare(twice, 36.0, 36.0, later_s, DEFAULT) > 0.0
    assert spare(twice, 36.0, 36.0, 1_030.0 + DEFAULT.surge_window_s, DEFAULT) == 0.0


def test_a_surge_that_stayed_is_held_for_and_little_more() -> None:
    """A batch of a minute: after it, what it reached; not the same rise once more on top of that."""
    batch = lived([(0.0, 16.0), (600.0, 56.0), (660.0, 16.0)], 700.0)
    (surge,) = batch.seen
    assert surge.stayed
    assert (surge.rise, surge.reached) == (40.0, 56.0)
    assert spare(batch, 56.0, 56.0, 700.0, DEFAULT) == pytest.approx(DEFAULT.surge_margin * 40.0)
    low = spare(batch, 16.0, 16.0, 1_000.0, DEFAULT)
    assert low == pytest.approx(40.0 + DEFAULT.surge_margin * 40.0 - 8.0, rel=0.5), (
        "to where it went, from below"
    )
    assert low <= 56.0 + DEFAULT.surge_margin * 40.0 - 16.0


@pytest.mark.parametrize(
    ("lasted_s", "is_steep", "times"),
    [
        (0.0, False, 2.0),
        (30.0, False, 2.0 * sqrt(2.0 / 3.0)),
        (60.0, False, 2.0 * sqrt(2.0 / 4.0)),
        (600.0, False, 1.0),
        (600.0, True, 2.0),
    ],
)
def test_of_a_slope_the_less_is_kept_the_more_rises_of_it_were_seen(
    lasted_s: float, is_steep: bool, times: float
) -> None:
    """And never less than the largest of them; those of a crowd that gathers at once are one."""
    first_s = 700.0 - lasted_s
    seen = Surge(700.0, 0.5, 0.5, 10.0, 100.0, first_s, is_steep=is_steep)
    assert spare(Surges((seen,)), 100.0, 100.0, 710.0, DEFAULT) == pytest.approx(times * 0.5 * sqrt(100.0))


def test_a_spike_may_be_followed_by_another_on_top_of_what_is_held() -> None:
    spike = lived([(0.0, 16.0), (600.0, 56.0), (615.0, 16.0)], 700.0)
    (surge,) = spike.seen
    assert not surge.stayed
    slots = DEFAULT.surge_factor * surge.size * sqrt(56.0)
    assert spare(spike, 56.0, 56.0, 700.0, DEFAULT) == pytest.approx(
        min(slots, DEFAULT.surge_spare_max * 56.0)
    )
    later = lived([(0.0, 16.0), (600.0, 56.0), (615.0, 16.0)], 1_100.0)
    assert not later.seen[0].stayed, "the load is near what is held by then, and far from what it reached"


def test_a_rise_that_goes_on_has_not_stayed_yet() -> None:
    """Each further rise begins anew; a lull between does not count."""
    rising = lived([(0.0, 16.0), (600.0, 46.0), (620.0, 70.0), (640.0, 100.0)], 660.0)
    assert [surge.stayed for surge in rising.seen] == [False]
    assert [surge.stayed for surge in lived([(0.0, 16.0), (600.0, 46.0)], 660.0).seen] == [True]


def test_a_ramp_has_not_arrived_while_it_rises() -> None:
    """Its first steps stand out from the noise of a small load, its last do not: it rises all the same."""
    ramp = lived([(0.0, 16.0), *[(600.0 + 5 * i, 16.0 + 2 * i) for i in range(60)]], 895.0)
    (surge,) = ramp.seen
    assert surge.at_s < 800.0
    assert not surge.stayed
    assert surge.reached > 0.9 * 134.0


def test_a_jump_to_another_level_is_no_surge() -> None:
    surges = lived([(0.0, 8.0), (600.0, 24.0), (605.0, 80.0)], 1_200.0)
    assert [surge.jump for surge in surges.seen] == [True]
    assert spare(surges, 80.0, 80.0, 700.0, DEFAULT) == 0.0


def test_a_jump_that_comes_again_is_a_surge() -> None:
    jumps = lived([(0.0, 8.0), (600.0, 80.0), (630.0, 8.0), (1_000.0, 80.0), (1_030.0, 8.0)], 1_450.0)
    assert [surge.jump for surge in jumps.seen] == [True, True]
    assert spare(jumps, 8.0, 8.0, 1_450.0, DEFAULT) == DEFAULT.surge_spare_max * 8.0


def test_a_jump_in_steps_is_a_jump_and_a_ramp_is_none() -> None:
    steps = lived([(0.0, 8.0), (600.0, 20.0), (605.0, 30.0), (610.0, 42.0)], 700.0)
    assert [surge.jump for surge in steps.seen] == [True], "tripled within seconds, and again"
    ramp = lived([(0.0, 8.0), *[(600.0 + 5 * i, 8.0 + 2 * i) for i in range(40)]], 900.0)
    assert [surge.jump for surge in ramp.seen] == [False], "ten times as much, in minutes"


def test_a_surge_from_near_what_is_held_is_not_due_while_the_load_is_far_below() -> None:
    """A ramp that repeats: what comes next has to pass what is held already."""
    up = [(600.0 + 5 * i, 16.0 + 2 * i) for i in range(26)]
    ramp = lived([(0.0, 16.0), *up, (730.0, 16.0)], 800.0)
    (surge,) = ramp.seen
    assert surge.begun > 0.4
    assert not surge.stayed
    assert spare(ramp, 60.0, 66.0, 850.0, DEFAULT) > 0.0
    assert spare(ramp, 20.0, 66.0, 850.0, DEFAULT) == 0.0


def test_a_revision_that_takes_over_remembers_surges_by_its_own_clock() -> None:
    old = State(observed_s=2_000.0, surges=Surges((Surge(1_900.0, 4.0, 0.5, 16.0, 32.0, 1_890.0),)))
    (surge,) = inherit(old, State(observed_s=5.0)).surges.seen
    assert surge == Surge(-95.0, 4.0, 0.5, 16.0, 32.0, -105.0)


def test_a_crowd_out_of_a_lull_is_due_in_the_lull() -> None:
    crowds = lived([(0.0, 16.0), (400.0, 3.0), (600.0, 36.0), (630.0, 3.0)], 700.0)
    assert spare(crowds, 3.0, 36.0, 700.0, DEFAULT) > 0.0


def test_what_is_kept_is_bounded_by_the_load() -> None:
    surges = Surges((Surge(0.0, 100.0, 0.5, 200.0, 204.0, 0.0),))
    assert spare(surges, 4.0, 4.0, 10.0, DEFAULT) == DEFAULT.surge_spare_max * 4.0


def test_the_first_minute_knows_nothing_of_what_is_usual() -> None:
    assert lived([(0.0, 1.0), (30.0, 3.0)], 200.0).seen == ()


def test_only_so_many_are_remembered() -> None:
    loads = [(0.0, 16.0)]
    for number in range(100):
        begin_s = 400.0 * (number + 1)
        loads += [(begin_s, 36.0), (begin_s + 20.0, 16.0)]
    surges = lived(loads, 40_000.0)
    assert len(surges.seen) == SURGES_MAX
    assert all(surge.at_s > 40_000.0 - DEFAULT.rhythm_window_s for surge in surges.seen)
    assert len(surges.prepared) < 20
