"""The ADS server on grpc.aio: one stream per Envoy, state of the world or delta.

Thin: `stream.StreamState` says what to send; here are the sockets, the wake-ups and the record of
who has acknowledged what. A snapshot is merged, not queued: each stream always moves towards the
newest one, with one response under way, so a slow Envoy costs nobody else anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

import grpc
from envoy_data_plane.envoy.service.discovery.v3 import DeltaDiscoveryRequest, DiscoveryRequest

from trimtab.core.clock import Clock
from trimtab.xds.kinds import CLUSTERS
from trimtab.xds.snapshot import Resource, Snapshot
from trimtab.xds.stream import Push, StreamState
from trimtab.xds.subscription import DeltaRequest, StateRequest
from trimtab.xds.wire import field as wire_field
from trimtab.xds.wire import pack_any, repeated, text

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
STREAMS_MAX = 1_000
NODES_MAX = 1_000  # remembered after they disconnected

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[bytes, bytes]


@dataclass(frozen=True)
class TypeStatus:
    """What one node was told of one type, and what it said. `nack` is empty if it took the last one."""

    sent_version: str
    acked_version: str
    nack: str = ""
    nack_at_s: float | None = None  # wall clock


@dataclass(frozen=True)
class NodeStatus:
    """One Envoy: whether it has a stream, since when (wall clock), and each type it asked for."""

    node: str
    connected: bool
    connected_since_s: float
    types: dict[str, TypeStatus] = field(default_factory=dict)


@dataclass
class _Stream:
    state: StreamState
    connected_since_s: float
    node: str = ""
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    def status(self, *, connected: bool = True) -> NodeStatus:
        types = {
            type_url: TypeStatus(
                told.sent_version,
                told.acked_version,
                told.nack.text if told.nack else "",
                told.nack.at_s if told.nack else None,
            )
            for type_url, told in self.state.subscriptions.items()
        }
        return NodeStatus(self.node, connected, self.connected_since_s, types)


class AdsServer:
    """Serves the last published snapshot. `changed` is set whenever `nodes()` may answer differently."""

    def __init__(self, clock: Clock) -> None:
        self.changed = asyncio.Event()
        self._clock = clock
        self._snapshot: Snapshot | None = None
        self._streams: dict[int, _Stream] = {}
        self._gone: dict[str, NodeStatus] = {}
        self._numbers = itertools.count()

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register both variants with a gRPC server. Messages pass as bytes."""
        handlers = {
            "StreamAggregatedResources": grpc.stream_stream_rpc_method_handler(self._state_of_the_world),
            "DeltaAggregatedResources": grpc.stream_stream_rpc_method_handler(self._delta),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    def publish(self, snapshot: Snapshot) -> None:
        """Make this the snapshot that every stream moves towards. Returns at once."""
        self._snapshot = snapshot
        for stream in self._streams.values():
            stream.wake.set()

    def nodes(self) -> tuple[NodeStatus, ...]:
        """Every Envoy that has a stream, and those that had one, by node id."""
        live = {stream.node: stream.status() for stream in self._streams.values() if stream.node}
        return tuple(sorted({**self._gone, **live}.values(), key=lambda status: status.node))

    def acknowledged(self, type_url: str, version: str) -> bool:
        """Whether every connected Envoy has confirmed this version of a type; true if none is connected."""
        return all(self._confirmed(stream, type_url, version) for stream in self._streams.values())

    def _confirmed(self, stream: _Stream, type_url: str, version: str) -> bool:
        subscription = stream.state.subscriptions.get(type_url)
        if subscription is not None:
            return subscription.acked_version == version
        # Envoy asks for the endpoints of clusters only: without clusters there is nothing to confirm.
        clusters = stream.state.subscriptions.get(CLUSTERS)
        snapshot = self._snapshot
        return (
            clusters is not None
            and snapshot is not None
            and snapshot.version(type_url) == version
            and not snapshot.collections[type_url].resources
            and clusters.acked_version == snapshot.version(CLUSTERS)
        )

    async def _state_of_the_world(
        self, requests: AsyncIterator[bytes], context: Context
    ) -> AsyncIterator[bytes]:
        pushes = self._serve(requests, context, StreamState(delta=False), _parse_state)
        async with contextlib.aclosing(pushes):
            async for push in pushes:
                yield _encode_state(push)

    async def _delta(self, requests: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        pushes = self._serve(requests, context, StreamState(delta=True), _parse_delta)
        async with contextlib.aclosing(pushes):
            async for push in pushes:
                yield _encode_delta(push)

    async def _serve(
        self,
        requests: AsyncIterator[bytes],
        context: Context,
        state: StreamState,
        parse: Callable[[bytes], tuple[str, StateRequest | DeltaRequest]],
    ) -> AsyncGenerator[Push, None]:
        """One stream, from its first request until either side ends it. Requests go before pushes."""
        if len(self._streams) >= STREAMS_MAX:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{STREAMS_MAX} streams are open")
        with self._registered(_Stream(state, self._clock.wall_s())) as stream:
            reader = asyncio.create_task(self._read(requests, stream, parse))
            try:
                while not reader.done():
                    stream.wake.clear()
                    push = state.next_push(self._snapshot) if self._snapshot else None
                    self.changed.set()
                    if push is not None:
                        yield push
                    else:
                        await stream.wake.wait()
                await self._report(reader, stream, context)
            finally:
                reader.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await reader

    async def _read(
        self,
        requests: AsyncIterator[bytes],
        stream: _Stream,
        parse: Callable[[bytes], tuple[str, StateRequest | DeltaRequest]],
    ) -> None:
        try:
            async for message in requests:
                node, request = parse(message)
                stream.node = stream.node or node  # only the first request is sure to name it
                if request.error is not None:
                    log.warning("Envoy %s refused %s: %s", stream.node, request.type_url, request.error)
                stream.state.receive(request, self._clock.wall_s())
                stream.wake.set()
        finally:
            stream.wake.set()

    async def _report(self, reader: asyncio.Task[None], stream: _Stream, context: Context) -> None:
        """A request that cannot be read ends its own stream, and is told so."""
        error = reader.exception()
        if error is not None:
            log.warning("stream of Envoy %s ended: %r", stream.node or "(unnamed)", error)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"request cannot be read: {error!r}"[:500])

    @contextlib.contextmanager
    def _registered(self, stream: _Stream) -> Iterator[_Stream]:
        number = next(self._numbers)
        self._streams[number] = stream
        try:
            yield stream
        finally:
            del self._streams[number]
            if stream.node:
                self._gone.pop(stream.node, None)
                self._gone[stream.node] = stream.status(connected=False)
                while len(self._gone) > NODES_MAX:
                    del self._gone[next(iter(self._gone))]
            self.changed.set()


def _parse_state(message: bytes) -> tuple[str, StateRequest]:
    request = DiscoveryRequest.parse(message)
    error = request.error_detail.message if request.error_detail is not None else None
    names = tuple(request.resource_names)
    node = request.node.id if request.node is not None else ""
    return node, StateRequest(request.type_url, names, request.response_nonce, error)


def _parse_delta(message: bytes) -> tuple[str, DeltaRequest]:
    request = DeltaDiscoveryRequest.parse(message)
    error = request.error_detail.message if request.error_detail is not None else None
    node = request.node.id if request.node is not None else ""
    return node, DeltaRequest(
        request.type_url,
        tuple(request.resource_names_subscribe),
        tuple(request.resource_names_unsubscribe),
        dict(request.initial_resource_versions),
        request.response_nonce,
        error,
    )


def _encode_state(push: Push) -> bytes:
    """`DiscoveryResponse`: version_info 1, resources 2, type_url 4, nonce 5."""
    resources = (pack_any(push.type_url, told.payload) for told in push.resources.values())
    return text(1, push.version) + repeated(2, resources) + text(4, push.type_url) + text(5, push.nonce)


def _encode_delta(push: Push) -> bytes:
    """`DeltaDiscoveryResponse`: system_version_info 1, resources 2, type_url 4, nonce 5, removed 6."""

    def named(name: str, told: Resource) -> bytes:
        """`Resource`: version 1, resource 2, name 3."""
        return text(1, told.version) + wire_field(2, pack_any(push.type_url, told.payload)) + text(3, name)

    return (
        text(1, push.version)
        + repeated(2, (named(name, told) for name, told in push.resources.items()))
        + text(4, push.type_url)
        + text(5, push.nonce)
        + repeated(6, (name.encode() for name in push.removed))
    )
