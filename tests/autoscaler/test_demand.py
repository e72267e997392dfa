"""Service time and demand, by hand-worked numbers."""

from __future__ import annotations

import pytest

from trimtab.autoscaler.horizontal.demand import Given, ServiceTime, SlowRate, learn_service_time, measure
from trimtab.autoscaler.horizontal.tuning import DEFAULT
from trimtab.autoscaler.horizontal.windows import Evidence

KNOWN = ServiceTime(0.1, DEFAULT.settle_requests)
AT_REST = Given(
    asked=(10.0,) * 20,
    in_flight=(1.0,) * 5,
    queued=(0.0,) * 5,
    service_time_s=0.1,
    stalled_s=0.0,
    capacity=1.0,
    drain_s=10.0,
)
TEN_A_SECOND = SlowRate(600.0, 60.0)


def quiet(completions: float, each_s: float) -> Evidence:
    return Evidence(
        completions=completions, quiet_completions=completions, quiet_request_s=completions * each_s
    )


def busy(completions: float, in_flight: float) -> Evidence:
    return Evidence(completions=completions, in_flight_s=in_flight * 5)


def test_the_first_requests_give_the_service_time() -> None:
    assert learn_service_time(None, quiet(2, 0.3), DEFAULT) == ServiceTime(0.3, 2)


def test_a_saturated_start_gives_it_by_what_is_in_flight() -> None:
    learned = learn_service_time(None, busy(25, 1), DEFAULT)  # one slot, five a second
    assert learned is not None
    assert learned.mean_s == pytest.approx(0.2)


def test_nothing_completed_leaves_it_unknown() -> None:
    assert learn_service_time(None, Evidence(in_flight_s=20), DEFAULT) is None
    assert learn_service_time(KNOWN, Evidence(), DEFAULT) is KNOWN


def test_a_slow_first_request_is_soon_outweighed() -> None:
    learned = learn_service_time(ServiceTime(3.0, 1), quiet(99, 0.1), DEFAULT)
    assert learned is not None
    assert learned.mean_s < 0.14


def test_while_requests_are_queued_it_creeps_up_and_falls_freely() -> None:
    slower = learn_service_time(KNOWN, busy(500, 1000), DEFAULT)
    faster = learn_service_time(KNOWN, busy(500, 5), DEFAULT)
    assert slower is not None
    assert faster is not None
    assert slower.mean_s == pytest.approx(0.11)
    assert faster.mean_s == pytest.approx(0.1 - 0.2 * 0.05)


@pytest.mark.parametrize("evidence", [quiet(100, 0.3), busy(100, 6)], ids=["quiet", "saturated"])
def test_a_model_that_became_three_times_slower_is_followed_within_75_s(evidence: Evidence) -> None:
    known: ServiceTime | None = KNOWN
    for _ in range(15):
        known = learn_service_time(known, evidence, DEFAULT)
    assert known is not None
    assert known.mean_s == pytest.approx(0.3, rel=0.1)


def test_at_rest_demand_is_arrivals_times_service_time_and_headroom() -> None:
    demand = measure(AT_REST, TEN_A_SECOND, DEFAULT)
    assert (demand.load, demand.total) == pytest.approx((1.0, 1.5))


def test_a_backlog_adds_what_drains_it_in_time_and_no_more() -> None:
    demand = measure(AT_REST._replace(queued=(600.0,) * 5), TEN_A_SECOND, DEFAULT)
    assert demand.total == pytest.approx(1.0 + 600 * 0.1 / 10)


def test_the_spare_slots_are_those_that_drain() -> None:
    demand = measure(AT_REST._replace(queued=(40.0,) * 5), TEN_A_SECOND, DEFAULT)
    assert demand.total == pytest.approx(1.5)


def test_a_queued_request_needs_one_slot_at_most() -> None:
    given = AT_REST._replace(asked=(0.0,) * 20, service_time_s=500.0, queued=(7.0,) * 5)
    assert measure(given, SlowRate(), DEFAULT).backlog == 7.0


def test_a_queue_of_unknown_service_time_says_nothing() -> None:
    given = AT_REST._replace(service_time_s=0.0, in_flight=(0.0,) * 5, queued=(845.0,) * 5)
    assert measure(given, TEN_A_SECOND, DEFAULT).total == 0.0


def test_streams_count_before_any_has_completed() -> None:
    given = AT_REST._replace(service_time_s=0.0, in_flight=(64.0,) * 5, stalled_s=30.0)
    assert measure(given, TEN_A_SECOND, DEFAULT).total == pytest.approx(64 + 0.5 * 8)


def test_held_requests_bound_demand_from_below_and_a_moment_does_not() -> None:
    held = AT_REST._replace(in_flight=(9.0, 8.0, 9.0, 9.0, 9.0))
    moment = AT_REST._replace(in_flight=(1.0, 1.0, 1.0, 1.0, 9.0))
    assert measure(held, TEN_A_SECOND, DEFAULT).total == 8.0
    assert measure(moment, TEN_A_SECOND, DEFAULT).total == pytest.approx(1.5)


def test_one_request_of_minutes_is_not_read_as_dozens() -> None:
    given = AT_REST._replace(asked=(0.0,) * 19 + (1.0,), service_time_s=120.0)
    assert measure(given, SlowRate(1.0, 60.0), DEFAULT).total < 2.5


def test_a_jump_counts_after_two_seconds_of_it() -> None:
    jumped = AT_REST._replace(asked=(10.0,) * 18 + (100.0, 104.0))
    once = AT_REST._replace(asked=(10.0,) * 19 + (100.0,))
    assert measure(jumped, TEN_A_SECOND, DEFAULT).arrivals_per_s == 104.0
    assert measure(once, TEN_A_SECOND, DEFAULT).arrivals_per_s < 30.0


def test_few_requests_prove_little() -> None:
    """Nine in five seconds where a third of one was usual: chance would do so once in 10⁵ windows."""
    given = AT_REST._replace(asked=(0.0,) * 15 + (2.0, 2.0, 1.0, 2.0, 1.0), service_time_s=1.0)
    assert measure(given, SlowRate(18.0, 60.0), DEFAULT).total <= 1.0
