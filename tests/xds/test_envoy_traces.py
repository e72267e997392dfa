"""Spans of the real Envoy over gRPC, and turned on and off while it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import aiohttp
import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from trimtab.xds.world import Tracing

SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"
TRACE = "0af7651916cd43dd8448eb211c80319c"


class Collector:
    def __init__(self) -> None:
        self.traces: set[str] = set()
        self.headers: set[str] = set()
        self.server = grpc.aio.server()
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        export = grpc.unary_unary_rpc_method_handler(self.export)
        handler = grpc.method_handlers_generic_handler(SERVICE, {"Export": export})
        self.server.add_generic_rpc_handlers((handler,))

    async def export(self, message: bytes, context: Any) -> bytes:
        self.headers |= {value for key, value in context.invocation_metadata() if key == "x-team"}
        for resource in ExportTraceServiceRequest.FromString(message).resource_spans:
            self.traces |= {span.trace_id.hex() for scope in resource.scope_spans for span in scope.spans}
        return b""


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    found = Collector()
    await found.server.start()
    yield found
    await found.server.stop(0.1)


async def test_spans_over_grpc_and_a_callers_id_that_stays(
    gate: Any, pods: Any, endpoint: Any, collector: Collector, eventually: Any
) -> None:
    (pod,) = await pods(1)
    iris = endpoint("iris", (pod.port,))
    await gate.publish(iris)
    url = f"{gate.url}/serving-endpoints/iris/invocations"
    address = f"http://127.0.0.1:{collector.port}"
    tracing = Tracing("127.0.0.1", collector.port, address, grpc=True, headers=(("x-team", "ml"),))

    async def ask(trace: str) -> str:
        headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01", "x-request-id": "not a uuid"}
        async with (  # a connection of its own: one that is kept stays with the listener that took it
            aiohttp.ClientSession() as session,
            session.post(url, json={}, headers=headers) as answer,
        ):
            return answer.headers["x-request-id"]

    assert await ask("1" * 32) == "not a uuid", "no bit of it is changed"
    gate.gateway = replace(gate.gateway, tracing=tracing)
    await gate.publish(iris)
    assert await ask(TRACE) == "not a uuid"
    await eventually(lambda: TRACE in collector.traces, "its span is exported")
    assert collector.traces == {TRACE}
    assert collector.headers == {"ml"}
