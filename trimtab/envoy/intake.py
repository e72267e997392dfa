"""Takes Envoy's statistics over OTLP (gRPC) and hands on signals, one bundle per flush and Envoy."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from trimtab.core.clock import Clock
from trimtab.core.turns import give_way
from trimtab.envoy.otlp import Flush, joined, parse
from trimtab.envoy.statistics import Before, Signals, signals_of

SERVICE = "opentelemetry.proto.collector.metrics.v1.MetricsService"
SETTLE_S = 0.1  # the messages of one flush leave Envoy within a millisecond of each other
LATE_S = 0.02  # of a timer: the loop was busy, and what has come meanwhile may still wait to be taken
NODES_MAX = 1_000
FORGET_AFTER_S = 600.0

_logger = logging.getLogger(__name__)

Take = Callable[[bytes], None]
OnFlush = Callable[[Flush, tuple[bytes, ...], float], None]


def serve_statistics(server: grpc.aio.Server, take: Take) -> None:
    """Hand each message that Envoys send to `take`. Before `server` starts.

    Messages are as large as `data_points_max` allows.
    """

    async def export(message: bytes, _context: Any) -> bytes:
        await give_way()
        take(message)
        return b""  # an ExportMetricsServiceResponse without a word: all taken

    method = grpc.unary_unary_rpc_method_handler(export)
    handler = grpc.method_handlers_generic_handler(SERVICE, {"Export": method})
    server.add_generic_rpc_handlers((handler,))


@dataclass
class _Node:
    """One Envoy: the flush that is being gathered, and the time of the one handed on before."""

    before_ns: int = 0
    gathering: Flush | None = None
    messages: list[bytes] = field(default_factory=list)
    began_s: float = 0.0
    timer: asyncio.TimerHandle | None = None


class Flushes:
    """Gathers messages to whole flushes, one Envoy at a time. Must be used from one event loop.

    `on_flush` is called once per flush of each Envoy, when its last message has come: with what it says, its
    messages as they came, and when the first one did (monotonic s). A message that cannot be read, or that
    comes too late to be added, is counted in `dropped`: Envoy does not send again.
    """

    def __init__(self, clock: Clock, on_flush: OnFlush) -> None:
        self._clock = clock
        self._on_flush = on_flush
        self._nodes: dict[str, _Node] = {}
        self.received = 0  # messages
        self.dropped = 0

    def take(self, message: bytes) -> None:
        """One message as it came over the wire."""
        self.received += 1
        try:
            self._add(parse(message), message)
        except ValueError as error:
            self.drop(error)

    def drop(self, error: Exception) -> None:
        """Count a message that is of no use."""
        self.dropped += 1
        if self.dropped & (self.dropped - 1) == 0:  # the 1st, 2nd, 4th, 8th …
            _logger.warning("dropped %d messages of statistics; the last: %s", self.dropped, error)

    def _add(self, part: Flush, message: bytes) -> None:
        node = self._node(part.node)
        if node.gathering is not None and node.gathering.at_ns != part.at_ns:
            self._hand_on(node)
        if node.gathering is not None:
            node.gathering = joined(node.gathering, part)
        elif part.at_ns == node.before_ns:
            raise ValueError("came after the rest of its flush was handed on")
        else:
            node.gathering, node.messages, node.began_s = part, [], self._clock.now_s()
        node.messages.append(message)
        if node.timer is not None:
            node.timer.cancel()
        self._wait(node)

    def _wait(self, node: _Node) -> None:
        loop = asyncio.get_running_loop()
        node.timer = loop.call_later(SETTLE_S, self._settled, node, loop.time() + SETTLE_S)

    def _settled(self, node: _Node, due_s: float) -> None:
        """Nothing more has come. Where we come late that tells nothing; the next flush ends it at last."""
        if asyncio.get_running_loop().time() - due_s > LATE_S:
            self._wait(node)
        else:
            self._hand_on(node)

    def _hand_on(self, node: _Node) -> None:
        flush, messages = node.gathering, tuple(node.messages)
        node.gathering, node.messages = None, []
        if node.timer is not None:
            node.timer.cancel()
            node.timer = None
        if flush is not None:
            node.before_ns = flush.at_ns
            self._on_flush(flush, messages, node.began_s)

    def _node(self, name: str) -> _Node:
        known = self._nodes.get(name)
        if known is not None:
            return known
        now_s = self._clock.now_s()
        for other, node in list(self._nodes.items()):
            if node.gathering is None and now_s - node.began_s > FORGET_AFTER_S:
                del self._nodes[other]
        if len(self._nodes) >= NODES_MAX:
            raise ValueError(f"more than {NODES_MAX} nodes")
        return self._nodes.setdefault(name, _Node())


class StatisticsIntake:
    """The OTLP metrics service for Envoys: `on_signals` is called once per flush of each. See `Flushes`.

    In the loop's next turn, in the order in which the flushes came.
    """

    def __init__(self, clock: Clock, on_signals: Callable[[Signals], None]) -> None:
        self._clock = clock
        self._on_signals = on_signals
        self._flushes = Flushes(clock, self._signal)
        self._before: dict[str, Before] = {}

    @property
    def received(self) -> int:
        """How many messages came."""
        return self._flushes.received

    @property
    def dropped(self) -> int:
        """How many of them were of no use."""
        return self._flushes.dropped

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve on `server`, before it starts."""
        serve_statistics(server, self.take)

    def age_s(self, node: str) -> float | None:
        """Seconds since the last whole flush of a node; None if there was none."""
        before = self._before.get(node)
        return self._clock.now_s() - before.at_s if before else None

    def take(self, message: bytes) -> None:
        """One message as it came over the wire."""
        self._flushes.take(message)

    async def take_whole(self, messages: Sequence[bytes]) -> None:
        """All messages of one flush, which somebody else has gathered; others have their turns meanwhile."""
        self._flushes.received += len(messages)
        try:
            flush = parse(messages[0])
            for message in messages[1:]:
                await give_way()
                flush = joined(flush, parse(message))
        except (ValueError, IndexError) as error:
            self._flushes.drop(error)
            return
        self._signal(flush, (), self._clock.now_s())

    def _signal(self, flush: Flush, _messages: tuple[bytes, ...], began_s: float) -> None:
        if flush.node not in self._before:
            self._forget_old(began_s)
        signals, self._before[flush.node] = signals_of(flush, self._before.get(flush.node), began_s)
        # In a turn of its own: of thousands of endpoints both this and what follows take some milliseconds.
        asyncio.get_running_loop().call_soon(self._on_signals, signals)

    def _forget_old(self, now_s: float) -> None:
        for node, before in list(self._before.items()):
            if now_s - before.at_s > FORGET_AFTER_S or len(self._before) >= NODES_MAX:
                del self._before[node]
