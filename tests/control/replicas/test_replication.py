"""A leader and those who follow it, over real gRPC on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import grpc
import pytest

from tests.control.replicas.peers import Envoy, Peer, code_of, endpoint, world
from tests.envoy.messages import flush_messages
from tests.kube.words import until
from trimtab.control.replicas import follower, leader
from trimtab.core.clock import ManualClock
from trimtab.kube import Holder
from trimtab.v1 import replication_pb2 as v1
from trimtab.v1.replication_pb2_grpc import ReplicationStub
from trimtab.xds.kinds import CLUSTERS

MakePeer = Callable[..., Awaitable[Peer]]


@pytest.fixture
async def pair(peer: MakePeer) -> tuple[Peer, Peer]:
    """One that leads in term 1, and one that follows it."""
    one, two = await peer("one"), await peer("two")
    await one.lead(1)
    two.follow(one.holder(1))
    return one, two


async def test_a_follower_serves_what_the_leader_publishes(pair: tuple[Peer, Peer]) -> None:
    one, two = pair
    assert not two.opened.is_set(), "there is nothing to serve yet"
    for ports in ((1,), (1, 2), ()):
        snapshot = world(endpoint("iris", *ports), endpoint("wine", 9))
        one.ads.publish(snapshot)
        await until(lambda snapshot=snapshot: two.serves(snapshot))  # type: ignore[misc]
    assert two.opened.is_set()


async def test_the_leader_waits_for_the_envoys_of_followers(pair: tuple[Peer, Peer]) -> None:
    one, two = pair
    one.ads.publish(world(endpoint("iris", 1)))
    here, there = Envoy(one.client("here")), two.client("there")
    await there.ask(CLUSTERS)
    heard = await there.hear()
    await until(lambda: {node.node for node in one.ads.nodes() if node.connected} == {"here", "there"})
    snapshot = world(endpoint("iris", 1, target=2))
    kind, version = heard.type_url, snapshot.version(heard.type_url)
    await there.ask(kind, response_nonce=heard.nonce)
    one.ads.publish(snapshot)
    heard = await there.hear()
    await until(lambda: any(t.acked_version == version for t in one.ads.nodes()[0].types))  # `here` has it
    assert not one.ads.acknowledged(kind, version), "the other one has not said yes"
    await there.ask(kind, response_nonce=heard.nonce)
    await until(lambda: one.ads.acknowledged(kind, version))
    await here.leave()


async def test_the_envoys_of_a_follower_that_goes_are_away_and_not_settled(
    peer: MakePeer, pair: tuple[Peer, Peer]
) -> None:
    one, two = pair
    snapshot = world(endpoint("iris", 1))
    one.ads.publish(snapshot)
    envoy = Envoy(two.client("there"))
    await until(lambda: one.ads.connected_nodes() == {"there"})
    await two.die()
    await until(lambda: one.ads.away(60.0) == {"there"})
    assert not one.ads.acknowledged(envoy.heard[0].type_url, snapshot.version(envoy.heard[0].type_url))
    assert [(node.node, node.connected) for node in one.ads.nodes()] == [("there", False)]
    three = await peer("three")
    three.follow(one.holder(1))
    again = Envoy(three.client("there"))
    await until(lambda: one.ads.connected_nodes() == {"there"})
    assert one.ads.away(60.0) == set()
    await again.leave()
    await envoy.leave()


async def test_without_a_leader_a_follower_serves_on(pair: tuple[Peer, Peer]) -> None:
    one, two = pair
    snapshot = world(endpoint("iris", 1))
    one.ads.publish(snapshot)
    await until(lambda: two.serves(snapshot))
    await one.die()
    two.follow(None)
    envoy = Envoy(two.client("late"))
    await until(lambda: two.ads.acknowledged(CLUSTERS, snapshot.version(CLUSTERS)))
    await envoy.leave()


async def test_who_takes_over_keeps_streams_and_others_follow_it(
    peer: MakePeer, pair: tuple[Peer, Peer]
) -> None:
    """Nothing is pushed in between: what the new leader has is what the old one had published."""
    one, two = pair
    three = await peer("three")
    three.follow(one.holder(1))
    snapshot = world(endpoint("iris", 1))
    one.ads.publish(snapshot)
    await until(lambda: two.serves(snapshot) and three.serves(snapshot))
    envoy = Envoy(two.client("there"))
    await until(lambda: len(envoy.heard) == 2)
    await one.die()
    await two.lead(2)
    three.follow(two.holder(2))
    late = Envoy(three.client("late"))
    await until(lambda: two.ads.connected_nodes() == {"there", "late"})
    assert len(envoy.heard) == 2
    two.ads.publish(changed := world(endpoint("iris", 1, target=2)))
    await until(lambda: two.ads.acknowledged(CLUSTERS, changed.version(CLUSTERS)))
    assert three.serves(changed)
    await envoy.leave()
    await late.leave()


async def test_a_leader_of_another_term_is_not_followed(pair: tuple[Peer, Peer]) -> None:
    """It was paused, and does not know that another one leads. What it says then is not taken."""
    one, two = pair
    before = world(endpoint("iris", 1))
    one.ads.publish(before)
    await until(lambda: two.serves(before))
    two.follow(Holder("one", 2, one.holder(1).address))  # the Lease has moved on, and it answers there
    await until(lambda: not one.ads.connected_nodes() and not one.leader._streams)
    one.ads.publish(world())
    for _ in range(20):
        await asyncio.sleep(0.01)
    assert two.serves(before)


async def test_a_message_of_another_term_ends_the_stream(peer: MakePeer) -> None:
    """Of a leader that took a Lease anew whose messages are on their way still."""

    class Other(leader.Leader):
        async def Follow(self, requests, context):  # type: ignore[no-untyped-def] # noqa: N802
            await anext(requests)
            await context.write(v1.LeaderMessage(term=1, complete=True))
            self.told = True
            await asyncio.Event().wait()

    two, server = await peer("two"), grpc.aio.server()
    other = Other(two.ads)
    other.add_to(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    two.follow(Holder("other", 2, f"127.0.0.1:{port}"))
    await until(lambda: getattr(other, "told", False))
    for _ in range(20):
        await asyncio.sleep(0.01)
    assert two.ads.snapshot is None
    await two.end_following()
    await server.stop(None)


async def test_a_leader_that_is_silent_is_left_and_found_again(
    peer: MakePeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "SILENCE_MAX_S", 0.1)
    monkeypatch.setattr(leader, "BEAT_S", 60.0)
    one, two = await peer("one"), await peer("two")
    await one.lead(1)
    two.follow(one.holder(1))
    one.ads.publish(snapshot := world(endpoint("iris", 1)))
    await until(lambda: two.serves(snapshot))
    first = one.leader._streams["two"]
    await until(lambda: one.leader._streams.get("two") not in (None, first))
    assert two.serves(snapshot)


async def test_a_follower_that_is_silent_is_gone(peer: MakePeer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leader, "SILENCE_MAX_S", 0.2)
    one = await peer("one")
    await one.lead(1)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{one.port}") as channel:
        call = ReplicationStub(channel).Follow()  # type: ignore[no-untyped-call]
        await call.write(v1.FollowerMessage(hello=v1.FollowerHello(follower="x", term=1)))
        stream = v1.EnvoyStream(node="there")
        await call.write(v1.FollowerMessage(envoys=v1.FollowedEnvoys(streams=[stream])))
        await until(lambda: one.ads.connected_nodes() == {"there"})
        await until(lambda: one.ads.away(60.0) == {"there"})


async def test_statistics_come_as_whole_flushes(pair: tuple[Peer, Peer]) -> None:
    one, two = pair
    one.ads.publish(snapshot := world())
    await until(lambda: two.serves(snapshot))
    sent = flush_messages("envoy-1", at_s=5.0, parts=3)
    for message in sent:
        two.take(message)
    await until(lambda: one.flushes)
    assert one.flushes == [sent]


async def test_what_waits_for_the_leader_is_bounded_and_the_oldest_goes(
    peer: MakePeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    two = (await peer("two", clock=clock)).follower
    monkeypatch.setattr(follower, "FLUSHES_MAX", 3)
    two._gathered(None, (b"nobody follows",), clock.now_s())  # type: ignore[arg-type]
    assert (list(two._waiting), two.dropped) == ([], 1)
    two._following = True
    for number in range(5):
        two._gathered(None, (bytes([number]),), clock.now_s())  # type: ignore[arg-type]
    assert [flush.messages for flush in two._waiting] == [(b"\2",), (b"\3",), (b"\4",)]
    assert two.dropped == 3
    monkeypatch.setattr(follower, "FLUSHES_BYTES_MAX", 2)
    two._gathered(None, (b"\5",), clock.now_s())  # type: ignore[arg-type]
    assert [flush.messages for flush in two._waiting] == [(b"\4",), (b"\5",)]
    monkeypatch.setattr(follower, "FLUSH_BYTES_MAX", 0)
    two._gathered(None, (b"too large for one message",), clock.now_s())  # type: ignore[arg-type]
    assert len(two._waiting) == 2


async def test_what_has_waited_for_long_is_unknown_rather_than_late(peer: MakePeer) -> None:
    clock = ManualClock(wall_s=1.0)
    one, two = await peer("one"), await peer("two", clock=clock)
    await one.lead(1)
    two.follow(one.holder(1))
    await until(lambda: one.leader._streams)
    await until(lambda: two.follower._following)
    two.follower._gathered(None, (b"old",), clock.now_s() - follower.FLUSH_AGE_MAX_S - 1.0)  # type: ignore[arg-type]
    two.follower._gathered(None, (b"new",), clock.now_s())  # type: ignore[arg-type]
    await until(lambda: one.flushes)
    assert one.flushes == [[b"new"]]
    assert two.follower.dropped == 1


async def test_a_follower_that_comes_back_takes_the_place_of_its_old_stream(pair: tuple[Peer, Peer]) -> None:
    """The old one may not have ended yet at our side; what it told counts no more."""
    one, two = pair
    one.ads.publish(world(endpoint("iris", 1)))
    envoy = Envoy(two.client("there"))
    await until(lambda: one.ads.connected_nodes() == {"there"})
    await two.end_following()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{one.port}") as channel:
        calls = []
        for _ in range(2):
            calls.append(ReplicationStub(channel).Follow())  # type: ignore[no-untyped-call]
            await calls[-1].write(v1.FollowerMessage(hello=v1.FollowerHello(follower="x", term=1)))
            stream = v1.EnvoyStream(node=f"n{len(calls)}")
            await calls[-1].write(v1.FollowerMessage(envoys=v1.FollowedEnvoys(streams=[stream])))
            await until(lambda: f"n{len(calls)}" in one.ads.connected_nodes())
        calls[0].cancel()
        await until(lambda: one.ads.connected_nodes() == {"n2"})
        calls[1].cancel()
        await until(lambda: one.ads.connected_nodes() == set())
    await envoy.leave()


async def test_who_does_not_lead_is_not_followed_and_the_number_of_followers_is_bounded(
    peer: MakePeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await peer("one")
    assert await refusal(one, "two", 1) is grpc.StatusCode.UNAVAILABLE
    await one.lead(2)
    assert await refusal(one, "two", 1) is grpc.StatusCode.FAILED_PRECONDITION
    assert await refusal(one, "", 2) is grpc.StatusCode.INVALID_ARGUMENT
    monkeypatch.setattr(leader, "FOLLOWERS_MAX", 0)
    assert await refusal(one, "two", 2) is grpc.StatusCode.RESOURCE_EXHAUSTED


async def refusal(one: Peer, name: str, term: int) -> grpc.StatusCode:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{one.port}") as channel:
        return await code_of(channel, name, term)
