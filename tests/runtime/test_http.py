"""The lane for plain predictions, and what does not take it: raw bytes over a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
from starlette.types import Message, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.server import Server

from trimtab.core.clock import SystemClock
from trimtab.runtime.mlflow import http
from trimtab.runtime.mlflow.answer import Answer
from trimtab.runtime.mlflow.dispatch import Dispatch
from trimtab.runtime.mlflow.job import Job
from trimtab.runtime.mlflow.metrics import Metrics
from trimtab.runtime.mlflow.pool import Pool
from trimtab.runtime.mlflow.service import Service
from trimtab.runtime.mlflow.worker import PodWorker

WAIT_S = 30.0
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Echo:
    """Answers with the body; a body `hold` waits for the gate."""

    version = "0"
    timeout_s = WAIT_S

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.begun = threading.Event()

    def carry_out(self, job: Job) -> None:
        if job.body == b"hold":
            self.begun.set()
            self.gate.wait(WAIT_S)
        job.answer = Answer(job.body.decode(), 200)


class Counted(Service):
    """Knows how many requests took the ASGI way, and in how many parts their bodies came."""

    asgi = parts = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asgi += 1

        async def counted() -> Message:
            message = await receive()
            self.parts += message["type"] == "http.request"
            return message

        await super().__call__(scope, counted, send)


class Quiet(Server):
    """A server that leaves the signals of the test's process alone."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Site:
    """A pod's HTTP side in this process."""

    def __init__(self, echo: Echo, threads: int, grace_s: int) -> None:
        self.pool = Pool(threads, 8)
        self.metrics = Metrics(self.pool)
        self.service = Counted(self.metrics, SystemClock())
        self.service.open(Dispatch(echo, self.pool, self.metrics.predict.observe))
        self.listener = socket.create_server(("127.0.0.1", 0))
        settings = {key: value for key, value in PodWorker.CONFIG_KWARGS.items() if key != "loop"}
        settings["timeout_graceful_shutdown"] = grace_s
        self.server = Quiet(Config(self.service, log_level="warning", **settings))

    async def connect(self) -> Streams:
        return await asyncio.open_connection(*self.listener.getsockname())

    def page(self) -> str:
        return self.metrics.response().body.decode()


@asynccontextmanager
async def site(echo: Echo, threads: int = 4, grace_s: int = 1) -> AsyncIterator[Site]:
    found = Site(echo, threads, grace_s)
    serving = asyncio.create_task(found.server.serve(sockets=[found.listener]))
    try:
        yield found
    finally:
        echo.gate.set()
        found.server.should_exit = True
        await asyncio.wait_for(serving, WAIT_S)
        found.pool.close()


@pytest.fixture
def echo() -> Echo:
    return Echo()


def request(body: bytes, *headers: str, version: str = "1.1") -> bytes:
    lines = [f"POST /invocations HTTP/{version}", "host: x", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def reply(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """One answer; its status, headers and body."""
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), WAIT_S)
    first, *lines = head.decode().strip().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    body = await asyncio.wait_for(reader.readexactly(int(headers.get("content-length", 0))), WAIT_S)
    return int(first.split()[1]), headers, body


async def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.01)


async def test_a_connection_serves_one_request_after_the_other(echo: Echo) -> None:
    async with site(echo) as here:
        reader, writer = await here.connect()
        for body in (b"one", b"", b"three"):
            writer.write(request(body))
            assert (await reply(reader))[::2] == (200, body)
        assert here.server.server_state.total_requests == 3
        assert here.service.asgi == 0
        writer.close()


async def test_off_the_lane_a_body_of_known_length_comes_whole(echo: Echo) -> None:
    """Also behind another request, whose answer it waits for."""
    body = b"x" * (1 << 20)
    async with site(echo) as here:
        reader, writer = await here.connect()
        writer.write(request(body, "expect: 100-continue") + request(body) + request(b"end"))
        assert (await reply(reader))[0] == 100
        for sent in (body, body, b"end"):
            assert (await reply(reader))[::2] == (200, sent)
        assert here.service.asgi == here.service.parts > 0
        writer.close()


async def test_requests_sent_at_once_are_answered_in_their_order(echo: Echo) -> None:
    async with site(echo) as here:
        reader, writer = await here.connect()
        writer.write(request(b"hold") + request(b"two") + request(b"three"))
        assert await asyncio.to_thread(echo.begun.wait, WAIT_S)
        echo.gate.set()
        assert [(await reply(reader))[2] for _ in range(3)] == [b"hold", b"two", b"three"]
        assert here.service.asgi == 2
        writer.close()


async def test_a_body_in_parts(echo: Echo) -> None:
    async with site(echo) as here:
        reader, writer = await here.connect()
        whole = request(b"a" * 100_000)
        for begin in range(0, len(whole), 30_000):
            writer.write(whole[begin : begin + 30_000])
            await writer.drain()
            await asyncio.sleep(0)
        assert (await reply(reader))[2] == b"a" * 100_000
        writer.close()


async def test_a_chunked_body_takes_the_other_way(echo: Echo) -> None:
    async with site(echo) as here:
        reader, writer = await here.connect()
        head = b"POST /invocations HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(head + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n" + request(b"next"))
        assert [(await reply(reader))[2] for _ in range(2)] == [b"abcde", b"next"]
        assert here.service.asgi == 2, "the one behind it as well"
        writer.close()


async def test_who_expects_a_go_ahead_gets_it_first(echo: Echo) -> None:
    async with site(echo) as here:
        reader, writer = await here.connect()
        whole = request(b"body", "expect: 100-continue")
        writer.write(whole[:-4])
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), WAIT_S)).startswith(b"HTTP/1.1 100")
        writer.write(whole[-4:])
        assert (await reply(reader))[2] == b"body"
        writer.close()


@pytest.mark.parametrize(("headers", "version"), [(("connection: close",), "1.1"), ((), "1.0")])
async def test_a_last_request_ends_the_connection(headers: tuple[str, ...], version: str, echo: Echo) -> None:
    async with site(echo) as here:
        reader, writer = await here.connect()
        writer.write(request(b"last", *headers, version=version))
        status, found, body = await reply(reader)
        assert (status, found["connection"], body) == (200, "close", b"last")
        assert await asyncio.wait_for(reader.read(), WAIT_S) == b""
        writer.close()


async def test_a_caller_that_leaves_frees_its_place_in_the_queue(echo: Echo) -> None:
    async with site(echo, threads=1) as here:
        streams = [await here.connect() for _ in range(3)]
        streams[0][1].write(request(b"hold"))
        assert await asyncio.to_thread(echo.begun.wait, WAIT_S)
        for _, writer in streams[1:]:
            writer.write(request(b"waits"))
        await until(lambda: here.pool.queued == 2)
        streams[1][1].transport.abort()
        await until(lambda: here.pool.queued == 1)
        echo.gate.set()
        assert (await reply(streams[2][0]))[2] == b"waits"
        assert (
            'http_response_status_code="499",http_route="/invocations",url_scheme="http"} 1.0' in here.page()
        )
        labels = 'http_request_method="POST",http_route="/invocations",url_scheme="http"'
        assert f"http_server_active_requests{{{labels}}} 0.0" in here.page()
        for _, writer in streams:
            writer.close()


async def test_what_outlasts_the_grace_period_is_answered_by_us(echo: Echo) -> None:
    async with site(echo, grace_s=1) as here:
        reader, writer = await here.connect()
        writer.write(request(b"hold"))
        assert await asyncio.to_thread(echo.begun.wait, WAIT_S)
        here.server.should_exit = True
        status, headers, _ = await reply(reader)
        assert (status, headers["x-trimtab-fault"]) == (503, "platform")
        assert "retry-after" not in headers, "the model may have seen it"
        writer.close()


async def test_what_is_in_flight_is_finished_first(echo: Echo) -> None:
    async with site(echo, grace_s=20) as here:
        reader, writer = await here.connect()
        writer.write(request(b"hold"))
        assert await asyncio.to_thread(echo.begun.wait, WAIT_S)
        here.server.should_exit = True
        await until(lambda: not here.server.servers or not here.server.servers[0].is_serving())
        echo.gate.set()
        status, headers, body = await reply(reader)
        assert (status, headers["connection"], body) == (200, "close", b"hold")
        writer.close()


async def test_more_than_fits_is_refused_at_once(echo: Echo) -> None:
    async with site(echo, threads=1) as here:
        streams = [await here.connect() for _ in range(10)]
        for _, writer in streams:
            writer.write(request(b"hold"))
        done, _ = await asyncio.wait(
            [asyncio.create_task(reply(reader)) for reader, _ in streams],
            return_when=asyncio.FIRST_COMPLETED,
            timeout=WAIT_S,
        )
        assert [task.result()[0] for task in done] == [503]
        echo.gate.set()
        for _, writer in streams:
            writer.close()


async def test_a_head_that_does_not_come_is_not_waited_for(
    echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor one of which a byte comes now and then; what comes after a request that took long, is."""
    monkeypatch.setattr(http, "HEAD_WITHIN_S", 0.2)
    async with site(echo) as here:
        silent, late = await here.connect(), await here.connect()
        slow, holds = await here.connect(), await here.connect()
        slow[1].write(request(b"one"))
        assert (await reply(slow[0]))[2] == b"one"
        holds[1].write(request(b"hold"))
        assert await asyncio.to_thread(echo.begun.wait, WAIT_S)

        late[1].write(b"POST /invoc")
        dripping = asyncio.create_task(drip(slow[1], b"POST /invocations HTTP/1.1\r\nx: " + b"y" * 10_000))
        for reader, _ in (silent, late, slow):
            with contextlib.suppress(ConnectionResetError):  # it was written to after its end
                assert await asyncio.wait_for(reader.read(), WAIT_S) == b""
        dripping.cancel()
        echo.gate.set()
        assert (await reply(holds[0]))[2] == b"hold"
        holds[1].write(request(b"again"))
        assert (await reply(holds[0]))[2] == b"again"
        for _, writer in (silent, late, slow, holds):
            writer.close()


async def drip(writer: asyncio.StreamWriter, data: bytes) -> None:
    for place in range(len(data)):
        writer.write(data[place : place + 1])
        await asyncio.sleep(0.01)
