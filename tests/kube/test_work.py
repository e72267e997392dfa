"""The queue of keys. It needs no cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from tests.kube.words import until
from trimtab.core.errors import Conflict
from trimtab.kube import Work, work


@asynccontextmanager
async def working(settle: Callable[[str], Awaitable[None]], workers: int = 2) -> AsyncIterator[Work[str]]:
    queue = Work(settle, workers)
    running = asyncio.create_task(queue.run())
    try:
        yield queue
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_key_is_never_settled_twice_at_once_and_again_if_it_changed_meanwhile() -> None:
    settled: list[str] = []
    go_on = asyncio.Event()

    async def settle(key: str) -> None:
        settled.append(key)
        await go_on.wait()

    async with working(settle) as queue:
        for _ in range(3):
            queue.add("a")  # three times before it is looked at: once
        await until(lambda: settled == ["a"])
        for _ in range(3):
            queue.add("a")  # while it is looked at: once more, afterwards
        queue.add("b")  # meanwhile another one is
        await until(lambda: settled == ["a", "b"])
        go_on.set()
        await until(lambda: settled == ["a", "b", "a"])


@pytest.mark.parametrize("error", [Conflict("it changed meanwhile"), KeyError("a slip of ours")])
async def test_what_fails_is_tried_again_and_holds_up_nothing(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "RETRY_FIRST_S", 0.01)
    tries: list[str] = []

    async def settle(key: str) -> None:
        tries.append(key)
        if key == "bad" and tries.count("bad") < 3:
            raise error

    async with working(settle, workers=1) as queue:
        queue.add("bad")
        queue.add("good")
        await until(lambda: sorted(tries) == ["bad", "bad", "bad", "good"])
