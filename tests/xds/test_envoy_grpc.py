"""gRPC through the real Envoy: by authority and by header, streams, the limit, what is not allowed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from trimtab.core.protocol import Protocol

SERVICE = "inference.GRPCInferenceService"


class Model:
    """A gRPC model server that echoes bytes."""

    def __init__(self) -> None:
        self.in_flight = self.in_flight_max = 0
        self.open = asyncio.Event()
        self.open.set()
        self.server = grpc.aio.server()
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        methods = {
            "ModelInfer": grpc.unary_unary_rpc_method_handler(self.infer),
            "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(self.stream),
            "RepositoryIndex": grpc.unary_unary_rpc_method_handler(self.infer),
        }
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))

    async def infer(self, request: bytes, context: Any) -> bytes:
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)
        try:
            await self.open.wait()
            await asyncio.sleep(0.002)
            return request
        finally:
            self.in_flight -= 1

    async def stream(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield request


@pytest.fixture
async def model() -> AsyncIterator[Model]:
    model = Model()
    await model.server.start()
    yield model
    model.open.set()
    await model.server.stop(0.1)


@pytest.fixture
async def channel(gate: Any) -> AsyncIterator[grpc.aio.Channel]:
    options = [("grpc.default_authority", "iris.localhost"), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gate.gateway.port}", options=options) as channel:
        yield channel


GRPC_ONLY = (Protocol.OPEN_INFERENCE_GRPC,)


async def test_by_authority_and_by_header(gate: Any, model: Model, endpoint: Any, channel: Any) -> None:
    await gate.publish(endpoint("iris", (model.port,), protocols=GRPC_ONLY))
    assert await channel.unary_unary(f"/{SERVICE}/ModelInfer")(b"1") == b"1"
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gate.gateway.port}") as other:
        call = other.unary_unary(f"/{SERVICE}/ModelInfer")
        assert await call(b"2", metadata=(("x-trimtab-endpoint", "iris"),)) == b"2"
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await call(b"3", metadata=(("x-trimtab-endpoint", "nobody"),))
        assert unknown.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "nobody" in str(unknown.value.details())


async def test_repository_control_is_not_for_the_outside(
    gate: Any, model: Model, endpoint: Any, channel: Any
) -> None:
    await gate.publish(endpoint("iris", (model.port,), protocols=GRPC_ONLY))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await channel.unary_unary(f"/{SERVICE}/RepositoryIndex")(b"")
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert model.in_flight_max == 0


async def test_a_stream_lasts_longer_than_the_timeout_of_a_request(
    gate: Any, model: Model, endpoint: Any, channel: Any
) -> None:
    await gate.publish(endpoint("iris", (model.port,), protocols=GRPC_ONLY, timeout_s=0.5))
    stream = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")()
    for number in range(10):
        await stream.write(b"%d" % number)
        assert await stream.read() == b"%d" % number
        await asyncio.sleep(0.1)
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF


async def test_no_pod_has_more_than_its_limit(
    gate: Any, model: Model, endpoint: Any, channel: Any, eventually: Any
) -> None:
    await gate.publish(endpoint("iris", (model.port,), protocols=GRPC_ONLY, target=2, queue_max=20))
    model.open.clear()
    call = channel.unary_unary(f"/{SERVICE}/ModelInfer")
    calls = [asyncio.ensure_future(call(b"x")) for _ in range(20)]
    await eventually(lambda: model.in_flight == 2, "the pod is full")
    model.open.set()
    assert await asyncio.gather(*calls) == [b"x"] * 20
    assert model.in_flight_max == 2


async def test_beyond_the_queue_the_caller_may_try_again(
    gate: Any, model: Model, endpoint: Any, channel: Any, eventually: Any
) -> None:
    await gate.publish(endpoint("iris", (model.port,), protocols=GRPC_ONLY, queue_max=1))
    model.open.clear()
    call = channel.unary_unary(f"/{SERVICE}/ModelInfer")

    async def code() -> grpc.StatusCode:
        try:
            await call(b"x")
        except grpc.aio.AioRpcError as refused:
            return refused.code()
        return grpc.StatusCode.OK

    held = asyncio.create_task(code())
    await eventually(lambda: model.in_flight == 1, "the pod is full")
    others = [asyncio.create_task(code()) for _ in range(3)]
    await eventually(lambda: sum(other.done() for other in others) == 2, "what does not fit is refused")
    model.open.set()
    codes = await asyncio.gather(held, *others)
    assert codes.count(grpc.StatusCode.OK) == 2
    assert codes.count(grpc.StatusCode.UNAVAILABLE) == 2


async def test_rest_and_grpc_reach_one_pod_on_its_two_ports_each_with_its_part_of_the_limit(
    gate: Any, model: Model, pods: Any, http: Any, endpoint: Any, channel: Any, eventually: Any
) -> None:
    [rest] = await pods(1)
    both = (Protocol.OPEN_INFERENCE_REST, Protocol.OPEN_INFERENCE_GRPC)
    await gate.publish(
        endpoint("iris", (rest.port,), protocols=both, target=4, queue_max=20, grpc_port=model.port, grpc=1)
    )
    model.open.clear()
    rest.open.clear()
    url = f"{gate.url}/serving-endpoints/iris/v2/models/m/infer"

    async def ask() -> int:
        async with http.post(url, json={}) as answer:
            return int(answer.status)

    call = channel.unary_unary(f"/{SERVICE}/ModelInfer")
    calls = [asyncio.ensure_future(call(b"x")) for _ in range(6)]
    asked = [asyncio.ensure_future(ask()) for _ in range(6)]
    await eventually(lambda: (rest.in_flight, model.in_flight) == (3, 1), "both have their part")
    model.open.set()
    rest.open.set()
    assert await asyncio.gather(*calls) == [b"x"] * 6
    assert await asyncio.gather(*asked) == [200] * 6
    assert (rest.in_flight_max, model.in_flight_max) == (3, 1)
