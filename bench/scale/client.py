"""An xDS client that behaves as Envoy does, as far as a control plane can tell, and knows when what came."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterable
from typing import TypeAlias

import grpc

from bench.scale import wire
from trimtab.xds.kinds import ASSIGNMENTS, CLUSTERS, LISTENERS, ROUTES
from trimtab.xds.routes import ROUTE_TABLE

METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
BACK_FIRST_S, BACK_MAX_S = 0.1, 2.0  # between two tries, as in Envoy's bootstrap
MESSAGE_BYTES_MAX = 256 << 20

Call: TypeAlias = "grpc.aio.StreamStreamCall[bytes, bytes]"
Arrived = Callable[[str, frozenset[str]], None]


class Client:
    """One stream of deltas; it comes back by itself.

    `arrived(cluster, addresses)` is called of each assignment.
    """

    def __init__(self, node: str, address: str, arrived: Arrived = lambda _cluster, _hosts: None) -> None:
        self._node = node
        self._address = address
        self._arrived = arrived
        self._versions: dict[str, dict[str, str]] = {kind: {} for kind in (CLUSTERS, LISTENERS, ROUTES)}
        self.since: dict[str, dict[str, float]] = {}  # by cluster: since when it has each address
        self.streams = 0
        self.connected_at_s = 0.0  # when the first answer of the present stream came
        self.taken = 0  # resources, in all

    @property
    def pods(self) -> int:
        return sum(map(len, self.since.values()))

    def knows(self, endpoints: int, pods: int) -> bool:
        """Whether it is programmed: so many clusters with so many pods in all, a listener, and its routes."""
        whole = len(self._versions[CLUSTERS]) >= endpoints and self.pods >= pods
        return whole and bool(self._versions[LISTENERS] and self._versions[ROUTES])

    def forget(self) -> None:
        """As an Envoy that is started anew."""
        self.since = {}
        for known in self._versions.values():
            known.clear()

    async def run(self) -> None:
        """Until cancelled."""
        back_s = BACK_FIRST_S
        options = [
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
            ("grpc.initial_reconnect_backoff_ms", int(1e3 * BACK_FIRST_S)),
            ("grpc.min_reconnect_backoff_ms", int(1e3 * BACK_FIRST_S)),
            ("grpc.max_reconnect_backoff_ms", int(1e3 * BACK_MAX_S)),
        ]
        async with grpc.aio.insecure_channel(self._address, options=options) as channel:
            while True:
                await channel.channel_ready()  # what is asked for depends on what is known then
                with contextlib.suppress(grpc.aio.AioRpcError):
                    began_s = time.monotonic()
                    await self._stream(channel)
                    if time.monotonic() - began_s > BACK_MAX_S:
                        back_s = BACK_FIRST_S
                await asyncio.sleep(back_s * random.uniform(0.5, 1.0))
                back_s = min(BACK_MAX_S, 2 * back_s)

    async def _stream(self, channel: grpc.aio.Channel) -> None:
        call = channel.stream_stream(METHOD, _as_is, _as_is)(None, wait_for_ready=True)
        first = True
        try:
            for kind in (CLUSTERS, LISTENERS):
                await call.write(wire.asked(self._node, kind, known=self._versions[kind]))
            if self.since:  # of the stream before
                await self._subscribe(call, ASSIGNMENTS, self._versions[CLUSTERS])
            if self._versions[LISTENERS]:
                await self._subscribe(call, ROUTES, [ROUTE_TABLE], self._versions[ROUTES])
            async for raw in call:
                if first:
                    first, self.connected_at_s = False, time.monotonic()
                    self.streams += 1
                await self._take(call, wire.read(raw))
        finally:
            call.cancel()

    async def _take(self, call: Call, told: wire.Told) -> None:
        self.taken += len(told.resources)
        if told.type_url == ASSIGNMENTS:
            self._note_assignments(told)
        else:
            await self._note(call, told)
        await call.write(wire.asked(self._node, told.type_url, nonce=told.nonce))

    def _note_assignments(self, told: wire.Told) -> None:
        now_s = time.monotonic()
        for name, (_, payload) in told.resources.items():
            hosts, before = wire.hosts(payload), self.since.get(name, {})
            self.since[name] = {host: before.get(host, now_s) for host in hosts}
            self._arrived(name, hosts)
        for name in told.removed:
            self.since.pop(name, None)

    async def _note(self, call: Call, told: wire.Told) -> None:
        """What was told refers to more: ask for that, then acknowledge."""
        known = self._versions[told.type_url]
        new = told.resources.keys() - known.keys()
        known.update({name: version for name, (version, _) in told.resources.items()})
        for name in told.removed:
            known.pop(name, None)
        if told.type_url == CLUSTERS:
            for name in told.removed:
                self.since.pop(name, None)
            if new or told.removed:
                await self._subscribe(call, ASSIGNMENTS, new, gone=told.removed)
        if told.type_url == LISTENERS and new:
            await self._subscribe(call, ROUTES, [ROUTE_TABLE])

    async def _subscribe(
        self,
        call: Call,
        kind: str,
        names: Iterable[str],
        known: dict[str, str] | None = None,
        gone: tuple[str, ...] = (),
    ) -> None:
        asked = wire.asked(self._node, kind, subscribe=sorted(names), unsubscribe=gone, known=known)
        await call.write(asked)


def _as_is(raw: bytes) -> bytes:
    """We read and write the messages ourselves."""
    return raw
