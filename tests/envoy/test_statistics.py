"""From messages to signals, without Envoy: what is split, missing, late, restarted or nonsense."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.envoy.messages import HTTP, message
from trimtab.core.clock import ManualClock
from trimtab.core.names import EndpointName
from trimtab.core.revision import RevisionKey
from trimtab.core.signals import CertificatesSignal, EnvoySignal, PodsSignal
from trimtab.envoy import intake as intake_module
from trimtab.envoy.intake import StatisticsIntake
from trimtab.envoy.otlp import MalformedError, joined, parse
from trimtab.envoy.statistics import Signals, signals_of

IRIS = RevisionKey(EndpointName("default", "iris"), 1)


def signals(data: bytes, at_s: float = 100.0) -> Signals:
    return signals_of(parse(data), None, at_s)[0]


def test_a_quiet_cluster_is_quiet_and_not_unknown() -> None:
    quiet = signals(message([("membership_total", HTTP, 3), ("upstream_rq_total", "control_plane", 1)]))
    (found,) = quiet.revisions
    assert (found.revision, found.envoy, found.at_s, found.period_s) == (IRIS, "local", 100.0, 1.0)
    assert (found.arrivals, found.completions, found.in_flight, found.queued) == (0, 0, 0, 0)
    assert (found.rejected, found.failed, found.request_time_s) == (0, 0, 0.0)
    assert quiet.latencies == ()


def test_a_cluster_that_is_not_mentioned_is_unknown() -> None:
    assert signals(message([("upstream_rq_total", "control_plane", 1)])) == Signals()


@pytest.mark.parametrize(
    ("worked_us", "period_s", "busy"),
    [([250_000.0], 1, 0.25), ([0.0], 1, 0.0), ([1_000_000.0, 500_000.0], 2, 0.375), ([1.4e6], 1, 1.0)],
)
def test_how_busy_an_envoy_was_is_the_mean_of_its_workers(
    worked_us: list[float], period_s: float, busy: float
) -> None:
    data = message([("upstream_rq_total", HTTP, 1)], since_s=10 - period_s, worked_us=worked_us)
    assert signals(data).envoy == EnvoySignal("local", 100.0, period_s, busy)


def test_an_envoy_that_does_not_tell_is_unknown_and_not_idle() -> None:
    assert signals(message([("upstream_rq_total", HTTP, 1)])).envoy is None


@pytest.mark.parametrize(("state", "leaves"), [(None, ""), (0, ""), (1, "local"), (2, "")])
def test_an_envoy_that_drains_is_about_to_leave(state: int | None, leaves: str) -> None:
    assert signals(message([("upstream_rq_total", HTTP, 1)], state=state)).leaves == leaves


def test_workers_may_come_in_two_messages() -> None:
    parts = [message([("upstream_rq_total", HTTP, 1)], worked_us=[worked]) for worked in (2e5, 4e5)]
    told, _ = signals_of(joined(*map(parse, parts)), None, 100.0)
    assert told.envoy is not None
    assert told.envoy.busy == pytest.approx(0.3)


def test_until_when_the_certificates_of_an_envoy_are_good() -> None:
    told = {("cluster", "own"): 2_000_000_000, ("listener", "callers"): 3_000_000_000}
    found = signals(message([], uptime_s=1, certificates=told)).certificates
    assert found == CertificatesSignal("local", 100.0, {"own": 2_000_000_000, "callers": 3_000_000_000})
    assert signals(message([], uptime_s=1)).certificates is None


def test_of_one_that_is_told_twice_the_sooner_end_counts() -> None:
    parts = [message([], uptime_s=1, certificates={("listener", "callers"): ends}) for ends in (9, 7, 8)]
    first, second, third = map(parse, parts)
    told, _ = signals_of(joined(joined(first, second), third), None, 100.0)
    assert told.certificates is not None
    assert told.certificates.ends == {"callers": 7}


def test_both_clusters_of_a_revision_are_one_signal() -> None:
    both = signals(message([("upstream_rq_total", HTTP, 2), ("upstream_rq_total", f"{HTTP}/grpc", 3)]))
    assert [signal.arrivals for signal in both.revisions] == [5]


def test_second_tries_and_refused_requests_are_no_arrivals() -> None:
    counts = [("upstream_rq_total", HTTP, 9), ("upstream_rq_retry", HTTP, 4)]
    counts += [("upstream_rq_pending_overflow", HTTP, 3), ("upstream_rq_xx", HTTP, 5)]
    (found,) = signals(message(counts)).revisions
    assert (found.arrivals, found.rejected, found.failed) == (5, 3, 2)


def test_who_waits_arrived_when_the_wait_began() -> None:
    first, before = signals_of(parse(message([("upstream_rq_total", HTTP, 1)])), None, 100.0)
    waiting = [("upstream_rq_pending_active", HTTP, 7)]
    second, before = signals_of(parse(message(waiting, at_s=11, since_s=10)), before, 101.0)
    served = [("upstream_rq_total", HTTP, 7), ("upstream_rq_pending_active", HTTP, 0)]
    third, _ = signals_of(parse(message(served, at_s=12, since_s=11)), before, 102.0)
    assert [bundle.revisions[0].arrivals for bundle in (first, second, third)] == [1, 7, 0]


def test_who_waited_before_the_first_look_is_not_counted() -> None:
    waiting = [("upstream_rq_pending_active", HTTP, 7), ("upstream_rq_total", HTTP, 2)]
    assert signals(message(waiting)).revisions[0].arrivals == 2


def test_after_a_restart_of_envoy_nobody_waited_before() -> None:
    waiting = [("upstream_rq_pending_active", HTTP, 7), ("upstream_rq_total", HTTP, 2)]
    _, before = signals_of(parse(message(waiting, uptime_s=50)), None, 100.0)
    again = message([("upstream_rq_total", HTTP, 4)], at_s=12, since_s=0, uptime_s=1)
    found, _ = signals_of(parse(again), before, 102.5)
    assert (found.revisions[0].arrivals, found.revisions[0].period_s) == (4, 2.5)


def periods(*flushes: tuple[float, float, float]) -> list[float | None]:
    """Of each flush of one Envoy: (when it came, since when, until when by its own clock)."""
    before, found = None, []
    for came_s, since_s, at_s in flushes:
        flush = parse(message([("upstream_rq_total", HTTP, 10)], at_s=at_s, since_s=since_s))
        told, before = signals_of(flush, before, came_s)
        found.append(told.revisions[0].period_s if told.revisions else None)
    return found


@pytest.mark.parametrize("step_s", [-3600.0, -1.0, -0.9, -0.5, 0.0, 0.5, 5.0, 50.0, 3600.0])
def test_a_step_of_envoys_clock_makes_no_period_longer_or_shorter(step_s: float) -> None:
    clock = 10_000.0
    stepped = [(103.0, clock + 3, clock + 4 + step_s), (104.0, clock + 4 + step_s, clock + 5 + step_s)]
    told = periods((101.0, clock + 1, clock + 2), (102.0, clock + 2, clock + 3), *stepped)
    assert told == pytest.approx([1.0] * 4)


@pytest.mark.parametrize(
    ("came_s", "since_s", "at_s", "period_s"),
    [
        (102.0, 11.0, 12.0, 1.0),
        (103.5, 12.5, 13.5, 1.0),  # the one before was lost
        (105.0, 11.0, 12.0, 1.0),  # late on its way
        (101.0, 11.0, 12.0, 1.0),  # came with the one before, which was late
        (101.0, 10.0, 11.0, 1.0),  # the same once more
        (105.0, 11.0, 15.0, 4.0),  # Envoy itself was late
        (102.25, 0.0, 12.0, 1.25),  # Envoy does not say: it has started anew
        (103.0, 11.0, 11.1, 1.0),  # lost, and the clock was set back
    ],
)
def test_what_is_late_lost_or_repeated_has_the_period_that_it_covers(
    came_s: float, since_s: float, at_s: float, period_s: float
) -> None:
    assert periods((101.0, 10.0, 11.0), (came_s, since_s, at_s)) == pytest.approx([1.0, period_s])


def test_of_the_first_flushes_less_is_known() -> None:
    assert periods((101.0, 10.0, 11.0)) == [1.0], "there is nothing to compare it with"
    assert periods((101.0, 0.0, 11.0), (102.0, 11.0, 11.1)) == [None, 1.0], "the longer of two"
    assert periods((101.0, 10.0, 9.0), (102.0, 9.0, 10.0)) == [None, 1.0]
    assert periods((101.0, 10.9, 11.0), (102.0, 11.0, 12.0), (103.0, 12.0, 13.0)) == pytest.approx(
        [0.1, 1.0, 1.0]
    ), "a wrong one is not kept"


def test_without_any_period_there_are_gauges_of_pods_only() -> None:
    first = signals(message([("upstream_rq_total", HTTP, 4)], since_s=0, pods={"127.0.0.1:9": 2}))
    assert first.revisions == ()
    assert first.pods == PodsSignal("local", 100.0, {"127.0.0.1:9": 2})


def test_latency_comes_from_the_histogram() -> None:
    found = signals(message([("upstream_rq_total", HTTP, 4)], times={10.0: 99, 100.0: 1}))
    (latency,) = found.latencies
    assert latency.count == found.revisions[0].completions == 100
    assert latency.p50_s < 11e-3 <= latency.p99_s < 110e-3
    assert found.revisions[0].request_time_s == pytest.approx(0.1)


def test_a_flush_in_parts_is_the_same_as_a_whole_one() -> None:
    numbers = [("upstream_rq_total", HTTP, 9), ("upstream_rq_active", HTTP, 4), ("membership_total", HTTP, 1)]
    pods = {"127.0.0.1:1": 3, "127.0.0.1:2": 1}
    whole = parse(message(numbers, pods=pods, times={10.0: 5}))
    parts = joined(parse(message(numbers[1:], pods=pods)), parse(message(numbers[:1], times={10.0: 5})))
    assert signals_of(whole, None, 5.0) == signals_of(parts, None, 5.0)


def test_parts_of_different_flushes_do_not_join() -> None:
    first, second = (parse(message([("upstream_rq_total", HTTP, 1)], at_s=at_s)) for at_s in (10, 11))
    with pytest.raises(MalformedError):
        joined(first, second)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xff\xff",
        message([("upstream_rq_total", HTTP, 1)], node=""),
        message([]),
        message([("upstream_rq_total", HTTP, -1)]),
        message([("upstream_rq_total", HTTP, 1)], times={10.0: 1, 5.0: 1}),
    ],
    ids=["empty", "bytes", "nobody's", "no metric", "below zero", "falling bounds"],
)
def test_what_is_not_envoys_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse(data)


@given(st.binary(max_size=200), st.integers(0, 400))
def test_whatever_comes_is_read_or_refused(noise: bytes, position: int) -> None:
    good = message([("upstream_rq_total", HTTP, 1)], pods={"127.0.0.1:9": 2}, times={10.0: 1})
    try:
        flush = parse(good[:position] + noise + good[position + len(noise) :])
    except MalformedError:
        return
    signals_of(flush, None, 1.0)


async def test_a_flush_is_handed_on_when_its_last_part_has_come(
    collector: Any, eventually: Callable[..., Any]
) -> None:
    clock = ManualClock()
    intake = StatisticsIntake(clock, collector)
    intake.take(message([("upstream_rq_total", HTTP, 2)]))
    clock.advance(0.5)
    intake.take(message([("upstream_rq_active", HTTP, 1)]))
    assert collector.bundles == []
    await eventually(lambda: collector.bundles, "it is handed on")
    (signal,) = collector.of(IRIS)
    assert (signal.arrivals, signal.in_flight) == (2, 1)
    assert intake.age_s("local") == 0.5  # as old as its first message
    intake.take(message([("upstream_rq_total", HTTP, 2)]))
    assert (intake.received, intake.dropped, len(collector.bundles)) == (3, 1, 1)


async def test_a_part_that_waited_while_the_loop_was_busy_is_still_in_time(
    collector: Any, eventually: Callable[..., Any]
) -> None:
    intake, loop = StatisticsIntake(ManualClock(), collector), asyncio.get_running_loop()
    intake.take(message([("upstream_rq_total", HTTP, 1)]))
    while_busy_s = 2 * intake_module.SETTLE_S
    loop.call_later(1.2 * while_busy_s, intake.take, message([("upstream_rq_total", HTTP, 2)]))
    busy_until_s = loop.time() + while_busy_s
    while loop.time() < busy_until_s:
        pass  # as somebody else's work does
    await eventually(lambda: collector.bundles, "it is handed on")
    assert [signal.arrivals for signal in collector.of(IRIS)] == [3]
    assert intake.dropped == 0


async def test_the_next_flush_hands_on_the_one_before(collector: Any, eventually: Callable[..., Any]) -> None:
    intake = StatisticsIntake(ManualClock(), collector)
    for at_s in (10, 11, 12):
        intake.take(message([("upstream_rq_total", HTTP, at_s)], at_s=at_s, since_s=at_s - 1))
    await eventually(lambda: len(collector.bundles) == 2, "the first two")
    assert [signal.arrivals for signal in collector.of(IRIS)] == [10, 11]


async def test_envoys_are_kept_apart(collector: Any, eventually: Callable[..., Any]) -> None:
    intake = StatisticsIntake(ManualClock(), collector)
    for node in ("a", "b"):
        intake.take(message([("upstream_rq_total", HTTP, 1)], node=node))
    await eventually(lambda: len(collector.bundles) == 2, "both are handed on")
    assert {signal.envoy for signal in collector.of(IRIS)} == {"a", "b"}


async def test_envoys_are_bounded_and_silent_ones_forgotten(
    collector: Any, eventually: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_module, "NODES_MAX", 1)
    clock = ManualClock()
    intake = StatisticsIntake(clock, collector)
    intake.take(message([("upstream_rq_total", HTTP, 1)], node="a"))
    await eventually(lambda: collector.bundles, "it is handed on")
    intake.take(message([("upstream_rq_total", HTTP, 1)], node="b"))
    assert (intake.dropped, intake.age_s("b")) == (1, None)
    clock.advance(intake_module.FORGET_AFTER_S + 1)
    intake.take(message([("upstream_rq_total", HTTP, 1)], node="b"))
    await eventually(lambda: len(collector.bundles) == 2, "it is handed on")
    assert intake.age_s("a") is None
