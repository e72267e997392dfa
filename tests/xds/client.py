"""A bare client of ADS: says and hears what it is told to, a message at a time."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from envoy_data_plane.envoy.config.core.v3 import Node
from envoy_data_plane.envoy.service.discovery.v3 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)

from trimtab.xds.server import SERVICE


class Client:
    """One ADS stream, a message at a time."""

    def __init__(self, channel: grpc.aio.Channel, *, delta: bool, node: str) -> None:
        method = "DeltaAggregatedResources" if delta else "StreamAggregatedResources"
        self._call = channel.stream_stream(f"/{SERVICE}/{method}")()
        self._request = DeltaDiscoveryRequest if delta else DiscoveryRequest
        self._response = DeltaDiscoveryResponse if delta else DiscoveryResponse
        self._node = Node(id=node)

    async def ask(self, type_url: str, **fields: Any) -> None:
        await self._call.write(bytes(self._request(node=self._node, type_url=type_url, **fields)))

    async def send(self, raw: bytes) -> None:
        await self._call.write(raw)

    async def hear(self, within_s: float | None = 10.0) -> Any:
        raw = await asyncio.wait_for(self._call.read(), within_s)
        assert raw is not grpc.aio.EOF, await self._call.code()
        return self._response.parse(raw)

    async def ending(self) -> tuple[grpc.StatusCode, str]:
        return await self._call.code(), str(await self._call.details())

    def leave(self) -> None:
        self._call.cancel()
