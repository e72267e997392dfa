"""Real traffic through a real Envoy, counted exactly; and messages that nobody should send."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from trimtab.core.clock import SystemClock
from trimtab.core.names import EndpointName
from trimtab.core.revision import RevisionKey
from trimtab.envoy import metrics_pb2 as otlp
from trimtab.envoy.bootstrap import Bootstrap
from trimtab.envoy.intake import SERVICE, StatisticsIntake
from trimtab.host.ports import free_port

IRIS = RevisionKey(EndpointName("default", "iris"), 1)
QUIET = RevisionKey(EndpointName("default", "quiet"), 1)
EMPTY = RevisionKey(EndpointName("default", "empty"), 1)
BROKEN = RevisionKey(EndpointName("default", "broken"), 1)
READ = {
    "cluster.endpoint.rq_active",
    "cluster.membership_total",
    "cluster.upstream_rq_active",
    "cluster.upstream_rq_pending_active",
    "cluster.upstream_rq_time",
    "cluster.upstream_rq_total",
    "cluster.upstream_rq_xx",
    "listener_manager.worker_dispatcher.loop_duration_us",
    "server.state",
    "server.uptime",
}  # of a gateway without a certificate that nobody was refused by


@pytest.fixture
def bootstrap(home: Path) -> Bootstrap:
    return replace(Bootstrap.for_home(home), flush_interval_s=0.2, tells_busy=True)


class Kept(StatisticsIntake):
    """Keeps what came as it came."""

    def __init__(self, collector: Any) -> None:
        super().__init__(SystemClock(), collector)
        self.messages: list[bytes] = []

    def take(self, message: bytes) -> None:
        self.messages.append(message)
        super().take(message)


def _metrics(message: bytes) -> Iterator[otlp.Metric]:
    for resource in otlp.Metrics.FromString(message).resource_metrics:
        for scope in resource.scope_metrics:
            yield from scope.metrics


@pytest.fixture
async def intake(bootstrap: Bootstrap, collector: Any) -> AsyncIterator[Kept]:
    intake = Kept(collector)
    server = grpc.aio.server()
    intake.add_to(server)
    server.add_insecure_port(f"unix:{bootstrap.control_socket}")
    await server.start()
    yield intake
    await server.stop(None)


@pytest.fixture
async def gateway(
    intake: StatisticsIntake,
    bootstrap: Bootstrap,
    collector: Any,
    model: Any,
    start_gateway: Callable[..., Any],
    make_cluster: Callable[..., dict[str, Any]],
) -> Any:
    """An Envoy whose statistics come in; split over many messages, as a large one's are."""
    bootstrap = replace(bootstrap, data_points_max=15)
    clusters = [
        make_cluster("default/iris/r1", [model.port], limit=2, queue_max=3),
        make_cluster("default/quiet/r1", [model.port], limit=2, queue_max=3),
        make_cluster("default/empty/r1", [], limit=2, queue_max=3),
        make_cluster("default/broken/r1", [free_port("127.0.0.1")], limit=2, queue_max=100),
    ]
    gateway = await start_gateway(bootstrap, clusters)
    await collector.flushes(2)
    return gateway


async def test_answers_are_counted_exactly(gateway: Any, collector: Any) -> None:
    codes = [200] * 10 + [500] * 2 + [503]
    for code in codes:
        assert await gateway.get(f"default/iris/r1?code={code}") == code
    await collector.flushes(3)
    # The 503 was tried three times; it is one request all the same.
    assert collector.sums(IRIS) == {"arrivals": 13, "completions": 13, "rejected": 0, "failed": 3}
    assert sum(latency.count for latency in collector.latencies(IRIS)) == 13


async def test_what_nobody_reads_is_not_sent(gateway: Any, collector: Any, intake: Kept) -> None:
    for code in (200, 500):
        assert await gateway.get(f"default/iris/r1?code={code}") == code
    await collector.flushes(3)
    told = [[metric.name for metric in _metrics(message)] for message in intake.messages]
    names = set(itertools.chain.from_iterable(told))
    assert names == READ, "of a pod what is in flight there, of a cluster what became of its requests"
    assert all(len(set(each)) == len(each) for each in told), "points of one name come together"


async def test_a_pods_envoy_tells_how_busy_its_worker_was(gateway: Any, collector: Any) -> None:
    await collector.flushes(5)
    idle = len(collector.bundles)

    async def call() -> None:
        for _ in range(150):
            assert await gateway.get("default/iris/r1") == 200

    await asyncio.gather(*(call() for _ in range(2)))
    await collector.flushes(3)
    told = [bundle.envoy for bundle in collector.bundles]
    assert None not in told[1:]
    before = [each.busy for each in told[2:idle]]
    during = [each.busy for each in told[idle:]]
    assert all(0 < busy < 1 for busy in before), "at rest it has its flushes to do"
    assert max(during) > 2 * sum(before) / len(before)
    assert {each.envoy for each in told[1:]} == {"local"}


async def test_a_full_queue_refuses_and_says_how_many_wait(
    gateway: Any, collector: Any, model: Any, eventually: Callable[..., Any]
) -> None:
    calls = [asyncio.create_task(gateway.get("patient/default/iris/r1?hold=1")) for _ in range(2)]
    await eventually(lambda: model.held == 2, "both places are taken")
    calls += [asyncio.create_task(gateway.get("patient/default/iris/r1?hold=1")) for _ in range(7)]
    await eventually(lambda: collector.sums(IRIS)["rejected"] == 4, "four are refused")
    await collector.flushes(2)
    busy, pods = collector.of(IRIS)[-1], collector.bundles[-1].pods.in_flight
    assert (busy.in_flight, busy.queued, sum(pods.values())) == (2, 3, 2)
    assert collector.sums(IRIS)["arrivals"] == 5
    model.release.set()
    assert Counter(await asyncio.gather(*calls)) == {200: 5, 429: 4}
    await collector.flushes(3)
    assert collector.sums(IRIS) == {"arrivals": 5, "completions": 5, "rejected": 4, "failed": 0}
    assert (collector.of(IRIS)[-1].in_flight, collector.of(IRIS)[-1].queued) == (0, 0)
    assert model.held_max == 2


async def test_mean_concurrency_follows_from_the_time_of_requests(
    gateway: Any, collector: Any, model: Any, eventually: Callable[..., Any]
) -> None:
    call = asyncio.create_task(gateway.get("patient/default/iris/r1?hold=1"))
    await eventually(lambda: model.held == 1, "the request is at the model")
    began = len(collector.bundles)
    await collector.flushes(3)
    observed_s = sum(signal.period_s for signal in collector.of(IRIS)[began:])
    model.release.set()
    assert await call == 200
    await collector.flushes(2)
    assert sum(signal.request_time_s for signal in collector.of(IRIS)) >= observed_s * 0.9


async def test_callers_that_leave_are_counted_once(
    gateway: Any, collector: Any, model: Any, eventually: Callable[..., Any]
) -> None:
    calls = [asyncio.create_task(gateway.get("patient/default/iris/r1?hold=1")) for _ in range(2)]
    await eventually(lambda: model.held == 2, "both places are taken")
    calls += [asyncio.create_task(gateway.get("patient/default/iris/r1?hold=1")) for _ in range(2)]
    await eventually(lambda: collector.of(IRIS)[-1].queued == 2, "two wait")
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    await eventually(lambda: collector.of(IRIS)[-1].in_flight == 0, "nothing is in flight")
    await collector.flushes(2)
    assert collector.sums(IRIS) == {"arrivals": 4, "completions": 0, "rejected": 0, "failed": 0}


async def test_a_timeout_in_the_queue_is_one_arrival_and_one_failure(
    gateway: Any, collector: Any, model: Any
) -> None:
    calls = [gateway.get("default/iris/r1?hold=1") for _ in range(3)]
    assert await asyncio.gather(*calls) == [504] * 3
    await collector.flushes(3)
    assert collector.sums(IRIS) == {"arrivals": 3, "completions": 0, "rejected": 0, "failed": 3}


@pytest.mark.parametrize(
    ("path", "key", "counted"),
    [
        ("default/empty/r1", EMPTY, {"arrivals": 0, "rejected": 4}),
        ("default/broken/r1", BROKEN, {"arrivals": 4, "rejected": 0}),
    ],
)
async def test_requests_that_meet_no_pod_are_demand_all_the_same(
    gateway: Any, collector: Any, path: str, key: RevisionKey, counted: dict[str, int]
) -> None:
    """Where there is none, callers come again at once, and their retries must not multiply demand."""
    assert await asyncio.gather(*(gateway.get(path) for _ in range(4))) == [503] * 4
    await collector.flushes(3)
    assert collector.sums(key) == {"completions": 0, "failed": 4} | counted


async def test_quiet_is_zero_in_every_flush(gateway: Any, collector: Any, intake: StatisticsIntake) -> None:
    await collector.flushes(3)
    for key in (QUIET, EMPTY):
        found = collector.of(key)
        assert len(found) >= len(collector.bundles) - 1  # the first has no period yet
        assert {(s.arrivals, s.in_flight, s.queued, s.request_time_s) for s in found} == {(0, 0, 0, 0.0)}
    assert all(0 < signal.period_s < 5 for signal in collector.of(QUIET))
    age_s = intake.age_s("local")
    assert age_s is not None
    assert 0 <= age_s < 60
    assert intake.age_s("nobody") is None
    assert intake.dropped == 0


async def test_malformed_messages_are_counted_and_harm_nothing(
    gateway: Any, collector: Any, intake: StatisticsIntake, bootstrap: Bootstrap
) -> None:
    async with grpc.aio.insecure_channel(f"unix:{bootstrap.control_socket}") as channel:
        export = channel.unary_unary(f"/{SERVICE}/Export")
        for noise in (b"\xff", b"", b"\x0a\x00"):
            assert await export(noise, timeout=10) == b""
    assert intake.dropped == 3
    assert await gateway.get("default/iris/r1") == 200
    await collector.flushes(3)
    assert collector.sums(IRIS)["arrivals"] == 1
