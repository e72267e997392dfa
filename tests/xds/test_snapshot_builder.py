"""Snapshots built one after the other, from parts that are kept, are those that are built anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.core.errors import InvalidInput
from trimtab.core.names import EndpointName
from trimtab.core.protocol import Protocol
from trimtab.core.revision import RevisionKey
from trimtab.xds import snapshot
from trimtab.xds.kinds import ADDITION_ORDER, ASSIGNMENTS, ROUTES
from trimtab.xds.routes import ROUTE_TABLE, build_routes
from trimtab.xds.snapshot import Collection, SnapshotBuilder, build_snapshot
from trimtab.xds.world import ApiKey, Backend, EndpointView, Gateway, RevisionView, Share, World

Make = Callable[..., EndpointView]
GATEWAY = Gateway("127.0.0.1", 8080)


@st.composite
def _views(draw: st.DrawFn) -> EndpointView:
    name = EndpointName("default", draw(st.sampled_from(("iris", "wine", "digits"))))
    keys = [RevisionKey(name, number) for number in draw(st.sets(st.integers(1, 2), min_size=1))]
    revisions = []
    for key in keys:
        ports = draw(st.sets(st.integers(1, 4)))
        backends = tuple(Backend("10.0.0.1", port, draw(st.booleans())) for port in sorted(ports))
        protocols = frozenset(draw(st.sets(st.sampled_from(Protocol), min_size=1)))
        revisions.append(RevisionView(key, protocols, draw(st.integers(1, 3)), 1000, backends))
    shares = (Share(keys[0], 100),) if draw(st.booleans()) else ()
    return EndpointView(name, tuple(revisions), shares, draw(st.sampled_from((5.0, 300.0))))


@st.composite
def _gateways(draw: st.DrawFn) -> Gateway:
    keys = draw(st.sampled_from(((), (ApiKey("ann", "a"),), (ApiKey("ann", "b"),))))
    return Gateway("127.0.0.1", 8080, draw(st.sampled_from(("localhost", "example"))), keys)


@settings(deadline=None)  # the first time Envoy's types are imported
@given(
    st.lists(_views(), min_size=1, max_size=6),
    st.lists(st.tuples(st.sets(st.integers(0, 5)), _gateways()), max_size=8),
)
def test_as_if_each_were_the_first(
    views: Sequence[EndpointView], worlds: Sequence[tuple[set[int], Gateway]]
) -> None:
    builder, tables = SnapshotBuilder(), dict[bytes, str]()
    for chosen, gateway in worlds:
        some = {views[each].name: views[each] for each in chosen if each < len(views)}
        world = World(gateway, tuple(some[name] for name in sorted(some)))
        found, anew = builder.build(world), build_snapshot(world)
        assert found.versions == anew.versions
        for kind in ADDITION_ORDER:
            assert told(found.collections[kind]) == told(anew.collections[kind])
        version, table = told(found.collections[ROUTES])[ROUTE_TABLE]
        assert table == build_routes(world)
        assert tables.setdefault(table, version) == version
    assert len({*tables.values()}) == len(tables), "other tables have other versions"


def told(collection: Collection) -> dict[str, tuple[str, bytes]]:
    return {name: (each.version, each.payload) for name, each in collection.resources.items()}


def test_of_what_is_the_same_nothing_is_built_again(endpoint: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    iris, wine, more = endpoint("iris", (1,)), endpoint("wine", (2,)), endpoint("iris", (1, 3))
    builder = SnapshotBuilder()
    before = builder.build(World(GATEWAY, (iris, wine)))
    asked: list[EndpointName] = []
    real = snapshot.build_assignments
    monkeypatch.setattr(
        snapshot, "build_assignments", lambda each: asked.append(each.key.endpoint) or real(each)
    )
    world = World(GATEWAY, (more, wine))
    assert builder.new(world) == (more,)
    after = builder.build(world)
    assert asked == [iris.name]
    assert before.version(ASSIGNMENTS) != after.version(ASSIGNMENTS)
    assert before.collections[ROUTES] is after.collections[ROUTES]


def test_after_a_world_that_cannot_be_built_it_goes_on(endpoint: Make) -> None:
    iris, bad = endpoint("iris", (1,)), endpoint("wine", (2,), timeout_s=0)
    builder = SnapshotBuilder()
    good = builder.build(World(GATEWAY, (iris,)))
    for _ in range(2):  # what was refused once is looked at again
        with pytest.raises(InvalidInput, match="request_timeout_s"):
            builder.build(World(GATEWAY, (iris, bad)))
    assert builder.build(World(GATEWAY, (iris,))).versions == good.versions
