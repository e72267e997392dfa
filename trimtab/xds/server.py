"""ADS over gRPC: many streams, one published snapshot. The protocol itself is in `stream`.

Everything runs on one event loop and nothing here blocks it: `publish` only replaces the snapshot
and wakes the streams; each stream writes at its own client's pace.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import grpc

from trimtab.core.clock import Clock
from trimtab.core.errors import InvalidInput
from trimtab.xds import messages
from trimtab.xds.kinds import ADDITION_ORDER, ASSIGNMENTS, CLUSTERS, ROUTES, SHORT
from trimtab.xds.snapshot import NOTHING, Collection, Snapshot, shared_clusters
from trimtab.xds.stream import Push, StreamState
from trimtab.xds.subscription import DeltaRequest, StateRequest, Subscription

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
STREAMS_MAX = 1_000
NAMES_MAX = 100_000  # that one stream may subscribe to, of one type
NODES_MAX = 1_000  # whose last status is kept after their stream has ended
ROUTES_BYTES_PER_S, ROUTES_REST_MAX_S = 4e6, 1.0  # to one Envoy: a thousand endpoints have megabytes of them
VERSIONS_MAX = 1_000  # published versions of one type that `acknowledged` can still be asked about

log = logging.getLogger(__name__)

Requests = AsyncIterator[bytes]
Context = grpc.aio.ServicerContext[bytes, bytes]


@dataclass(frozen=True)
class TypeStatus:
    """How far one Envoy is with one type. `nack` is Envoy's words, empty if it took the last push."""

    type_url: str
    sent_version: str = ""
    acked_version: str = ""
    nack: str = ""
    nack_at_s: float = 0.0  # wall clock

    @property
    def short(self) -> str:
        """clusters, endpoints, listeners or routes."""
        return SHORT[self.type_url]


@dataclass(frozen=True)
class NodeStatus:
    """One Envoy by its node's id. Times are wall clock; `types` in the order in which they are sent."""

    node: str
    connected: bool
    connected_since_s: float
    types: tuple[TypeStatus, ...] = ()


@dataclass(frozen=True)
class StreamStatus:
    """One stream of an Envoy, and of every type (by its URL) the version of the collection in force there."""

    status: NodeStatus
    in_force: Mapping[str, str]


@dataclass(frozen=True)
class Variant:
    """One of the protocol's two variants: how its messages are read and written."""

    delta: bool
    parse: Callable[[bytes], tuple[str, StateRequest | DeltaRequest]]
    encode: Callable[[Push], bytes]


STATE = Variant(False, messages.parse_state, messages.encode_state)
DELTA = Variant(True, messages.parse_delta, messages.encode_delta)


@dataclass(eq=False)
class _Stream:
    state: StreamState
    connected_since_s: float
    node: str = ""  # known from the first request on
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    news_at_s: float | None = None  # the oldest of pods that it was not yet sent; monotonic
    held: frozenset[str] = frozenset()  # types of which nothing new is sent for a moment
    status: NodeStatus | None = None


class AdsServer:
    """Serves one snapshot to every Envoy that connects, and knows how far each of them is.

    Those that another server serves are counted too, by what it tells of them: see `relayed`. `changed` is
    set whenever `nodes()` or `acknowledged()` may answer differently. All methods are called on the event
    loop of the gRPC server, and none of them blocks.
    """

    def __init__(self, clock: Clock) -> None:
        self.changed = asyncio.Event()
        self.sent: Callable[[float], object] = lambda _: None  # see `publish`
        self._clock = clock
        self._snapshot: Snapshot | None = None
        self._watchers: set[asyncio.Event] = set()
        self._streams: set[_Stream] = set()
        self._relayed: dict[str, tuple[StreamStatus, ...]] = {}  # by who tells of them
        self._last_seen: OrderedDict[str, tuple[NodeStatus, float]] = OrderedDict()  # and when: monotonic s
        self._leaving: set[str] = set()  # nodes of Envoys that are connected, and drain
        self._order: dict[str, OrderedDict[str, int]] = {kind: OrderedDict() for kind in ADDITION_ORDER}
        self._published = 0
        self._ranks: dict[str, int] = {}
        self._shared: dict[tuple[int, int | None], tuple[str, Collection]] = {}  # see `_shares_of`

    @property
    def snapshot(self) -> Snapshot | None:
        """What was published last."""
        return self._snapshot

    @contextmanager
    def publications(self) -> Iterator[asyncio.Event]:
        """An event that is set whenever another snapshot is published."""
        published = asyncio.Event()
        self._watchers.add(published)
        try:
            yield published
        finally:
            self._watchers.discard(published)

    def publish(self, snapshot: Snapshot, news_at_s: float | None = None) -> None:
        """Make `snapshot` what every Envoy should have. Returns at once; a later one replaces it.

        `news_at_s` (monotonic): when the news of pods came that it follows from. `sent` is called with what
        then passes (s) until an Envoy is sent them, of each stream.
        """
        before, self._snapshot = self._snapshot, snapshot
        if before is not None and snapshot.versions == before.versions and snapshot.envoys == before.envoys:
            return
        if before is None or snapshot.envoys != before.envoys:
            self._shared.clear()
            self._ranks = {node: rank for rank, node in enumerate(snapshot.envoys)}
        self._published += 1
        for type_url, version in snapshot.versions.items():
            order = self._order[type_url]
            order[version] = self._published
            order.move_to_end(version)
            while len(order) > VERSIONS_MAX:
                order.popitem(last=False)
        told = before is not None and snapshot.version(ASSIGNMENTS) != before.version(ASSIGNMENTS)
        for stream in self._streams:
            if told and stream.news_at_s is None and ASSIGNMENTS in stream.state.subscriptions:
                stream.news_at_s = news_at_s
        for wake in (*(stream.wake for stream in self._streams), *self._watchers):
            wake.set()

    def relayed(self, source: str, streams: tuple[StreamStatus, ...]) -> None:
        """All streams of Envoys that another server has, as `source` tells; none once it is silent."""
        before = self._relayed.pop(source, ())
        if streams:
            self._relayed[source] = streams
        if streams == before:
            return
        connected = self.connected_nodes()
        for stream in before:
            if stream.status.node not in connected:
                self._note_gone(stream.status)
        self.changed.set()

    def streams(self) -> tuple[StreamStatus, ...]:
        """Of the Envoys that are connected to us, for who decides about them elsewhere."""
        return tuple(
            StreamStatus(
                _status(stream, connected=True), {kind: self._acked(stream, kind) for kind in ADDITION_ORDER}
            )
            for stream in self._streams
            if stream.node
        )

    def connected_nodes(self) -> set[str]:
        """The nodes of all Envoys that have a stream, here or elsewhere."""
        here = {stream.node for stream in self._streams if stream.node}
        return here | {stream.status.node for some in self._relayed.values() for stream in some}

    def away(self, within_s: float) -> set[str]:
        """The nodes of Envoys that had a stream within the last `within_s` seconds, and have none."""
        now_s = self._clock.now_s()
        lately = {node for node, (_, at_s) in self._last_seen.items() if now_s - at_s < within_s}
        return lately - self.connected_nodes()

    def leaves(self, node: str) -> None:
        """This Envoy drains: once its stream has ended it is gone, and nobody waits for it to come back."""
        if node in self.connected_nodes():
            self._leaving.add(node)

    def acknowledged(self, type_url: str, version: str) -> bool:
        """Whether every connected Envoy has in force the collection of this version, or a later one.

        False while none is connected, and for a version that was never published or long ago.
        """
        self._note_shares()
        order = self._order[type_url]
        wanted = order.get(version)
        in_force = [self._acked(stream, type_url) for stream in self._streams if stream.node]
        for some in self._relayed.values():
            in_force += [stream.in_force.get(type_url, "") for stream in some]
        if wanted is None or not in_force:
            return False
        return all(order.get(one, -1) >= wanted for one in in_force)

    def nodes(self) -> tuple[NodeStatus, ...]:
        """Every Envoy that is connected or was, by node id; of overlapping streams the newest."""
        found = {node: status for node, (status, _) in self._last_seen.items()}
        streams = [_status(stream, connected=True) for stream in self._streams if stream.node]
        streams += [stream.status for some in self._relayed.values() for stream in some]
        for status in sorted(streams, key=lambda one: one.connected_since_s):
            found[status.node] = status
        return tuple(found[node] for node in sorted(found))

    def any_refused(self) -> bool:
        """Whether a type of any Envoy in `nodes()` was refused as it was last sent: mostly none was."""
        if any(each.nack for stream in self._streams for each in stream.state.subscriptions.values()):
            return True
        told = [stream.status for some in self._relayed.values() for stream in some]
        told += [status for status, _ in self._last_seen.values()]
        return any(each.nack for status in told for each in status.types)

    def add_to(self, server: grpc.aio.Server) -> None:
        """Add the service to a server that is not yet started."""
        handlers = {
            "StreamAggregatedResources": self._handler(STATE),
            "DeltaAggregatedResources": self._handler(DELTA),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    def _shares_of(self, node: str, snapshot: Snapshot) -> Snapshot:
        """What this Envoy should have: of each limit its share, and the least if it is not yet counted."""
        if not snapshot.envoys:
            return snapshot
        rank = self._ranks.get(node)
        envoys = len(snapshot.envoys) + (rank is None)
        whole, before = snapshot.collections[CLUSTERS], self._shared.get((envoys, rank), NOTHING)
        found = before[1] if before[0] == whole.version else shared_clusters(whole, envoys, rank, before)
        self._shared[envoys, rank] = whole.version, found
        self._order[CLUSTERS][found.version] = self._published
        self._order[CLUSTERS].move_to_end(found.version)
        return Snapshot({**snapshot.collections, CLUSTERS: found}, snapshot.envoys)

    def _note_shares(self) -> None:
        """So that what Envoys elsewhere have of clusters is known, too."""
        if self._snapshot is not None and self._relayed:
            for node in self._snapshot.envoys:
                self._shares_of(node, self._snapshot)

    def _acked(self, stream: _Stream, type_url: str) -> str:
        subscription = stream.state.subscriptions.get(type_url)
        if subscription is not None:
            return subscription.acked_version
        # An Envoy asks for no endpoints while it has no cluster: then none is what it has.
        empty = self._snapshot is not None and not self._snapshot.collections[type_url].resources
        return self._snapshot.version(type_url) if self._snapshot is not None and empty else ""

    def _handler(self, variant: Variant) -> grpc.RpcMethodHandler[bytes, bytes]:
        async def serve(requests: Requests, context: Context) -> None:
            await self._serve(variant, requests, context)

        return grpc.stream_stream_rpc_method_handler(serve)

    async def _serve(self, variant: Variant, requests: Requests, context: Context) -> None:
        if len(self._streams) >= STREAMS_MAX:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{STREAMS_MAX} streams are open already")
        stream = _Stream(StreamState(delta=variant.delta), self._clock.wall_s())
        self._streams.add(stream)
        writer = asyncio.create_task(self._write(variant, stream, context.write))
        reader = asyncio.create_task(self._read(variant, stream, requests))
        try:
            await asyncio.wait({writer, reader}, return_when=asyncio.FIRST_COMPLETED)
            for task in (writer, reader):
                if task.done():
                    task.result()
        except InvalidInput as error:
            log.warning("stream of Envoy `%s` ended: %s", stream.node, error)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        finally:
            self._forget(stream)  # before any await: a second cancellation would leave it registered
            for task in (writer, reader):
                task.cancel()
            await asyncio.gather(writer, reader, return_exceptions=True)

    async def _read(self, variant: Variant, stream: _Stream, requests: Requests) -> None:
        async for raw in requests:
            node, request = variant.parse(raw)
            if node and not stream.node:
                stream.node = node
                self._leaving.discard(node)  # whoever drained was another one of this name
            if not stream.node:
                raise InvalidInput("the first request names no node", hint="set node.id in the bootstrap")
            if request.error is not None:
                log.warning("Envoy `%s` refused %s: %s", stream.node, request.type_url, request.error)
            stream.state.receive(request, self._clock.wall_s())
            if any(len(one.names) > NAMES_MAX for one in stream.state.subscriptions.values()):
                raise InvalidInput(f"more than {NAMES_MAX} names of one type")
            stream.wake.set()

    async def _write(
        self, variant: Variant, stream: _Stream, write: Callable[[bytes], Awaitable[None]]
    ) -> None:
        while True:
            await stream.wake.wait()
            stream.wake.clear()
            while self._snapshot is not None:
                push = stream.state.next_push(self._shares_of(stream.node, self._snapshot), stream.held)
                self._note_change(stream)
                if push is None:
                    break
                encoded = variant.encode(push)
                if push.type_url == ROUTES:
                    self._hold_routes(stream, len(encoded))
                await write(encoded)
                if push.type_url == ASSIGNMENTS and stream.news_at_s is not None:
                    self.sent(self._clock.now_s() - stream.news_at_s)
                    stream.news_at_s = None
            if not stream.state.awaits(ASSIGNMENTS):  # what follows from the news is nothing to this one
                stream.news_at_s = None

    def _hold_routes(self, stream: _Stream, size: int) -> None:
        """Those just sent do for a moment: pods come before the next ones."""

        def go_on() -> None:
            stream.held = frozenset()
            stream.wake.set()

        stream.held = frozenset({ROUTES})
        asyncio.get_running_loop().call_later(min(ROUTES_REST_MAX_S, size / ROUTES_BYTES_PER_S), go_on)

    def _note_change(self, stream: _Stream) -> None:
        status = _status(stream, connected=True)
        if status != stream.status:
            stream.status = status
            self.changed.set()

    def _forget(self, stream: _Stream) -> None:
        self._streams.discard(stream)
        if stream.node:
            self._note_gone(_status(stream, connected=True))
        self.changed.set()

    def _note_gone(self, status: NodeStatus) -> None:
        if status.node in self._leaving:
            if status.node not in self.connected_nodes():
                self._leaving.discard(status.node)
                self._last_seen.pop(status.node, None)
            return
        self._last_seen[status.node] = replace(status, connected=False), self._clock.now_s()
        self._last_seen.move_to_end(status.node)
        while len(self._last_seen) > NODES_MAX:
            self._last_seen.popitem(last=False)


def _status(stream: _Stream, *, connected: bool) -> NodeStatus:
    subscriptions = stream.state.subscriptions
    types = tuple(_type_status(subscriptions[kind]) for kind in ADDITION_ORDER if kind in subscriptions)
    return NodeStatus(stream.node, connected, stream.connected_since_s, types)


def _type_status(subscription: Subscription) -> TypeStatus:
    nack = subscription.nack
    return TypeStatus(
        type_url=subscription.type_url,
        sent_version=subscription.sent_version,
        acked_version=subscription.acked_version,
        nack=nack.text if nack else "",
        nack_at_s=nack.at_s if nack else 0.0,
    )
