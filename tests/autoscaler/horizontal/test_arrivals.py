"""The rate that must be served: by hand, and against a queue that is served at it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.autoscaler.horizontal.arrivals import SlowRate, needed_rate, usual_rate
from trimtab.autoscaler.horizontal.tuning import DEFAULT

NONE = SlowRate()


def test_an_even_load_needs_its_rate() -> None:
    assert needed_rate([10.0] * 20, 0.1, SlowRate(600.0, 60.0), DEFAULT) == pytest.approx(10.0)


def test_a_step_is_seen_in_its_first_second() -> None:
    rate = needed_rate([10.0] * 19 + [100.0], 0.1, SlowRate(600.0, 60.0), DEFAULT)
    assert rate == pytest.approx(96.0 / 1.03)  # four less: what chance may be


def test_what_arrives_within_a_service_time_needs_a_slot_each_and_no_more() -> None:
    """304 requests of 10 s in one second: 300 slots, not 3,000."""
    rate = needed_rate([0.0] * 19 + [304.0], 10.0, NONE, DEFAULT)
    assert rate * 10.0 == pytest.approx(300.0)


def test_a_burst_counts_for_one_decision_in_short_windows() -> None:
    burst_now = needed_rate([0.0] * 15 + [54.0] + [0.0] * 4, 0.1, NONE, DEFAULT)
    burst_then = needed_rate([0.0] * 14 + [54.0] + [0.0] * 5, 0.1, NONE, DEFAULT)
    assert burst_now == pytest.approx(50.0 / 1.03)
    assert burst_then < burst_now / 1.5


def test_without_arrivals_the_slow_mean_remains_as_far_as_chance_explains_it() -> None:
    assert needed_rate([0.0] * 20, 0.1, SlowRate(24.0, 60.0), DEFAULT) == pytest.approx(0.4)
    none_of_nine = DEFAULT.slow_doubt**2 / 20.0  # nine are expected at most, where none comes in 20 s
    assert needed_rate([0.0] * 20, 0.1, SlowRate(60.0, 60.0), DEFAULT) == pytest.approx(none_of_nine)


def test_a_load_that_has_fallen_is_not_held_by_its_slow_mean() -> None:
    rate = needed_rate([10.0] * 20, 0.1, SlowRate(6_000.0, 60.0), DEFAULT)
    assert 10.0 < rate < 13.0  # 200 came of at most 247
    fewer_known = needed_rate([10.0] * 19, 0.1, SlowRate(6_000.0, 60.0), DEFAULT)
    assert fewer_known == pytest.approx(100.0)


@given(st.integers(0, 10_000))
def test_the_most_that_may_be_is_three_errors_above_what_came(came: int) -> None:
    most = needed_rate([came / 20.0] * 20, 0.001, SlowRate(1e9, 60.0), DEFAULT) * 20.0
    assert most - DEFAULT.slow_doubt * most**0.5 == pytest.approx(came, abs=1e-3)


def test_the_usual_rate_is_that_of_the_last_seconds_but_for_chance() -> None:
    assert usual_rate([0.0] * 10 + [100.0] * 10, DEFAULT) == pytest.approx(99.6)
    assert usual_rate([0.0] * 19 + [4.0], DEFAULT) == 0.0
    assert usual_rate([100.0] * 5, DEFAULT) == pytest.approx(49.6)  # what was before is not known to be more


@given(st.lists(st.integers(0, 200), min_size=1, max_size=5), st.floats(0.01, 0.5))
def test_at_that_rate_no_second_nor_all_of_them_make_anybody_wait_longer_than_planned(
    asked: list[int], service_time_s: float
) -> None:
    """But for the few requests that may be chance: what comes in w seconds is served in w and the wait."""
    rate = needed_rate([float(count) for count in asked], service_time_s, NONE, DEFAULT)
    wait_s = max(DEFAULT.wait_min_s, DEFAULT.wait_share * service_time_s)
    busiest = max(asked) - DEFAULT.doubt_max
    assert busiest <= rate * (1.0 + wait_s) + 1e-6
    if len(asked) == 5:
        assert sum(asked) - DEFAULT.doubt_max <= rate * (5.0 + wait_s) + 1e-6


def test_few_requests_that_meet_prove_nothing() -> None:
    assert needed_rate([0.0] * 19 + [4.0], 0.2, NONE, DEFAULT) == 0.0
