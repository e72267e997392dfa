"""The gRPC adapter, spoken to by a bare client: one stream's trouble is nobody else's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.google.rpc import Status

from tests.xds.client import Client
from trimtab.core.clock import ManualClock
from trimtab.xds import server as module
from trimtab.xds.kinds import ASSIGNMENTS, CLUSTERS, LISTENERS, ROUTES
from trimtab.xds.server import AdsServer
from trimtab.xds.snapshot import Snapshot, build_snapshot
from trimtab.xds.world import EndpointView, Gateway, World


class Served:
    """An AdsServer on a port of its own and its clients."""

    def __init__(self) -> None:
        self.clock = ManualClock(wall_s=1_000.0)
        self.ads = AdsServer(self.clock)
        self.server = grpc.aio.server()
        self.ads.add_to(self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")

    def client(self, *, delta: bool = True, node: str = "n1") -> Client:
        return Client(self.channel, delta=delta, node=node)

    def publish(self, *endpoints: EndpointView, news_at_s: float | None = None) -> Snapshot:
        snapshot = build_snapshot(World(Gateway("127.0.0.1", 8080), endpoints))
        self.ads.publish(snapshot, news_at_s)
        return snapshot


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    served = Served()
    await served.server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as served.channel:
        yield served
        await served.server.stop(None)


async def test_a_request_before_the_first_snapshot_is_answered_when_it_comes(
    served: Served, endpoint: Any
) -> None:
    client = served.client()
    await client.ask(CLUSTERS)
    snapshot = served.publish(endpoint("iris", (1,)))
    answer = await client.hear()
    assert [one.name for one in answer.resources] == ["default/iris/r1"]
    assert answer.system_version_info == snapshot.version(CLUSTERS)


async def test_a_name_asked_for_later_is_answered_at_an_unchanged_version(
    served: Served, endpoint: Any
) -> None:
    served.publish(endpoint("iris", (1,)), endpoint("wine", (2,)))
    client = served.client(delta=False)
    await client.ask(ASSIGNMENTS, resource_names=["default/iris/r1"])
    first = await client.hear()
    names = ["default/iris/r1", "default/wine/r1"]
    await client.ask(ASSIGNMENTS, resource_names=names, response_nonce=first.nonce)
    second = await client.hear()
    assert second.version_info == first.version_info
    assert len(second.resources) == 1
    assert b"wine" in second.resources[0].value


async def test_a_stale_nonce_is_no_answer(served: Served, endpoint: Any, eventually: Any) -> None:
    snapshot = served.publish(endpoint("iris", (1,)))
    client = served.client(delta=False)
    await client.ask(CLUSTERS)
    first = await client.hear()
    await client.ask(CLUSTERS, response_nonce="from another life")
    await client.ask(LISTENERS)  # heard after it
    await eventually(lambda: len(served.ads.nodes()[0].types) == 2, "both were heard")
    assert not served.ads.acknowledged(CLUSTERS, snapshot.version(CLUSTERS))
    await client.ask(CLUSTERS, response_nonce=first.nonce)
    await eventually(
        lambda: served.ads.acknowledged(CLUSTERS, snapshot.version(CLUSTERS)), "the answer counts"
    )


async def test_what_a_reconnecting_client_has_is_not_sent_again(served: Served, endpoint: Any) -> None:
    snapshot = served.publish(endpoint("iris", (1,)), endpoint("wine", (2,)))
    known = {"default/iris/r1": snapshot.collections[CLUSTERS].resources["default/iris/r1"].version}
    client = served.client()
    await client.ask(CLUSTERS, initial_resource_versions=known)
    assert [one.name for one in (await client.hear()).resources] == ["default/wine/r1"]


async def test_changes_while_an_answer_is_awaited_are_one_push(served: Served, endpoint: Any) -> None:
    served.publish(endpoint("iris", (1,)))
    client = served.client()
    await client.ask(ASSIGNMENTS, resource_names_subscribe=["default/iris/r1"])
    first = await client.hear()
    for ports in ((1, 2), (1, 2, 3), (1, 2, 3, 4)):
        last = served.publish(endpoint("iris", ports))
        await asyncio.sleep(0)
    await client.ask(ASSIGNMENTS, response_nonce=first.nonce)
    assert (await client.hear()).system_version_info == last.version(ASSIGNMENTS)


async def test_a_later_version_confirms_an_earlier_one(
    served: Served, endpoint: Any, eventually: Any
) -> None:
    earlier = served.publish(endpoint("iris", (1,))).version(CLUSTERS)
    later = served.publish(endpoint("iris", (1,), target=2)).version(CLUSTERS)
    client = served.client()
    await client.ask(CLUSTERS)
    assert not served.ads.acknowledged(CLUSTERS, earlier)
    await client.ask(CLUSTERS, response_nonce=(await client.hear()).nonce)
    await eventually(lambda: served.ads.acknowledged(CLUSTERS, later), "the last one is confirmed")
    assert served.ads.acknowledged(CLUSTERS, earlier)
    assert not served.ads.acknowledged(CLUSTERS, "never published")


async def test_every_connected_node_must_confirm(served: Served, endpoint: Any, eventually: Any) -> None:
    version = served.publish(endpoint("iris", (1,))).version(CLUSTERS)
    quick, slow = served.client(node="quick"), served.client(node="slow")
    for client in (quick, slow):
        await client.ask(CLUSTERS)
        answer = await client.hear()
    await quick.ask(CLUSTERS, response_nonce="1")
    await eventually(
        lambda: served.ads.nodes()[0].types[0].acked_version == version, "the quick one has confirmed"
    )
    assert not served.ads.acknowledged(CLUSTERS, version)
    await slow.ask(CLUSTERS, response_nonce=answer.nonce)
    await eventually(lambda: served.ads.acknowledged(CLUSTERS, version), "both have confirmed")


@pytest.mark.parametrize("delta", [True, False])
async def test_a_request_that_cannot_be_read_ends_its_own_stream_only(
    served: Served, endpoint: Any, *, delta: bool
) -> None:
    served.publish(endpoint("iris", (1,)))
    good, bad = served.client(delta=delta), served.client(delta=delta, node="bad")
    await good.ask(CLUSTERS)
    answer = await good.hear()
    await bad.send(b"\x22\x02\xff\xfe")  # a type URL that is no text
    code, words = await bad.ending()
    assert (code, "DiscoveryRequest" in words) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    served.publish(endpoint("iris", (1,), target=9))
    await good.ask(CLUSTERS, response_nonce=answer.nonce)
    assert len((await good.hear()).resources) == 1


async def test_a_stream_without_a_node_is_ended(served: Served) -> None:
    client = served.client(node="")
    await client.ask(CLUSTERS)
    code, words = await client.ending()
    assert (code, words) == (grpc.StatusCode.INVALID_ARGUMENT, "the first request names no node")


async def test_streams_are_bounded(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STREAMS_MAX", 1)
    served.publish()
    first = served.client()
    await first.ask(CLUSTERS)
    await first.hear()
    second = served.client(node="n2")
    code, _ = await second.ending()
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_stream_that_nobody_reads_holds_up_no_other(served: Served, endpoint: Any) -> None:
    ports = tuple(range(1, 20_000))  # one push is larger than all buffers between here and there
    served.publish(endpoint("iris", ports))
    stuck, other = served.client(node="stuck"), served.client(node="other")
    await stuck.ask(ASSIGNMENTS, resource_names_subscribe=["default/iris/r1"])
    await other.ask(ROUTES, resource_names_subscribe=["gateway"])
    answer = await other.hear()
    for timeout_s in (10, 20, 30):
        served.publish(endpoint("iris", ports, timeout_s=timeout_s))
        await other.ask(ROUTES, response_nonce=answer.nonce)
        answer = await other.hear()


async def test_a_node_that_left_is_remembered_and_news_are_told(
    served: Served, endpoint: Any, eventually: Any
) -> None:
    served.publish(endpoint("iris", (1,)))
    client = served.client()
    await client.ask(CLUSTERS)
    answer = await client.hear()
    assert not served.ads.any_refused()
    served.ads.changed.clear()
    served.clock.advance(5)
    await client.ask(CLUSTERS, response_nonce=answer.nonce, error_detail=_status("too odd"))
    await asyncio.wait_for(served.ads.changed.wait(), 10)
    [told] = served.ads.nodes()[0].types
    assert (told.nack, told.nack_at_s, told.acked_version) == ("too odd", 1_005.0, "")
    assert served.ads.any_refused()
    served.ads.changed.clear()
    client.leave()
    await asyncio.wait_for(served.ads.changed.wait(), 10)
    [node] = served.ads.nodes()
    assert (node.node, node.connected, node.connected_since_s) == ("n1", False, 1_000.0)
    assert served.ads.any_refused()


async def test_publishing_the_same_again_is_no_news(served: Served, endpoint: Any, eventually: Any) -> None:
    """The control plane looks again at each piece of news: if looking made news, it would never rest."""
    served.publish(endpoint("iris", (1,)))
    client = served.client()
    await client.ask(CLUSTERS)
    await client.ask(CLUSTERS, response_nonce=(await client.hear()).nonce)

    async def quiet() -> bool:
        served.ads.changed.clear()
        await asyncio.sleep(0.05)
        return not served.ads.changed.is_set()

    await eventually(quiet, "all is said")
    served.publish(endpoint("iris", (1,)))
    assert await quiet()


def _status(message: str) -> Status:
    return Status(code=3, message=message)


async def test_envoys_get_their_shares_of_a_limit(served: Served, endpoint: Any) -> None:
    """Together all of it; who is not counted yet gets what it will have at least."""
    gateway = Gateway("127.0.0.1", 8080)
    snapshot = build_snapshot(World(gateway, (endpoint("iris", (1,), target=5),), ("a", "b")))
    served.ads.publish(snapshot)
    limits = {}
    for node in ("a", "b", "late"):
        client = served.client(node=node)
        await client.ask(CLUSTERS)
        answer = await client.hear()
        await client.ask(CLUSTERS, response_nonce=answer.nonce)
        limits[node] = limit_of(answer)
    assert sorted((limits["a"], limits["b"])) == [2, 3]
    assert limits["late"] == 1


async def test_shares_that_stay_are_not_sent_again(served: Served, endpoint: Any) -> None:
    gateway, client = Gateway("127.0.0.1", 8080), served.client(node="a")
    some = endpoint("iris", (1,), target=4), endpoint("wine", (1,), target=5)
    served.ads.publish(build_snapshot(World(gateway, some, ("a", "b"))))
    await client.ask(CLUSTERS)
    answer = await client.hear()
    assert len(answer.resources) == 2
    await client.ask(CLUSTERS, response_nonce=answer.nonce)
    changed = endpoint("iris", (1,), target=4), endpoint("wine", (1,), target=8)
    served.ads.publish(build_snapshot(World(gateway, changed, ("a", "b"))))
    answer = await client.hear()
    assert [(one.name, limit_of(answer)) for one in answer.resources] == [("default/wine/r1", 4)]


def limit_of(answer: Any) -> int:
    """Of its only cluster."""
    (one, *_) = answer.resources
    assert one.resource is not None
    cluster = Cluster.parse(one.resource.value)
    assert cluster.circuit_breakers is not None
    (bounds,) = cluster.circuit_breakers.per_host_thresholds
    return int(bounds.max_connections or 0)


async def test_pods_do_not_wait_behind_one_route_table_after_the_other(
    served: Served, endpoint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = served.publish(endpoint("iris", (1,)))
    table_bytes = sum(len(each.payload) for each in snapshot.collections[ROUTES].resources.values())
    monkeypatch.setattr(module, "ROUTES_BYTES_PER_S", table_bytes / 3)
    monkeypatch.setattr(module, "ROUTES_REST_MAX_S", 3.0)
    client = served.client()

    async def answered() -> Any:
        heard = await client.hear()
        await client.ask(heard.type_url, response_nonce=heard.nonce)
        return heard

    for kind, names in ((CLUSTERS, []), (ASSIGNMENTS, ["default/iris/r1"]), (ROUTES, ["gateway"])):
        await client.ask(kind, resource_names_subscribe=names)
        await answered()
    heard = []
    for number in range(2, 6):  # each time its pods are others, and so are its routes
        last = served.publish(endpoint("iris", tuple(range(1, 1 + number)), timeout_s=float(number)))
        heard.append(await answered())
    assert [each.type_url for each in heard] == [ASSIGNMENTS] * 4
    table = await client.hear()
    assert (table.type_url, table.system_version_info) == (ROUTES, last.version(ROUTES)), "the last one alone"


async def test_how_long_news_of_pods_took_to_each_envoy(served: Served, endpoint: Any) -> None:
    took_s = list[float]()
    served.ads.sent = took_s.append
    served.publish(endpoint("iris", (1,)))
    client, other = served.client(), served.client(node="n2")
    for one in (client, other):
        await one.ask(ASSIGNMENTS, resource_names_subscribe=["default/iris/r1"])
    first, _ = await client.hear(), await other.hear()
    assert took_s == [], "of what was there before nobody waited"
    await client.ask(ASSIGNMENTS, response_nonce=first.nonce)
    heard_s = served.clock.now_s()
    served.clock.advance(0.25)
    served.publish(endpoint("iris", (1, 2)), news_at_s=heard_s)
    second = await client.hear()
    assert took_s == [0.25], "the other one has not answered yet"
    for pods in ((1,), (1, 2, 3)):
        served.clock.advance(1.0)
        served.publish(endpoint("iris", pods), news_at_s=served.clock.now_s())
    served.clock.advance(1.0)
    await client.ask(ASSIGNMENTS, response_nonce=second.nonce)
    await client.hear()
    assert took_s == [0.25, 2.0], "from the oldest news on"


async def test_news_that_is_none_to_an_envoy_counts_for_nothing(
    served: Served, endpoint: Any, eventually: Any
) -> None:
    took_s = list[float]()
    served.ads.sent = took_s.append
    iris = endpoint("iris", (1,))
    served.publish(iris, endpoint("wine", (1,)))
    client = served.client()
    await client.ask(ASSIGNMENTS, resource_names_subscribe=["default/iris/r1"])
    first = await client.hear()
    await client.ask(ASSIGNMENTS, response_nonce=first.nonce)
    last = served.publish(iris, endpoint("wine", (2,)), news_at_s=served.clock.now_s())
    await eventually(lambda: served.ads.acknowledged(ASSIGNMENTS, last.version(ASSIGNMENTS)), "it has it")
    served.clock.advance(7.0)
    served.publish(endpoint("iris", (1, 2)), endpoint("wine", (2,)), news_at_s=served.clock.now_s())
    await client.hear()
    assert took_s == [0.0]
