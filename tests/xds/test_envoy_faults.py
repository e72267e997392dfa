"""Whose fault an error is, told by the real Envoy of servers that do not tell it themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from aiohttp import web

from trimtab.core.protocol import Protocol

HEADER = "x-trimtab-fault"
SERVICE = "inference.GRPCInferenceService"
DEADLINE_S = 30.0


@pytest.fixture
async def server() -> AsyncIterator[int]:
    """A server that answers with the status and the headers that it is asked for; its port."""

    async def answer(request: web.Request) -> web.Response:
        asked = await request.json()
        return web.json_response({"as": "it is"}, status=asked["status"], headers=asked.get("headers", {}))

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    yield site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    await runner.cleanup()


# Status, what the server says itself, and what callers are told.
ANSWERS: tuple[tuple[int, str | None, str | None], ...] = (
    (200, None, None),
    (400, None, "caller"),
    (404, None, "caller"),
    (429, None, "caller"),
    (500, None, "model"),
    (503, None, "model"),
    (400, "model", "model"),
    (503, "platform", "platform"),
)
CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: "caller",
    grpc.StatusCode.UNIMPLEMENTED: "caller",
    grpc.StatusCode.INTERNAL: "model",
    grpc.StatusCode.UNAVAILABLE: "model",
}


async def test_by_the_status_unless_the_server_says_so_itself(
    gate: Any, server: int, endpoint: Any, http: Any
) -> None:
    await gate.publish(endpoint("iris", (server,)))
    for status, own, fault in ANSWERS:
        asked = {"status": status} | ({"headers": {HEADER: own}} if own else {})
        async with http.post(f"{gate.url}/serving-endpoints/iris/invocations", json=asked) as answer:
            assert (answer.status, answer.headers.getall(HEADER, [])) == (status, [fault] if fault else [])
            assert await answer.json() == {"as": "it is"}


async def test_what_envoy_answers_stays_the_platforms_or_the_callers(
    gate: Any, endpoint: Any, http: Any
) -> None:
    await gate.publish(endpoint("iris"))
    for name, found in (("iris", (503, ["platform"])), ("nobody", (404, ["caller"]))):
        async with http.post(f"{gate.url}/serving-endpoints/{name}/invocations", json={}) as answer:
            assert (answer.status, answer.headers.getall(HEADER)) == found


async def test_of_grpc_by_its_own_status(gate: Any, endpoint: Any) -> None:
    """A server's error alone comes in the headers, and behind a part of an answer in the trailers."""

    async def stream(requests: Any, context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            name, _, begun = request.decode().partition(" ")
            if begun:
                yield b"part"
            await context.abort(grpc.StatusCode[name], "in its own words")

    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    methods = {"ModelStreamInfer": grpc.stream_stream_rpc_method_handler(stream)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    await server.start()
    try:
        await gate.publish(endpoint("iris", (port,), protocols=(Protocol.OPEN_INFERENCE_GRPC,)))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{gate.gateway.port}") as channel:
            for code, fault in CODES.items():
                assert await told(channel, code, "") == [fault]
                assert await told(channel, code, " begun") == [fault]
    finally:
        await server.stop(0)


async def told(channel: grpc.aio.Channel, code: grpc.StatusCode, begun: str) -> list[Any]:
    """Whose fault a call is that fails with this status, by its trailing metadata."""
    call = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(
        metadata=(("x-trimtab-endpoint", "iris"),), timeout=DEADLINE_S
    )
    await call.write(f"{code.name}{begun}".encode())
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        async for _ in call:
            pass
    assert (refused.value.code(), refused.value.details()) == (code, "in its own words")
    return [value for key, value in refused.value.trailing_metadata() or () if key == HEADER]
