"""What makes a world unbuildable, what a snapshot's versions depend on, and the names of clusters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import betterproto2
import pytest
from envoy_data_plane.envoy.config.core.v3 import Address, HealthStatus, SocketAddress
from envoy_data_plane.envoy.config.endpoint.v3 import ClusterLoadAssignment, Endpoint, LbEndpoint
from envoy_data_plane.envoy.config.route.v3 import RouteConfiguration
from hypothesis import given
from hypothesis import strategies as st

from trimtab.core.errors import InvalidInput
from trimtab.core.protocol import Protocol
from trimtab.xds.assignments import encode_backend
from trimtab.xds.kinds import ADDITION_ORDER, ASSIGNMENTS, CLUSTERS, LISTENERS, ROUTES
from trimtab.xds.snapshot import Snapshot, build_snapshot
from trimtab.xds.wire import field, varint
from trimtab.xds.world import (
    ApiKey,
    Backend,
    EndpointView,
    Gateway,
    World,
    cluster_name,
    grpc_cluster_name,
    revision_of,
)

Make = Callable[..., EndpointView]
GATEWAY = Gateway("127.0.0.1", 8080)


def _snapshot(*endpoints: EndpointView, gateway: Gateway = GATEWAY) -> Snapshot:
    return build_snapshot(World(gateway, endpoints))


def _changed(one: Snapshot, other: Snapshot) -> list[str]:
    return [kind for kind in ADDITION_ORDER if one.version(kind) != other.version(kind)]


def test_only_what_changes_gets_a_new_version(endpoint: Make) -> None:
    before = _snapshot(endpoint("iris", (1,)), endpoint("wine", (2,)))
    assert _changed(before, _snapshot(endpoint("iris", (1,)), endpoint("wine", (2,)))) == []
    assert _changed(before, _snapshot(endpoint("iris", (1, 3)), endpoint("wine", (2,)))) == [ASSIGNMENTS]
    drain = endpoint("iris", (1,), draining=(1,))
    assert _changed(before, _snapshot(drain, endpoint("wine", (2,)))) == [ASSIGNMENTS]
    limit = endpoint("iris", (1,), target=5)
    assert _changed(before, _snapshot(limit, endpoint("wine", (2,)))) == [CLUSTERS]
    timeout = endpoint("iris", (1,), timeout_s=5)
    assert _changed(before, _snapshot(timeout, endpoint("wine", (2,)))) == [ROUTES]
    moved = _snapshot(endpoint("iris", (1,)), endpoint("wine", (2,)), gateway=replace(GATEWAY, port=1))
    assert _changed(before, moved) == [LISTENERS]


def test_versions_of_other_resources_stay(endpoint: Make) -> None:
    before = _snapshot(endpoint("iris", (1,)), endpoint("wine", (2,))).collections[ASSIGNMENTS].resources
    after = _snapshot(endpoint("iris", (1, 3)), endpoint("wine", (2,))).collections[ASSIGNMENTS].resources
    assert [name for name in before if before[name] != after[name]] == ["default/iris/r1"]


def test_joined_bytes_are_a_whole_assignment(endpoint: Make) -> None:
    ports = tuple(range(1000, 1300))
    found = _snapshot(endpoint("iris", ports, draining=(1001,))).collections[ASSIGNMENTS].resources
    assignment = ClusterLoadAssignment.parse(found["default/iris/r1"].payload)
    [locality] = assignment.endpoints
    addresses = [one.endpoint.address.socket_address for one in locality.lb_endpoints if one.endpoint]
    assert (assignment.cluster_name, tuple(a.port_value for a in addresses if a)) == (
        "default/iris/r1",
        ports,
    )
    assert [one.health_status.name for one in locality.lb_endpoints[:3]] == ["HEALTHY", "DRAINING", "HEALTHY"]


def _bad_worlds(endpoint: Make) -> dict[str, World]:
    iris = endpoint("iris", (1,))
    [revision] = iris.revisions
    other = endpoint("wine", (2,))

    def with_revision(**changed: object) -> World:
        return World(GATEWAY, (replace(iris, revisions=(replace(revision, **changed),)),))  # type: ignore[arg-type]

    shared = ApiKey("ann", "k"), ApiKey("bob", "k")
    return {
        "iris.default: is there twice": World(GATEWAY, (iris, iris)),
        "`localhost` is not an IP address": World(replace(GATEWAY, host="localhost"), ()),
        "70000 is not a port": World(replace(GATEWAY, port=70_000), ()),
        "ann, bob have the same key": World(replace(GATEWAY, api_keys=shared), ()),
        "client `ann` has no name or no key": World(replace(GATEWAY, api_keys=(ApiKey("ann", ""),)), ()),
        "gateway.domain: is empty": World(replace(GATEWAY, domain=""), ()),
        "r1: is there twice": World(GATEWAY, (replace(iris, revisions=(revision, revision)),)),
        "holds a revision of another endpoint": World(GATEWAY, (replace(iris, revisions=other.revisions),)),
        "sends requests to wine.default/r1": World(GATEWAY, (replace(iris, shares=other.shares),)),
        "add up to 200 percent": World(GATEWAY, (replace(iris, shares=iris.shares * 2),)),
        "request_timeout_s is 0": World(GATEWAY, (replace(iris, request_timeout_s=0),)),
        "speaks no protocol": with_revision(protocols=frozenset()),
        "target_concurrency is 0": with_revision(target_concurrency=0),
        "queue_max is 0": with_revision(queue_max=0),
        "two pods at 127.0.0.1:1": with_revision(backends=revision.backends * 2),
        "`pod-1` is not an IP address": with_revision(
            backends=(revision.backends[0]._replace(host="pod-1"),)
        ),
    }


def test_a_world_that_cannot_be_built_is_refused_by_name(endpoint: Make) -> None:
    for words, world in _bad_worlds(endpoint).items():
        with pytest.raises(InvalidInput) as refused:
            build_snapshot(world)
        assert words in str(refused.value), words


def test_all_problems_at_once(endpoint: Make) -> None:
    iris = endpoint("iris", (1,), target=0, queue_max=0)
    with pytest.raises(InvalidInput) as refused:
        _snapshot(iris, gateway=replace(GATEWAY, host="here"))
    assert len(refused.value.problems) == 3


def test_names_of_clusters_lead_back_to_their_revision(endpoint: Make) -> None:
    key = endpoint("iris.team-a", number=12).revisions[0].key
    assert (cluster_name(key), grpc_cluster_name(key)) == ("team-a/iris/r12", "team-a/iris/r12/grpc")
    assert revision_of(cluster_name(key)) == revision_of(grpc_cluster_name(key)) == key
    for strange in ("control_plane", "a/b", "a/b/c", "a/b/r", "a/b/r1/http", ""):
        assert revision_of(strange) is None


def test_a_cluster_for_each_transport_that_is_spoken(endpoint: Make) -> None:
    both = (Protocol.OPEN_INFERENCE_REST, Protocol.OPEN_INFERENCE_GRPC)
    found = _snapshot(endpoint("a"), endpoint("b", protocols=both), endpoint("c", protocols=both[1:]))
    names = ["default/a/r1", "default/b/r1", "default/b/r1/grpc", "default/c/r1/grpc"]
    assert list(found.collections[CLUSTERS].resources) == names
    assert list(found.collections[ASSIGNMENTS].resources) == names


@pytest.mark.parametrize(("number", "encoded"), [(0, "00"), (127, "7f"), (128, "8001"), (300, "ac02")])
def test_varints(number: int, encoded: str) -> None:
    assert varint(number).hex() == encoded


def test_a_long_field() -> None:
    assert field(2, b"x" * 300) == bytes.fromhex("12ac02") + b"x" * 300


def test_many_endpoints_are_joined_from_parts(endpoint: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message of its own for each of some 55 routes took 60 ms an endpoint, a minute for a thousand."""
    _snapshot(endpoint("first", (1,), protocols=tuple(Protocol), bridged=True))  # what all share is made
    encoded: list[str] = []
    encode = betterproto2.Message.__bytes__

    def counted(message: betterproto2.Message) -> bytes:
        encoded.append(type(message).__name__)
        return encode(message)

    monkeypatch.setattr(betterproto2.Message, "__bytes__", counted)
    found = _snapshot(*(endpoint(f"e{n}", protocols=tuple(Protocol), bridged=True) for n in range(10)))
    assert len(encoded) <= 10 * 40, Counter(encoded)
    table = RouteConfiguration.parse(found.collections[ROUTES].resources["gateway"].payload)
    assert sum(len(host.routes) for host in table.virtual_hosts if host.name == "*") == 0  # looked up


@given(
    st.sampled_from(("10.0.0.1", "255.255.255.255", "fd00::1")),
    st.integers(1, 65_535),
    st.booleans(),
    st.integers(0, 65_535),
    st.booleans(),
)
def test_a_pod_is_encoded_as_envoys_own_types_are(
    host: str, port: int, draining: bool, grpc_port: int, grpc: bool
) -> None:
    address = SocketAddress(address=host, port_value=grpc_port if grpc and grpc_port else port)
    health = HealthStatus.DRAINING if draining else HealthStatus.HEALTHY
    endpoint = Endpoint(address=Address(socket_address=address))
    wanted = bytes(LbEndpoint(endpoint=endpoint, health_status=health))
    assert encode_backend(Backend(host, port, draining, grpc_port), grpc=grpc) == wanted
