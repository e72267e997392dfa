"""When a change counts as known to every Envoy, wherever they are connected."""

from __future__ import annotations

import asyncio

import pytest

from trimtab.control.metrics import Metrics
from trimtab.control.publishing import AWAY_MAX_S, Publisher
from trimtab.core.clock import ManualClock
from trimtab.core.names import EndpointName
from trimtab.xds.kinds import ROUTES
from trimtab.xds.server import AdsServer, NodeStatus, StreamStatus
from trimtab.xds.snapshot import Snapshot
from trimtab.xds.world import EndpointView, Gateway, World

GATHER_S = 10.0


class Told:
    """A publisher, and Envoys of followers that have taken what was published."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.ads = AdsServer(self.clock)
        self.publisher = Publisher(self.ads, Gateway("127.0.0.1", 8080), self.clock, Metrics())
        self.publisher.gather(GATHER_S)

    async def publish(self) -> None:
        await self.publisher.publish(lambda: ())

    def connected(self, *nodes: str, source: str = "follower", acked: bool = True) -> None:
        assert self.ads.snapshot is not None
        versions = self.ads.snapshot.versions if acked else {}
        self.ads.relayed(source, tuple(StreamStatus(NodeStatus(node, True, 0.0), versions) for node in nodes))

    @property
    def settled(self) -> bool:
        return self.publisher.settled(ROUTES)


@pytest.fixture
async def told() -> Told:
    made = Told()
    await made.publish()
    return made


async def test_envoys_that_may_be_on_their_way_are_waited_for(told: Told) -> None:
    told.connected("a")
    assert not told.settled, "another one may be about to come back"
    told.clock.advance(GATHER_S)
    assert told.settled
    told.connected("b", source="another", acked=False)
    assert not told.settled
    told.connected("b", source="another")
    assert told.settled
    assert told.publisher.envoys() == {"a", "b"}


async def test_who_waits_for_its_turn_looks_for_those_after_it(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, built, real = asyncio.Event(), asyncio.Event(), told.publisher._built

    async def slow(world: World, new: int) -> Snapshot:
        reached.set()
        await built.wait()
        return await real(world, new)

    def look(number: int) -> tuple[EndpointView, ...]:
        looks.append(number)
        return tuple(EndpointView(EndpointName("default", f"e{each}")) for each in range(number))

    monkeypatch.setattr(told.publisher, "_built", slow)
    looks: list[int] = []
    first = asyncio.create_task(told.publisher.publish(lambda: look(1)))
    await reached.wait()
    second = asyncio.create_task(told.publisher.publish(lambda: look(2)))
    await asyncio.sleep(0)
    await told.publisher.publish(lambda: look(3))
    assert looks == [1]
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    third = asyncio.create_task(told.publisher.publish(lambda: look(4)))
    await asyncio.sleep(0)
    built.set()
    await asyncio.gather(first, third)
    assert looks == [1, 4], "a wait that was called off keeps nobody from the next"


async def test_one_that_went_is_waited_for_and_given_up(told: Told) -> None:
    told.clock.advance(GATHER_S)
    told.connected("a", "b")
    assert told.settled
    told.connected("a")
    assert not told.settled, "b serves on with what it has"
    told.clock.advance(AWAY_MAX_S - 1.0)
    assert not told.settled
    told.clock.advance(1.5)
    assert told.settled


async def test_one_that_drained_is_gone_with_its_stream(told: Told) -> None:
    """Nobody waits for it, and the others have its share of the limits at once."""
    told.clock.advance(GATHER_S)
    told.connected("a", "b")
    await told.publish()
    told.ads.leaves("b")
    told.ads.leaves("nobody")
    await told.publish()
    assert shared_by(told.ads) == ("a", "b"), "it still has requests"
    told.connected("a")
    await told.publish()
    assert told.ads.away(AWAY_MAX_S) == set()
    assert shared_by(told.ads) == ("a",)
    told.connected("a")
    assert told.settled
    assert [node.node for node in told.ads.nodes()] == ["a"]


async def test_one_that_came_back_to_another_control_plane_is_not_away(told: Told) -> None:
    told.clock.advance(GATHER_S)
    told.connected("a", "b")
    told.connected("b", source="another")
    told.connected()
    assert told.ads.away(AWAY_MAX_S) == {"a"}
    told.connected("a", "b", source="another")
    assert told.ads.away(AWAY_MAX_S) == set()
    assert told.settled


async def test_without_any_nothing_is_settled_until_they_are_given_up(told: Told) -> None:
    told.clock.advance(GATHER_S)
    assert not told.settled
    await told.publish()
    told.clock.advance(AWAY_MAX_S)
    await told.publish()
    assert told.settled


async def test_limits_are_shared_by_all_that_are_there_or_may_come_back(told: Told) -> None:
    told.connected("b")
    await told.publish()
    assert shared_by(told.ads) == ("b",)
    told.connected("a", "b")
    await told.publish()
    assert shared_by(told.ads) == ("b", "a"), "those that were there keep their places"
    told.connected("a")
    told.clock.advance(AWAY_MAX_S - 1.0)
    await told.publish()
    assert shared_by(told.ads) == ("b", "a"), "it may come back"
    told.clock.advance(2.0)
    await told.publish()
    assert shared_by(told.ads) == ("a",)


async def test_who_takes_over_counts_those_that_were_counted_before(told: Told) -> None:
    told.connected("a", "b")
    await told.publish()
    told.ads.relayed("follower", ())
    ads = AdsServer(told.clock)
    assert told.ads.snapshot is not None
    ads.publish(told.ads.snapshot)  # as a follower of it had
    publisher = Publisher(ads, Gateway("127.0.0.1", 8080), told.clock, Metrics())
    await publisher.publish(lambda: ())
    assert shared_by(ads) == ("a", "b")
    told.clock.advance(AWAY_MAX_S)
    await publisher.publish(lambda: ())
    assert shared_by(ads) == ()


def shared_by(ads: AdsServer) -> tuple[str, ...]:
    assert ads.snapshot is not None
    return ads.snapshot.envoys
