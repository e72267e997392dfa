"""The ADS server and the real Envoy, in both variants of the protocol."""

from __future__ import annotations

from typing import Any

import pytest

from trimtab.xds.kinds import CLUSTERS, LISTENERS
from trimtab.xds.snapshot import Collection, Snapshot, resource

both_variants = pytest.mark.parametrize("api_type", ["DELTA_GRPC", "GRPC"], indirect=True)

# Field 1, the name, and field 2 = 3: of a cluster its type, EDS without a source; of a listener nonsense.
ODD = b"\x0a\x03odd\x10\x03"


async def _status(http: Any, gate: Any, name: str) -> int:
    async with http.post(f"{gate.url}/serving-endpoints/{name}/invocations", data=b"[]") as answer:
        return int(answer.status)


@both_variants
async def test_endpoints_come_change_and_go(gate: Any, pods: Any, endpoint: Any, http: Any) -> None:
    a, b = await pods(2)
    await gate.publish()
    assert await _status(http, gate, "iris") == 404  # the port is open before there is any endpoint
    await gate.publish(endpoint("iris", (a.port,)))
    assert await _status(http, gate, "iris") == 200
    await gate.publish(endpoint("iris", (b.port,), target=3), endpoint("wine", (a.port,)))
    assert [await _status(http, gate, name) for name in ("iris", "wine")] == [200, 200]
    assert (a.served, b.served) == (2, 1)
    await gate.publish(endpoint("wine", (a.port,)))
    assert [await _status(http, gate, name) for name in ("iris", "wine")] == [404, 200]


@both_variants
async def test_status_of_a_node(gate: Any, pods: Any, endpoint: Any) -> None:
    [pod] = await pods(1)
    snapshot = await gate.publish(endpoint("iris", (pod.port,)))
    [node] = gate.ads.nodes()
    assert (node.node, node.connected) == ("envoy-1", True)
    assert [told.short for told in node.types] == ["clusters", "endpoints", "listeners", "routes"]
    assert {told.type_url: told.acked_version for told in node.types} == snapshot.versions
    assert [told.nack for told in node.types] == [""] * 4


def _with(snapshot: Snapshot, kind: str, name: str, payload: bytes) -> Snapshot:
    """The snapshot with one resource more, or another one of that name."""
    resources = {**snapshot.collections[kind].resources, name: resource(payload)}
    return Snapshot({**snapshot.collections, kind: Collection(resources)})


@both_variants
@pytest.mark.parametrize("kind", [LISTENERS, CLUSTERS])
async def test_a_refusal_is_shown_in_envoys_words_and_the_rest_goes_on(
    gate: Any, pods: Any, endpoint: Any, http: Any, eventually: Any, kind: str
) -> None:
    a, b = await pods(2)
    good = await gate.publish(endpoint("iris", (a.port,)))
    gate.ads.publish(_with(good, kind, "odd", ODD))

    def refusal() -> str:
        [node] = gate.ads.nodes()
        return str(next(told.nack for told in node.types if told.type_url == kind))

    assert "odd" in await eventually(refusal, "the refusal arrives")
    assert not gate.ads.acknowledged(kind, gate.ads._snapshot.version(kind))
    [node] = gate.ads.nodes()
    assert [told.nack_at_s > 0 for told in node.types] == [told.type_url == kind for told in node.types]

    # Another endpoint is served all the same, and once the odd one has gone, so has the refusal.
    more = gate.send(endpoint("iris", (a.port,)), endpoint("wine", (b.port,)))
    gate.ads.publish(_with(more, kind, "odd", ODD))

    async def wine_is_served() -> bool:
        return await _status(http, gate, "wine") == 200

    await eventually(wine_is_served, "the other endpoint is served")
    await gate.publish(endpoint("iris", (a.port,)))
    assert await eventually(lambda: refusal() == "", "the refusal is forgotten")


async def test_a_taken_port_is_refused_in_words(gate: Any, endpoint: Any, eventually: Any, pods: Any) -> None:
    [pod] = await pods(1)
    gate.gateway = type(gate.gateway)("127.0.0.1", pod.port)  # somebody listens there
    gate.send(endpoint("iris", (pod.port,)))

    def refusal() -> str:
        return "".join(told.nack for node in gate.ads.nodes() for told in node.types)

    assert "Address already in use" in await eventually(refusal, "the refusal arrives")


@both_variants
async def test_envoy_serves_on_without_its_control_plane_and_catches_up(
    gate: Any, pods: Any, endpoint: Any, http: Any, eventually: Any
) -> None:
    a, b = await pods(2)
    await gate.publish(endpoint("iris", (a.port,)))
    await gate.server.stop(None)
    await eventually(lambda: not any(node.connected for node in gate.ads.nodes()), "the stream has ended")
    assert [await _status(http, gate, "iris") for _ in range(3)] == [200] * 3
    await gate.start_control()
    await gate.publish(endpoint("iris", (b.port,)), endpoint("wine", (b.port,)))
    assert [await _status(http, gate, name) for name in ("iris", "wine")] == [200, 200]
    assert (a.served, b.served) == (3, 2)


@both_variants
async def test_envoy_ends_and_its_status_stays(gate: Any, pods: Any, endpoint: Any, eventually: Any) -> None:
    [pod] = await pods(1)
    snapshot = await gate.publish(endpoint("iris", (pod.port,)))
    gate.ads.changed.clear()
    await gate.kill_envoy()
    await eventually(gate.ads.changed.is_set, "the end is noticed")
    [node] = gate.ads.nodes()
    assert (node.node, node.connected) == ("envoy-1", False)
    assert not gate.ads.acknowledged(CLUSTERS, snapshot.version(CLUSTERS))
    await gate.start_envoy()
    await gate.confirmed(snapshot)
