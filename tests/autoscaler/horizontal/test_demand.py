"""Demand, by hand-worked numbers."""

from __future__ import annotations

from math import sqrt

import pytest

from trimtab.autoscaler.horizontal.arrivals import SlowRate
from trimtab.autoscaler.horizontal.demand import Given, Slots, drain_s, measure
from trimtab.autoscaler.horizontal.tuning import DEFAULT

ONE_POD = Slots(ready=1.0, expected=1.0, coming_s=(), per_pod=1.0, start_time_s=10.0)
TEN_PODS = ONE_POD._replace(ready=10.0, expected=10.0)
AT_REST = Given(
    asked=(10.0,) * 20,
    in_flight=(1.0,) * 5,
    queued=(0.0,) * 5,
    service_time_s=0.1,
    stalled_s=0.0,
    slots=TEN_PODS,
)
TEN_A_SECOND = SlowRate(600.0, 60.0)


def test_at_rest_demand_is_arrivals_times_service_time_and_headroom() -> None:
    demand = measure(AT_REST, TEN_A_SECOND, DEFAULT)
    assert demand.load == pytest.approx(1.0)
    assert demand.total == pytest.approx(1.0 + DEFAULT.headroom)


def test_a_backlog_adds_what_drains_it_in_time_and_no_more() -> None:
    demand = measure(AT_REST._replace(queued=(600.0,) * 5), TEN_A_SECOND, DEFAULT)
    assert demand.backlog == pytest.approx(600 * 0.1 / drain_s(TEN_PODS, DEFAULT))


def test_the_spare_slots_are_those_that_drain() -> None:
    demand = measure(AT_REST._replace(queued=(5.0,) * 5), TEN_A_SECOND, DEFAULT)
    assert demand.total == pytest.approx(1.0 + DEFAULT.headroom)


def test_who_waits_a_minute_for_pods_may_wait_six_seconds_more() -> None:
    assert drain_s(ONE_POD, DEFAULT) == 3.0
    assert drain_s(ONE_POD._replace(start_time_s=60.0), DEFAULT) == pytest.approx(6.0)


def test_a_queued_request_needs_one_slot_at_most() -> None:
    given = AT_REST._replace(asked=(0.0,) * 20, service_time_s=500.0, queued=(7.0,) * 5)
    assert measure(given, SlowRate(), DEFAULT).backlog == 7.0


def test_a_queue_of_unknown_service_time_says_nothing() -> None:
    given = AT_REST._replace(service_time_s=0.0, in_flight=(0.0,) * 5, queued=(845.0,) * 5)
    assert measure(given, TEN_A_SECOND, DEFAULT).total == 0.0


def test_a_rise_that_has_lasted_for_long_will_queue_until_pods_are_ready() -> None:
    """100/s of 0.1 s on one slot: nine of ten wait. After 5 s of it, all of a start will be like that."""
    slots = ONE_POD._replace(start_time_s=14.0)
    risen = AT_REST._replace(asked=(5.0,) * 15 + (100.0,) * 5, queued=(0.0,) * 4 + (0.1,), slots=slots)
    demand = measure(risen, SlowRate(300.0, 60.0), DEFAULT)
    assert demand.backlog == pytest.approx((demand.load - 1.0) * 14.0 / 3.0, abs=0.01)
    one_second = risen._replace(asked=(5.0,) * 19 + (100.0,))
    short = measure(one_second, SlowRate(300.0, 60.0), DEFAULT)
    assert short.backlog == pytest.approx((short.load - 1.0) * DEFAULT.lindy / 3.0, abs=0.01)
    assert measure(risen._replace(queued=(0.0,) * 5), SlowRate(300.0, 60.0), DEFAULT).backlog == 0.0


def test_pods_that_are_coming_bring_that_backlog_down() -> None:
    risen = AT_REST._replace(asked=(5.0,) * 15 + (100.0,) * 5, queued=(0.0,) * 4 + (0.1,), slots=ONE_POD)
    coming = risen._replace(slots=ONE_POD._replace(expected=11.0, coming_s=(2.0,) * 10))
    slow = SlowRate(300.0, 60.0)
    without, with_them = measure(risen, slow, DEFAULT), measure(coming, slow, DEFAULT)
    assert without.backlog - with_them.backlog == pytest.approx(10 * 8.0 / 3.0)


def test_a_forecast_of_backlog_is_bounded_by_the_load() -> None:
    slow_start = ONE_POD._replace(start_time_s=600.0)
    risen = AT_REST._replace(asked=(1000.0,) * 20, in_flight=(500.0,) * 5, slots=slow_start)
    demand = measure(risen, SlowRate(60_000.0, 60.0), DEFAULT)
    assert demand.backlog <= DEFAULT.backlog_max * demand.load


def test_streams_count_before_any_has_completed() -> None:
    given = AT_REST._replace(service_time_s=0.0, in_flight=(64.0,) * 5, stalled_s=30.0)
    wide = given._replace(slots=TEN_PODS._replace(ready=100.0))
    assert measure(wide, TEN_A_SECOND, DEFAULT).total == pytest.approx(64 + DEFAULT.headroom * 8)


def test_held_requests_bound_demand_from_below_and_a_moment_does_not() -> None:
    held = AT_REST._replace(in_flight=(9.0, 8.0, 9.0, 9.0, 9.0))
    moment = AT_REST._replace(in_flight=(1.0, 1.0, 1.0, 1.0, 2.0))
    assert measure(held, TEN_A_SECOND, DEFAULT).total == pytest.approx(8.8)
    assert measure(moment, TEN_A_SECOND, DEFAULT).total == pytest.approx(1.2)


def test_what_a_backlog_keeps_in_flight_is_not_lasting() -> None:
    given = AT_REST._replace(in_flight=(10.0,) * 5, queued=(50.0,) * 5)
    demand = measure(given, TEN_A_SECOND, DEFAULT)
    assert demand.total >= 10.0
    assert demand.lasting == pytest.approx(1.0 + DEFAULT.headroom)


def test_one_request_of_minutes_is_not_read_as_dozens() -> None:
    given = AT_REST._replace(asked=(0.0,) * 19 + (1.0,), service_time_s=120.0)
    assert measure(given, SlowRate(1.0, 60.0), DEFAULT).total < 2.5


def test_headroom_follows_the_root_of_the_load() -> None:
    heavy = AT_REST._replace(
        asked=(1000.0,) * 20, in_flight=(100.0,) * 5, slots=TEN_PODS._replace(ready=200.0)
    )
    demand = measure(heavy, SlowRate(60_000.0, 60.0), DEFAULT)
    usual = 100.0 - DEFAULT.doubt_max / 100.0
    assert demand.load + demand.headroom == pytest.approx(usual + DEFAULT.chance * sqrt(usual), abs=0.1)


def test_what_short_windows_show_beyond_the_usual_is_headroom_already() -> None:
    """A second of twice as much is more than the root of what is usual; beside it a little is kept free."""
    asked = (1000.0,) * 17 + (2000.0,) + (1000.0,) * 2
    bursty = AT_REST._replace(asked=asked, slots=TEN_PODS._replace(ready=200.0))
    demand = measure(bursty, SlowRate(60_000.0, 60.0), DEFAULT)
    assert demand.load > 150.0
    assert demand.headroom == pytest.approx(DEFAULT.headroom * sqrt(demand.load))


def test_requests_of_minutes_that_have_just_begun_are_not_usual_yet() -> None:
    given = AT_REST._replace(asked=(0.5,) * 20, in_flight=(10.0,) * 5, service_time_s=600.0)
    assert measure(given, SlowRate(30.0, 60.0), DEFAULT).total < 10.0 + 20.0 + 10.0
