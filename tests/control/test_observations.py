"""The newest signals: rates, gauges, quantiles, and what is unknown."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trimtab.control.observations import BATCH_MAX, ENVOYS_MAX, FRESH_S, LOOK_BACK_S, LoadNow, Observations
from trimtab.core.names import EndpointName
from trimtab.core.pod import Pod, PodPhase
from trimtab.core.revision import RevisionKey
from trimtab.core.signals import CertificatesSignal, EnvoySignal, LatencySignal, PodsSignal, RevisionSignal

KEY = RevisionKey(EndpointName("default", "iris"), 1)
POD = Pod("p", KEY, PodPhase.READY, "127.0.0.1", 9, 1, 0.0)


def signal(at_s: float, arrivals: int = 0, envoy: str = "a", **other: object) -> RevisionSignal:
    base = RevisionSignal(KEY, envoy, at_s, 1.0, arrivals, 0, 0, 0, 0, 0, 0.0)
    return base._replace(**other)  # type: ignore[arg-type]


def saw(*signals: RevisionSignal) -> Observations:
    found = Observations()
    for one in signals:
        found.add((one,), None, ())
    return found


def test_nothing_seen_is_unknown_and_not_zero() -> None:
    assert saw().load(KEY, 100.0) == LoadNow()
    assert saw(signal(80.0, 9)).load(KEY, 100.0) == LoadNow()
    assert saw(signal(100.0)).load(KEY, 100.0).requests_per_s == 0.0


def test_rates_are_means_over_the_time_that_was_reported() -> None:
    load = saw(*(signal(90.0 + s, 10, rejected=2, failed=1) for s in range(11))).load(KEY, 100.0)
    assert (load.requests_per_s, load.rejected_per_s, load.failed_per_s) == (10.0, 2.0, 1.0)
    slow = saw(signal(99.0, 10, period_s=4.0), signal(100.0, 2, period_s=2.0)).load(KEY, 100.0)
    assert slow.requests_per_s == 2.0


def test_each_envoy_counts_for_the_time_for_which_it_reported() -> None:
    told = [signal(91.0 + s, 100, envoy="old") for s in range(10)]
    load = saw(*told, signal(100.0, 0, envoy="new")).load(KEY, 100.0)
    assert load.requests_per_s == 100.0, "an Envoy that came just now halves nothing"


def test_gauges_are_the_last_of_each_envoy_while_they_are_fresh() -> None:
    seen = saw(
        signal(97.0, in_flight=50, queued=50, envoy="a"),
        signal(99.0, in_flight=3, queued=1, envoy="a"),
        signal(98.0, in_flight=4, queued=0, envoy="b"),
        signal(92.0, in_flight=90, queued=9, envoy="gone"),
    )
    load = seen.load(KEY, 100.0)
    assert (load.in_flight, load.queued) == (7, 1)
    later = seen.load(KEY, 99.0 + FRESH_S + 0.1)
    assert (later.in_flight, later.queued) == (None, None)
    assert later.requests_per_s == 0.0


def test_the_median_is_weighted_and_the_p99_is_the_worst() -> None:
    found = saw(signal(100.0))
    quick, slow = LatencySignal(KEY, "a", 99.0, 90, 0.1, 0.3), LatencySignal(KEY, "b", 100.0, 10, 1.1, 2.0)
    old, empty = LatencySignal(KEY, "a", 80.0, 900, 9.0, 9.0), LatencySignal(KEY, "a", 100.0, 0, 9.0, 9.0)
    found.add((), None, (quick, slow, old, empty))
    load = found.load(KEY, 100.0)
    assert (load.p50_s, load.p99_s) == (pytest.approx(0.2), 2.0)
    bare = saw(signal(100.0)).load(KEY, 100.0)
    assert (bare.p50_s, bare.p99_s) == (None, None)


def test_what_is_taken_is_taken_once_and_still_counts_as_recent() -> None:
    found = saw(signal(99.0, 1), signal(100.0, 2))
    assert [s.arrivals for s in found.take(KEY)] == [1, 2]
    assert found.take(KEY) == ()
    assert found.take(RevisionKey(KEY.endpoint, 2)) == ()
    assert found.load(KEY, 100.0).requests_per_s == 1.5


def test_signals_that_nobody_takes_are_bounded() -> None:
    found = saw(*(signal(float(second), second) for second in range(BATCH_MAX + 50)))
    taken = found.take(KEY)
    assert len(taken) == BATCH_MAX
    assert taken[-1].arrivals == BATCH_MAX + 49


def test_a_pod_is_seen_by_all_envoys_and_only_while_fresh() -> None:
    found = Observations()
    for envoy, at_s, in_flight in (("a", 98.0, 9), ("a", 99.0, 2), ("b", 100.0, 3)):
        found.add((), PodsSignal(envoy, at_s, {POD.address: in_flight}), ())
    assert found.in_flight(POD, 100.0) == (99.0, 5)
    assert found.in_flight(POD, 99.0 + FRESH_S + 0.5) == (100.0, 3)
    assert found.in_flight(POD, 100.0 + FRESH_S + 0.1) is None
    assert found.in_flight(replace(POD, port=1), 100.0) is None


def test_a_pod_is_known_once_every_envoy_has_told_of_it() -> None:
    """One that says nothing may have requests there: unknown is not zero."""
    found = Observations()
    found.add((), PodsSignal("a", 99.0, {POD.address: 0}), ())
    assert found.in_flight(POD, 100.0, {"a", "b"}) is None
    found.add((), PodsSignal("b", 99.5, {"10.0.0.9:80": 1}), ())
    assert found.in_flight(POD, 100.0, {"a", "b"}) is None, "it has told of others"
    found.add((), PodsSignal("b", 99.5, {POD.address: 2}), ())
    assert found.in_flight(POD, 100.0, {"a", "b"}) == (99.0, 2)


def test_what_envoy_no_longer_tells_of_is_unknown() -> None:
    found = Observations()
    found.add((), PodsSignal("a", 99.0, {POD.address: 0}), ())
    found.add((), PodsSignal("a", 100.0, {}), ())
    assert found.in_flight(POD, 100.0) is None


def test_an_envoy_that_has_long_told_nothing_is_forgotten() -> None:
    found = Observations()
    for second in range(3):
        found.add((), PodsSignal(f"envoy-{second}", second * (FRESH_S + 1), {POD.address: 0}), ())
    assert found._pods.keys() == {"envoy-2"}


def test_a_pod_with_a_port_for_grpc_is_seen_whole_or_not_at_all() -> None:
    both = replace(POD, grpc_port=8001)
    found = Observations()
    found.add((), PodsSignal("a", 100.0, {both.address: 0}), ())
    assert found.in_flight(both, 100.0) is None, "nobody has told of gRPC"
    found.add((), PodsSignal("b", 99.0, dict(zip(both.addresses, (1, 2), strict=True))), ())
    assert found.in_flight(both, 100.0) == (99.0, 3)
    assert found.by_address(both, 100.0) == (1, 2)


def test_cores_used_between_two_looks_far_enough_apart() -> None:
    found = Observations()
    assert found.cpu_cores(POD, 0.0) is None, "nothing is read"
    assert found.cpu_cores(replace(POD, cpu_seconds=10.0), 0.0) is None
    assert found.cpu_cores(replace(POD, cpu_seconds=10.5), 1.0) is None, "too short to tell"
    assert found.cpu_cores(replace(POD, cpu_seconds=13.0), 2.0) == 1.5
    assert found.cpu_cores(replace(POD, cpu_seconds=14.0), 3.0) == 1.5
    assert found.cpu_cores(replace(POD, cpu_seconds=2.0), 6.0) == 0.0, "never negative"


def test_what_is_gone_is_forgotten() -> None:
    found = saw(signal(100.0, 5))
    other = RevisionKey(KEY.endpoint, 2)
    found.add((signal(100.0, 7)._replace(revision=other),), None, ())
    found.cpu_cores(replace(POD, cpu_seconds=1.0), 97.0)
    found.keep_only({KEY}, (POD,))
    assert found.load(other, 100.0) == LoadNow()
    assert found.load(KEY, 100.0).requests_per_s == 5.0
    found.keep_only({KEY}, ())
    assert found.cpu_cores(replace(POD, cpu_seconds=9.0), 100.0) is None


def test_the_window_has_an_end() -> None:
    found = saw(signal(100.0, 5))
    assert found.load(KEY, 100.0 + LOOK_BACK_S).requests_per_s == 5.0
    assert found.load(KEY, 100.1 + LOOK_BACK_S) == LoadNow()


def test_how_busy_envoys_are_is_a_mean_by_time_and_unknown_once_they_are_silent() -> None:
    found = Observations()
    for at_s, period_s, busy in ((95.0, 1.0, 1.0), (98.0, 1.0, 0.2), (100.0, 3.0, 0.6)):
        found.add_envoy(EnvoySignal("a", at_s, period_s, busy))
    found.add_envoy(EnvoySignal("b", 97.0, 1.0, 0.1))
    assert found.busy(100.5) == {"a": pytest.approx((0.2 + 3 * 0.6) / 4), "b": 0.1}
    assert found.busy(97.0 + FRESH_S + 0.1) == {"a": pytest.approx(0.5, abs=0.2)}
    assert found.busy(200.0) == {}


def test_certificates_of_envoys_that_are_silent_are_not_told_of() -> None:
    found = Observations()
    found.add_certificates(CertificatesSignal("a", 90.0, {"own": 1e9}))
    assert found.certificate_ends(90.0 + FRESH_S) == {("a", "own"): 1e9}
    assert found.certificate_ends(90.1 + FRESH_S) == {}
    found.add_certificates(CertificatesSignal("b", 100.0, {"own": 2e9, "callers": 3e9}))
    found.add_certificates(CertificatesSignal("b", 101.0, {"own": 4e9}))  # another one, and no TLS any more
    assert found.certificate_ends(101.0) == {("b", "own"): 4e9}


def test_no_more_envoys_are_remembered_than_there_may_be() -> None:
    found = Observations()
    for number in range(ENVOYS_MAX + 50):
        found.add_envoy(EnvoySignal(f"envoy-{number}", 100.0, 1.0, 0.1))
    assert len(found.busy(100.0)) <= ENVOYS_MAX


def test_whether_anybody_asked_since_the_last_take() -> None:
    found = saw(signal(99.0))
    assert not found.asked(KEY)
    for asks in ({"arrivals": 1}, {"in_flight": 1}, {"queued": 1}, {"rejected": 1}):
        found.add((signal(100.0, **asks), signal(101.0)), None, ())  # type: ignore[arg-type]
        assert found.asked(KEY), asks
        found.take(KEY)
        assert not found.asked(KEY)
    assert not found.asked(RevisionKey(KEY.endpoint, 2))
