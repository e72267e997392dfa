"""Our own look at pods that start, with a real server that counts."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from trimtab.fleet.kubernetes.looks import AT_ONCE_MAX, PER_S, Looks

WITHIN_S = 30.0
MANY = 300  # pods; by themselves they would be asked ten times a second each


class Pods:
    """Each is a path; it is busy until it is in `ready`."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.ready: set[str] = set()
        self.answered: list[str] = []

    async def serve(self, request: web.Request) -> web.Response:
        name = request.path.removeprefix("/")
        self.asked[name] += 1
        return web.Response(status=200 if name in self.ready else 503)


@pytest.fixture
async def pods() -> Pods:
    return Pods()


@pytest.fixture
async def server(pods: Pods) -> AsyncIterator[TestServer]:
    app = web.Application()
    app.router.add_get("/{name}", pods.serve)
    async with TestServer(app) as running:
        yield running


@pytest.fixture
async def looks(pods: Pods) -> AsyncIterator[Looks]:
    made = Looks(pods.answered.append)
    made.open()
    yield made
    await made.close()


async def test_one_is_asked_until_it_answers_and_no_more(
    pods: Pods, server: TestServer, looks: Looks
) -> None:
    assert server.port is not None
    looks.watch("a", "127.0.0.1", server.port, "/a")
    await _until(lambda: pods.asked["a"] >= 3)
    assert not pods.answered
    pods.ready.add("a")
    await _until(lambda: bool(pods.answered))
    asked = pods.asked["a"]
    looks.watch("b", "127.0.0.1", server.port, "/b")
    await _until(lambda: pods.asked["b"] >= 2)
    assert (pods.answered, pods.asked["a"]) == (["a"], asked)


async def test_of_many_each_is_asked_and_all_together_no_oftener_than_said(
    pods: Pods, server: TestServer, looks: Looks
) -> None:
    assert server.port is not None
    began_s = time.monotonic()
    for number in range(MANY):
        looks.watch(str(number), "127.0.0.1", server.port, f"/{number}")
    await _until(lambda: len(pods.asked) == MANY and pods.asked.total() >= 2 * MANY)
    assert pods.asked.total() <= PER_S * (time.monotonic() - began_s) + 1
    assert max(pods.asked.values()) <= 2 + min(pods.asked.values()), "in turn"


async def test_silent_ones_leave_turns_for_others(pods: Pods, server: TestServer, looks: Looks) -> None:
    """Such as are on a node that has gone; fewer than may be asked at a time."""
    assert server.port is not None
    pods.ready.add("a")
    with socket.create_server(("127.0.0.1", 0), backlog=2 * AT_ONCE_MAX) as silent:  # nobody accepts
        for number in range(AT_ONCE_MAX - 1):
            looks.watch(f"silent-{number}", *silent.getsockname(), "/")
        looks.watch("a", "127.0.0.1", server.port, "/a")
        await _until(lambda: pods.answered == ["a"])


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not holds():  # noqa: ASYNC110 - it happens at the server
            await asyncio.sleep(0.02)
