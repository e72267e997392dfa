"""gRPC through the real Envoy to a server that speaks HTTP/1.1 alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import pytest
from aiohttp import web

from trimtab.core.protocol import Protocol
from trimtab.core.revision import RevisionKey
from trimtab.xds.world import Backend, EndpointView, RevisionView, Share

SERVICE = "inference.GRPCInferenceService"
INFER = f"/{SERVICE}/ModelInfer"
BOTH = (Protocol.OPEN_INFERENCE_REST, Protocol.OPEN_INFERENCE_GRPC)
LARGE = bytes(3 << 20)


class Server:
    """Echoes a message; one that is `refuse` it refuses. Whatever is not gRPC gets `plain`."""

    def __init__(self) -> None:
        self.in_flight = self.in_flight_max = 0
        self.open = asyncio.Event()
        self.open.set()

    async def answer(self, request: web.Request) -> web.Response:
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)
        try:
            body = await request.read()
            await self.open.wait()
        finally:
            self.in_flight -= 1
        if request.content_type != "application/grpc":
            return web.Response(text="plain")
        headers = {"content-type": "application/grpc"}
        if body[5:] == b"refuse":
            words = {"grpc-status": "3", "grpc-message": "not%20so", "x-trimtab-fault": "model"}
            return web.Response(headers=headers | words)
        return web.Response(body=body, headers=headers)


@pytest.fixture
async def server() -> AsyncIterator[tuple[Server, int]]:
    made = Server()
    app = web.Application(client_max_size=64 << 20)
    app.router.add_route("*", "/{tail:.*}", made.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield made, runner.addresses[0][1]
    made.open.set()
    await runner.cleanup()


@pytest.fixture
async def channel(gate: Any) -> AsyncIterator[grpc.aio.Channel]:
    options = [("grpc.default_authority", "iris.localhost"), ("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gate.gateway.port}", options=options) as channel:
        yield channel


async def test_messages_errors_and_what_is_refused(
    gate: Any, server: tuple[Server, int], endpoint: Any, channel: Any
) -> None:
    await gate.publish(endpoint("iris", (server[1],), protocols=BOTH, target=4, bridged=True))
    call = channel.unary_unary(INFER)
    assert await call(b"1") == b"1"
    assert await call(b"") == b""
    assert await call(LARGE) == LARGE
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(b"refuse")
    assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "not so")
    told = [*(refused.value.initial_metadata() or ()), *(refused.value.trailing_metadata() or ())]
    assert [value for key, value in told if key == "x-trimtab-fault"] == ["model"]
    with pytest.raises(grpc.aio.AioRpcError) as stream:
        async for _ in channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")():
            pass
    assert stream.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "does not serve this path" in str(stream.value.details())


async def test_both_share_one_limit_and_one_queue(
    gate: Any, server: tuple[Server, int], endpoint: Any, http: Any, channel: Any, eventually: Any
) -> None:
    model, port = server
    await gate.publish(endpoint("iris", (port,), protocols=BOTH, target=2, queue_max=5, bridged=True))
    model.open.clear()
    call = channel.unary_unary(INFER)

    async def code() -> grpc.StatusCode:
        try:
            await call(b"x")
        except grpc.aio.AioRpcError as refused:
            return refused.code()
        return grpc.StatusCode.OK

    async def status() -> int:
        async with http.post(f"{gate.url}/serving-endpoints/iris/v2/models/m/infer", json={}) as answer:
            return int(answer.status)

    asked = [asyncio.ensure_future(status()) for _ in range(4)]
    await eventually(lambda: model.in_flight == 2, "the pod is full")
    calls = [asyncio.ensure_future(code()) for _ in range(5)]
    await eventually(lambda: sum(one.done() for one in calls) >= 2, "what does not fit is refused")
    model.open.set()
    assert await asyncio.gather(*asked) == [200] * 4
    codes = await asyncio.gather(*calls)
    assert codes.count(grpc.StatusCode.OK) == 3
    assert codes.count(grpc.StatusCode.UNAVAILABLE) == 2
    assert model.in_flight_max == 2


async def test_an_endpoint_with_the_longest_of_names(
    gate: Any, server: tuple[Server, int], endpoint: Any, http: Any
) -> None:
    """Envoy bounds regular expressions, and refuses all routes for one that is too long."""
    name = f"{'n' * 63}.{'m' * 63}"
    await gate.publish(endpoint(name, (server[1],), protocols=tuple(Protocol), bridged=True))
    async with http.get(f"{gate.url}/serving-endpoints/{name}/v2/models/x/ready") as answer:
        assert (answer.status, await answer.text()) == (200, "plain")
    async with http.post(f"{gate.url}/v1/completions", headers={"x-trimtab-endpoint": name}) as answer:
        assert (answer.status, await answer.text()) == (200, "plain")


async def test_no_pod_is_an_error_in_grpcs_own_form(gate: Any, endpoint: Any, channel: Any) -> None:
    await gate.publish(endpoint("iris", (), protocols=BOTH, bridged=True))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await channel.unary_unary(INFER)(b"x")
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "no pod" in str(refused.value.details())


async def test_an_endpoint_on_its_way_from_one_kind_of_server_to_the_other(
    gate: Any, server: tuple[Server, int], endpoint: Any, channel: Any
) -> None:
    """While both have a share, each is spoken to as it understands."""

    async def infer(request: bytes, _context: Any) -> bytes:
        return b"native"

    native = grpc.aio.server()
    port = native.add_insecure_port("127.0.0.1:0")
    handlers = {"ModelInfer": grpc.unary_unary_rpc_method_handler(infer)}
    native.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    await native.start()
    try:
        old = endpoint("iris", (server[1],), protocols=BOTH, target=4, bridged=True)
        key = RevisionKey(old.name, 2)
        only = frozenset({Protocol.OPEN_INFERENCE_GRPC})
        new = RevisionView(key, only, 4, 100, (Backend("127.0.0.1", port),))
        shares = (replace(old.shares[0], percent=50), Share(key, 50))
        await gate.publish(EndpointView(old.name, (*old.revisions, new), shares, 30.0))
        call = channel.unary_unary(INFER)
        seen: set[bytes] = set()
        for _ in range(200):
            seen.add(await call(b"echo"))
            if len(seen) == 2:
                break
        assert seen == {b"echo", b"native"}
    finally:
        await native.stop(0)
