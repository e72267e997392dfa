"""Service time, by hand-worked numbers."""

from __future__ import annotations

import pytest

from trimtab.autoscaler.horizontal.service_time import ServiceTime, learn
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
