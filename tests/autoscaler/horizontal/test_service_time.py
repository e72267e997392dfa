"""Service time, by hand-worked numbers."""

from __future__ import annotations

import pytest

from trimtab.autoscaler.horizontal.demand import Slots
from trimtab.autoscaler.horizontal.service_time import (
    NEVER_FULL,
    FullTime,
    ServiceTime,
    is_full,
    learn,
    learn_full,
)
from trimtab.autoscaler.horizontal.tuning import DEFAULT
from trimtab.autoscaler.horizontal.windows import Evidence

KNOWN = ServiceTime(0.1, 1_000.0)


def quiet(completions: float, each_s: float) -> Evidence:
    return Evidence(
        completions=completions, quiet_completions=completions, quiet_request_s=completions * each_s
    )


def busy(completions: float, in_flight: float) -> Evidence:
    return Evidence(completions=completions, in_flight_s=in_flight * 5)


def learned(known: ServiceTime | None, *seen: Evidence) -> float:
    for evidence in seen:
        known = learn(known, evidence, 5.0, DEFAULT)
    assert known is not None
    return known.mean_s


def test_the_first_requests_give_the_service_time() -> None:
    assert learn(None, quiet(2, 0.3), 5.0, DEFAULT) == ServiceTime(0.3, 2)


def test_a_saturated_start_gives_it_by_what_is_in_flight() -> None:
    assert learned(None, busy(25, 1)) == pytest.approx(0.2)  # one slot, five a second


def test_nothing_completed_leaves_it_unknown() -> None:
    assert learn(None, Evidence(in_flight_s=20), 5.0, DEFAULT) is None
    assert learn(KNOWN, Evidence(), 5.0, DEFAULT) is KNOWN


def test_a_slow_first_request_is_soon_outweighed() -> None:
    assert learned(ServiceTime(3.0, 1), quiet(99, 0.1)) < 0.14


def test_while_requests_are_queued_it_creeps_up_and_falls_freely() -> None:
    assert learned(KNOWN, busy(500, 1000)) == pytest.approx(0.13)
    assert learned(KNOWN, busy(500, 5)) < 0.09


@pytest.mark.parametrize("evidence", [quiet(100, 0.3), busy(100, 6)], ids=["quiet", "saturated"])
def test_a_model_that_became_three_times_slower_is_followed(evidence: Evidence) -> None:
    known = ServiceTime(0.1, 100.0 * DEFAULT.service_window_s / 5.0)  # at rest with 100 each decision
    assert learned(known, *[evidence] * 60) == pytest.approx(0.3, rel=0.1)


def test_a_saturated_model_that_became_slower_is_followed_within_a_minute() -> None:
    known = ServiceTime(0.1, 100.0 * DEFAULT.service_window_s / 5.0)
    assert learned(known, *[busy(100, 6)] * 12) == pytest.approx(0.3, rel=0.1)


def test_the_stragglers_of_a_burst_do_not_pass_for_the_usual() -> None:
    """1,000 requests of 1 s, then for half a minute only the longest of them complete: 20 of 30 s."""
    burst = quiet(1_000, 1.0)
    stragglers = [quiet(3, 30.0)] * 6
    assert learned(burst_known := ServiceTime(1.0, 20_000.0), burst, *stragglers) < 1.1
    assert burst_known.mean_s == 1.0


def test_one_wild_signal_is_not_believed() -> None:
    wild = Evidence(completions=5, quiet_completions=5, quiet_request_s=1e8)
    assert learned(KNOWN, wild) == pytest.approx(0.1 * DEFAULT.service_growth)
    assert learned(KNOWN, wild, *[quiet(100, 0.1)] * 48) < 0.12


def test_nothing_is_not_a_trap() -> None:
    """A service time that rounded to nothing grows again while requests are queued."""
    assert learned(ServiceTime(0.0, 1_000.0), *[busy(100, 6)] * 40) > 0.2


PODS = Slots(ready=16.0, expected=16.0, coming_s=(), per_pod=8.0, start_time_s=10.0)
FULL, HALF, EMPTY = (15.0,) * 5, (8.0,) * 5, (0.0,) * 5


Seen = tuple[Evidence, tuple[float, ...], tuple[float, ...]]


def full_time(
    *seen: Seen, slots: Slots = PODS, known: FullTime = NEVER_FULL, from_s: float = 0.0
) -> FullTime:
    """After decisions, each 5 s, with (evidence, in flight, queued)."""
    for number, (evidence, in_flight, queued) in enumerate(seen):
        if is_full(in_flight, slots, DEFAULT):
            known = learn_full(known, evidence, queued, slots, from_s + 5.0 * number, DEFAULT)
    return known


def test_what_requests_take_in_full_pods_is_remembered_and_counts_where_it_is_longer() -> None:
    """A batch that takes 1.0 s full and 0.8 s as it is now: pods are counted by 1.0 s, less the doubt."""
    known = full_time(*[(quiet(80, 1.0), FULL, EMPTY)] * 10)
    assert 0.9 < known.counts_s(0.8, PODS, 300.0, DEFAULT) < 1.0
    assert known.counts_s(1.2, PODS, 300.0, DEFAULT) == 1.2
    disturbed = known.counts_s(0.1, PODS, 300.0, DEFAULT)
    assert disturbed == pytest.approx(0.1 * DEFAULT.busy_growth)


def test_where_a_few_queue_it_is_what_is_in_flight_over_the_completions() -> None:
    known = full_time((busy(80, 16), (16.0,) * 5, (3.0,) * 5))
    assert known.mean_s == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("evidence", "in_flight", "queued"),
    [
        (quiet(80, 1.0), (15.0, 15.0, 15.0, 9.0, 15.0), EMPTY),  # not full all the time
        (quiet(15, 5.0), FULL, EMPTY),  # a few long ones fill them
        (busy(80, 16), (16.0,) * 5, (0.0, 0.0, 0.0, 0.0, 17.0)),  # more wait than are served
        (Evidence(in_flight_s=80.0), FULL, EMPTY),  # none completes
    ],
    ids=["not full", "long ones", "overload", "none"],
)
def test_what_tells_nothing_of_full_pods_is_not_learned(
    evidence: Evidence, in_flight: tuple[float, ...], queued: tuple[float, ...]
) -> None:
    assert full_time((evidence, in_flight, queued)) == NEVER_FULL


def test_one_request_alone_is_with_no_other_and_another_limit_is_learned_anew() -> None:
    alone = PODS._replace(per_pod=1.0)
    assert full_time((quiet(80, 1.0), FULL, EMPTY), slots=alone) == NEVER_FULL
    known = full_time(*[(quiet(80, 1.0), FULL, EMPTY)] * 10)
    assert known.requests == pytest.approx(800, rel=0.02)
    other = PODS._replace(per_pod=4.0)
    assert known.counts_s(0.8, other, 50.0, DEFAULT) == 0.8
    anew = full_time((quiet(80, 0.5), FULL, EMPTY), slots=other, known=known, from_s=50.0)
    assert anew == FullTime(0.5, 80.0, 4.0, 50.0)


def test_it_is_forgotten_within_hours_that_do_not_show_it() -> None:
    known = full_time(*[(quiet(80, 1.0), FULL, EMPTY)] * 10)
    assert known.counts_s(0.8, PODS, 7_200.0, DEFAULT) == 0.8
