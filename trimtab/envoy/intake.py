"""Takes Envoy's statistics over OTLP (gRPC) and hands on signals, one bundle per flush and Envoy."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from trimtab.core.clock import Clock
from trimtab.envoy.otlp import Flush, joined, parse
from trimtab.envoy.statistics import Before, Signals, signals_of

SERVICE = "opentelemetry.proto.collector.metrics.v1.MetricsService"
SETTLE_S = 0.1  # the messages of one flush leave Envoy within a millisecond of each other
NODES_MAX = 1_000
FORGET_AFTER_S = 600.0

_logger = logging.getLogger(__name__)


@dataclass
class _Node:
    """One Envoy: the flush that is being gathered, and the one handed on before."""

    before: Before | None = None
    before_ns: int = 0
    gathering: Flush | None = None
    began_s: float = 0.0
    timer: asyncio.TimerHandle | None = None


class StatisticsIntake:
    """The OTLP metrics service for Envoys. Must be used from one event loop.

    `on_signals` is called once per flush of each Envoy, when its last message has come. A message
    that cannot be read, or that comes too late to be added, is counted in `dropped` and answered
    like any other: Envoy does not send again.
    """

    def __init__(self, clock: Clock, on_signals: Callable[[Signals], None]) -> None:
        self._clock = clock
        self._on_signals = on_signals
        self._nodes: dict[str, _Node] = {}
        self.received = 0  # messages
        self.dropped = 0

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve on `server`, before it starts. Messages are as large as `data_points_max` allows."""
        export = grpc.unary_unary_rpc_method_handler(self._export)
        handler = grpc.method_handlers_generic_handler(SERVICE, {"Export": export})
        server.add_generic_rpc_handlers((handler,))

    def age_s(self, node: str) -> float | None:
        """Seconds since the last whole flush of a node; None if there was none."""
        known = self._nodes.get(node)
        return self._clock.now_s() - known.before.at_s if known and known.before else None

    def take(self, message: bytes) -> None:
        """One message as it came over the wire."""
        self.received += 1
        try:
            self._add(parse(message))
        except ValueError as error:
            self.dropped += 1
            if self.dropped & (self.dropped - 1) == 0:  # the 1st, 2nd, 4th, 8th …
                _logger.warning("dropped %d messages of statistics; the last: %s", self.dropped, error)

    async def _export(self, message: bytes, _context: Any) -> bytes:
        self.take(message)
        return b""  # an ExportMetricsServiceResponse without a word: all taken

    def _add(self, part: Flush) -> None:
        node = self._node(part.node)
        if node.gathering is not None and node.gathering.at_ns != part.at_ns:
            self._hand_on(node)
        if node.gathering is not None:
            node.gathering = joined(node.gathering, part)
        elif part.at_ns == node.before_ns:
            raise ValueError("came after the rest of its flush was handed on")
        else:
            node.gathering, node.began_s = part, self._clock.now_s()
        if node.timer is not None:
            node.timer.cancel()
        node.timer = asyncio.get_running_loop().call_later(SETTLE_S, self._hand_on, node)

    def _hand_on(self, node: _Node) -> None:
        flush, node.gathering = node.gathering, None
        if node.timer is not None:
            node.timer.cancel()
            node.timer = None
        if flush is not None:
            node.before_ns = flush.at_ns
            signals, node.before = signals_of(flush, node.before, node.began_s)
            self._on_signals(signals)

    def _node(self, name: str) -> _Node:
        known = self._nodes.get(name)
        if known is not None:
            return known
        now_s = self._clock.now_s()
        for other, node in list(self._nodes.items()):
            if node.before is not None and now_s - node.before.at_s > FORGET_AFTER_S:
                del self._nodes[other]
        if len(self._nodes) >= NODES_MAX:
            raise ValueError(f"more than {NODES_MAX} nodes")
        return self._nodes.setdefault(name, _Node())
