"""Whoever gives way or keeps a pace goes on in the order in which he came, and no sooner than he may."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref

import pytest

from tests.turns import Turns, turning
from trimtab.core import turns as module
from trimtab.core.turns import PATIENCE_S, Pace, Seldom, give_way

PER_S = 500.0


async def test_never_two_go_on_in_one_turn_and_each_in_its_order() -> None:
    went, in_turn, loop = list[int](), 0, asyncio.get_running_loop()

    def over() -> None:
        nonlocal in_turn
        in_turn = 0

    async def work(name: int) -> None:
        nonlocal in_turn
        for _ in range(5):
            await give_way()
            in_turn += 1
            assert in_turn == 1
            loop.call_soon(over)  # comes in the next turn
            went.append(name)

    await asyncio.gather(*map(work, range(10)))
    assert went == 5 * list(range(10))


async def test_none_goes_on_while_anybody_else_can() -> None:
    went, loop = list[str](), asyncio.get_running_loop()
    done = asyncio.Event()

    async def work() -> None:
        while not done.is_set():
            await give_way()
            went.append("a piece")

    def news(turns: int) -> None:
        went.append("news")
        if turns:
            loop.call_soon(news, turns - 1)
        else:
            done.set()

    busy = [asyncio.create_task(work()) for _ in range(100)]
    await asyncio.sleep(0)
    loop.call_soon(news, 20)
    await asyncio.gather(*busy)
    first = went.index("news")
    assert went[first : first + 21] == 21 * ["news"]


async def test_each_has_its_turn_where_others_never_rest() -> None:
    pieces, turns, began_s = 0, Turns(), time.monotonic()
    with turning(turns):
        while pieces < 5:
            await give_way()
            pieces += 1
            assert pieces * PATIENCE_S <= time.monotonic() - began_s
    assert turns.count > pieces


async def test_what_waits_does_not_pile_up_where_others_never_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each goes on once it has waited for long enough, however many do."""
    monkeypatch.setattr(module, "PATIENCE_S", 3600.0)
    monkeypatch.setattr(module, "LATE_S", 0.05)
    turns, began_s = Turns(), time.monotonic()
    with turning(turns):
        await asyncio.gather(*(give_way() for _ in range(500)))
    assert time.monotonic() - began_s >= module.LATE_S
    assert turns.count >= 500, "one in each turn"


async def test_one_that_is_cancelled_keeps_nobody_waiting() -> None:
    went: list[int] = []

    async def work(name: int) -> None:
        await give_way()
        went.append(name)

    tasks = [asyncio.create_task(work(name)) for name in range(5)]
    await asyncio.sleep(0)
    for name in (0, 1, 3):
        tasks[name].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert went == [2, 4]
    await asyncio.wait_for(give_way(), 10.0)


async def test_what_comes_from_outside_waits_for_a_few_pieces_only() -> None:
    """Of a hundred who are at it all the time."""
    done, pieces = asyncio.Event(), 0

    async def work() -> None:
        nonlocal pieces
        while not done.is_set():
            await give_way()
            pieces += 1

    busy = [asyncio.create_task(work()) for _ in range(100)]
    while pieces < 1_000:  # noqa: ASYNC110 - they are at it all the time
        await asyncio.sleep(0.001)
    before, came = pieces, asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(came.set_result, None)
    await came
    assert pieces - before <= 3
    done.set()
    await asyncio.gather(*busy)


def test_a_loop_that_has_ended_is_forgotten() -> None:
    def run() -> weakref.ref[asyncio.AbstractEventLoop]:
        loop = asyncio.new_event_loop()
        loop.run_until_complete(give_way())
        loop.close()
        return weakref.ref(loop)

    ended = run()
    gc.collect()
    assert ended() is None


async def test_turns_come_in_the_order_in_which_they_are_asked_for_and_no_oftener_than_said() -> None:
    pace, given, began_s = Pace(PER_S), list[tuple[int, float]](), time.monotonic()

    async def take(number: int) -> None:
        await pace.turn()
        given.append((number, time.monotonic() - began_s))

    await asyncio.gather(*map(take, range(100)))
    assert [number for number, _ in given] == list(range(100))
    for before, (_, at_s) in enumerate(given):
        assert before <= PER_S * at_s + 1


async def test_turns_that_nobody_took_are_not_made_up_for() -> None:
    pace = Pace(PER_S)
    await pace.turn()
    await asyncio.sleep(20 / PER_S)
    began_s = time.monotonic()
    for taken in range(10):
        await pace.turn()
        assert taken <= PER_S * (time.monotonic() - began_s) + 1


async def test_one_who_gives_up_keeps_nobody_from_his_turn() -> None:
    pace = Pace(PER_S)
    waiting = [asyncio.create_task(pace.turn()) for _ in range(10)]
    await asyncio.sleep(0)
    waiting[5].cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert [task.cancelled() for task in waiting] == [number == 5 for number in range(10)]


def test_what_takes_long_is_done_seldom_and_what_does_not_at_its_time() -> None:
    seldom = Seldom(1.0)
    assert seldom.is_due(0.0)
    for took_s, rest_s in ((0.0, 1.0), (0.002, 1.0), (0.02, 10.0), (5.0, 60.0)):
        seldom.done(100.0, 100.0 + took_s)
        assert not seldom.is_due(100.0 + rest_s - 0.001), took_s
        assert seldom.is_due(100.0 + rest_s), took_s
