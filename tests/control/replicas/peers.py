"""Control planes that lead and follow each other over real gRPC on loopback, without anything to decide."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc

from tests.xds.client import Client
from trimtab.control.replicas import Follower, Leader
from trimtab.core.clock import Clock, SystemClock
from trimtab.core.names import EndpointName
from trimtab.core.protocol import Protocol
from trimtab.core.revision import RevisionKey
from trimtab.envoy.intake import serve_statistics
from trimtab.kube import Holder
from trimtab.v1 import replication_pb2 as v1
from trimtab.v1.replication_pb2_grpc import ReplicationStub
from trimtab.xds.kinds import CLUSTERS, LISTENERS
from trimtab.xds.server import AdsServer
from trimtab.xds.snapshot import Snapshot, build_snapshot
from trimtab.xds.world import Backend, EndpointView, Gateway, RevisionView, Share, World

GATEWAY = Gateway("127.0.0.1", 8080)


def endpoint(name: str, *ports: int, target: int = 1, draining: tuple[int, ...] = ()) -> EndpointView:
    key = RevisionKey(EndpointName.parse(name), 1)
    backends = tuple(Backend("127.0.0.1", port, draining=port in draining) for port in ports)
    revision = RevisionView(key, frozenset({Protocol.INVOCATIONS}), target, 100, backends)
    return EndpointView(key.endpoint, (revision,), (Share(key, 100),))


def world(*endpoints: EndpointView) -> Snapshot:
    return build_snapshot(World(GATEWAY, endpoints))


class Peer:
    """One control plane. Without a `socket` Envoys and others reach it over TCP alone."""

    def __init__(self, name: str, clock: Clock | None = None, socket: Path | None = None) -> None:
        self.name = name
        self.ads = AdsServer(clock or SystemClock())
        self.leader = Leader(self.ads)
        self.opened = asyncio.Event()
        self.follower = Follower(name, self.ads, clock or SystemClock(), self.connect, self._serve)
        self.take: Callable[[bytes], None] = self.follower.take
        self.flushes: list[list[bytes]] = []
        self.server = grpc.aio.server()
        self.ads.add_to(self.server)
        self.leader.add_to(self.server)
        serve_statistics(self.server, self._take)
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        if socket is not None:
            self.server.add_insecure_port(f"unix:{socket}")
        self._following: asyncio.Task[None] | None = None
        self._channels: list[grpc.aio.Channel] = []

    async def start(self) -> None:
        await self.server.start()

    def _take(self, message: bytes) -> None:
        self.take(message)

    async def _serve(self) -> None:
        self.opened.set()

    def connect(self, address: str) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(address)

    def holder(self, term: int) -> Holder:
        """This one, as the Lease shows it."""
        return Holder(self.name, term, f"127.0.0.1:{self.port}")

    async def lead(self, term: int) -> None:
        await self.end_following()
        self.leader.lead(term, self._flush)

    async def _flush(self, messages: Sequence[bytes]) -> None:
        self.flushes.append(list(messages))

    def follow(self, holder: Holder | None) -> None:
        self.follower.saw(holder)
        if self._following is None:
            self._following = asyncio.create_task(self.follower.run())

    async def end_following(self) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
            self._following = None

    def client(self, node: str) -> Client:
        """An Envoy that has connected to this one; it says only what it is told to."""
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.port}")
        self._channels.append(channel)
        return Client(channel, delta=True, node=node)

    async def die(self) -> None:
        await self.end_following()
        await self.server.stop(None)
        for channel in self._channels:
            await channel.close()

    def all_acknowledged(self, snapshot: Snapshot) -> bool:
        return all(self.ads.acknowledged(kind, version) for kind, version in snapshot.versions.items())

    def serves(self, snapshot: Snapshot) -> bool:
        return self.ads.snapshot is not None and self.ads.snapshot.versions == snapshot.versions


class Envoy:
    """Asks for clusters and listeners, and says yes to each push."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.heard: list[Any] = []
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        for kind in (CLUSTERS, LISTENERS):
            await self._client.ask(kind)
        while True:
            answer = await self._client.hear(within_s=None)
            self.heard.append(answer)
            await self._client.ask(answer.type_url, response_nonce=answer.nonce)

    async def leave(self) -> None:
        self._client.leave()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def code_of(channel: grpc.aio.Channel, name: str, term: int) -> grpc.StatusCode:
    """How a stream ends that is opened by this follower in this term."""
    call = ReplicationStub(channel).Follow()  # type: ignore[no-untyped-call]
    hello = v1.FollowerMessage(hello=v1.FollowerHello(follower=name, term=term))
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # it was refused before
        await call.write(hello)
    async with asyncio.timeout(10):
        code: grpc.StatusCode = await call.code()
    return code
