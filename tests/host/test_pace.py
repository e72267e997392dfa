"""So many turns a second at the most, each to whoever asked first."""

from __future__ import annotations

import asyncio
import time

from trimtab.host.pace import Pace

PER_S = 500.0


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
