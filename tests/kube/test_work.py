"""The queue of keys. It needs no cluster."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from tests.kube.words import until
from tests.turns import Turns, turning
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


async def test_however_often_a_key_fails_one_try_of_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[str] = []
    rests: list[asyncio.TimerHandle] = []
    loop = asyncio.get_running_loop()
    call_later = loop.call_later

    def noted(delay_s: float, call: Callable[..., object], *more: object) -> asyncio.TimerHandle:
        rest = call_later(delay_s, call, *more)
        if "bad" in more:
            rests.append(rest)
        return rest

    async def settle(key: str) -> None:
        tries.append(key)
        raise Conflict("not now")

    monkeypatch.setattr(loop, "call_later", noted)
    monkeypatch.setattr(work, "RETRY_FIRST_S", 60.0)
    monkeypatch.setattr(work, "RETRY_MAX_S", 60.0)
    async with working(settle) as queue:
        for number in range(1, 6):  # as events of it do while the API server is away
            queue.add("bad")
            await until(lambda number=number: len(tries) == number)
        await until(lambda: len(rests) == 5)
        assert sum(not rest.cancelled() for rest in rests) == 1
        for rest in rests:
            rest.cancel()


async def test_what_is_to_be_looked_at_later_is_looked_at_then_or_with_the_next_news() -> None:
    settled: list[str] = []

    async def settle(key: str) -> None:
        settled.append(key)
        if len(settled) == 1:
            queue.add_after("a", 0.01)
        elif len(settled) == 2:
            queue.add_after("a", 60.0)

    async with working(settle) as queue:
        queue.add("a")
        await until(lambda: settled == ["a", "a"])
        assert list(queue._later) == ["a"]
        queue.add("a")
        await until(lambda: settled == ["a", "a", "a"])
        await until(lambda: not queue._busy)
        assert not queue._later, "it was looked at: nothing more is due"


async def test_many_that_wait_for_nobody_leave_room_for_others() -> None:
    turns, begun = Turns(), Counter[int]()

    async def settle(_: str) -> None:
        begun[turns.count] += 1

    async with working(settle, workers=8) as queue:
        for number in range(100):
            queue.add(f"{number}")
        with turning(turns):
            await until(lambda: begun.total() == 100)
    assert set(begun.values()) == {1}


async def test_no_more_than_the_workers_are_at_it_at_once() -> None:
    at_it: list[str] = []
    go_on = asyncio.Event()

    async def settle(key: str) -> None:
        at_it.append(key)
        await go_on.wait()

    async with working(settle, workers=3) as queue:
        for number in range(9):
            queue.add(f"{number}")
        await until(lambda: len(at_it) == 3)
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(at_it) == 3
        go_on.set()
        await until(lambda: len(at_it) == 9)
