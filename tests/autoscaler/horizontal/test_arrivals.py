"""The rate that must be served: by hand, and against a queue that is served at it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

import pytest

from trimtab.autoscaler.horizontal.arrivals import SlowRate, needed_rate
from trimtab.autoscaler.horizontal.tuning import DEFAULT

NONE = SlowRate()


def test_an_even_load_needs_its_rate() -> None:
    assert needed_rate([10.0] * 20, 0.1, SlowRate(600.0, 60.0), DEFAULT) == pytest.approx(10.0)


def test_a_step_is_seen_in_its_first_second() -> None:
    rate = needed_rate([10.0] * 19 + [100.0], 0.1, SlowRate(600.0, 60.0), DEFAULT)
    assert rate == pytest.approx(100.0 / 1.03)


def test_what_arrives_within_a_service_time_needs_a_slot_each_and_no_more() -> None:
    """30 requests of 10 s in one second: 30 slots, not 300."""
    rate = needed_rate([0.0] * 19 + [30.0], 10.0, NONE, DEFAULT)
    assert rate * 10.0 == pytest.approx(30.0)


def test_a_burst_counts_for_one_decision_in_short_windows() -> None:
    burst_now = needed_rate([0.0] * 15 + [50.0] + [0.0] * 4, 0.1, NONE, DEFAULT)
    burst_then = needed_rate([0.0] * 14 + [50.0] + [0.0] * 5, 0.1, NONE, DEFAULT)
    assert burst_now == pytest.approx(50.0 / 1.03)
    assert burst_then < burst_now / 1.5


def test_without_arrivals_the_slow_mean_remains() -> None:
    assert needed_rate([0.0] * 20, 0.1, SlowRate(60.0, 60.0), DEFAULT) == pytest.approx(1.0)


@given(st.lists(st.integers(0, 200), min_size=1, max_size=5), st.floats(0.01, 0.5))
def test_served_at_that_rate_the_last_of_each_window_waits_no_longer_than_planned(
    asked: list[int], service_time_s: float
) -> None:
    """A fluid queue in which each second's arrivals come at its end: all windows are among those looked at."""
    rate = needed_rate([float(count) for count in asked], service_time_s, NONE, DEFAULT)
    wait_s = max(DEFAULT.wait_min_s, DEFAULT.wait_share * service_time_s)
    queued = 0.0
    for count in asked:
        queued = max(0.0, queued - rate) + count
        if rate:
            # The last of a window of w seconds may need the w seconds and the wait: here w = 1 at least.
            assert queued / rate <= len(asked) + wait_s + 1e-6
    busiest = max(asked)
    assert busiest <= rate * (1.0 + wait_s) + 1e-6
