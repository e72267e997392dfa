"""Whose turn it is, among many in one loop that do small things which may wait, so that news need not."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from weakref import WeakKeyDictionary

PATIENCE_S, LATE_S = 0.02, 0.5


async def give_way() -> None:
    """Let others go on before the next piece. Of all who have given way one goes on where nobody else can.

    In the order in which they came. By a `sleep(0)` all of them would, and what comes from outside would wait
    for a piece of each; that goes through several turns of the loop, and none of them has a piece in it.
    Where others always can go on, one of all who have given way does each PATIENCE_S all the same, and in
    each turn one that has waited for LATE_S: a loop that has too much to do must not pile it up.
    """
    loop = asyncio.get_running_loop()
    polite = _loops.get(loop)
    if polite is None:
        polite = _loops[loop] = _Polite()
    await polite.place()


class _Polite:
    """Those who have given way in one loop. It does not know which: the loop could never go otherwise."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[asyncio.Future[None], float]] = deque()  # and since when each does
        self._moves = False
        self._patient_until_s = 0.0

    def place(self) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        waiter, now_s = loop.create_future(), loop.time()
        self._waiting.append((waiter, now_s))
        if not self._moves:
            self._moves = True
            self._patient_until_s = now_s + PATIENCE_S
            loop.call_soon(self._move)
        return waiter

    def _move(self) -> None:
        """Once in each turn, while anybody waits."""
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        late = now_s >= min(self._patient_until_s, self._waiting[0][1] + LATE_S)
        if late or not _others_can_go_on(loop):
            self._patient_until_s = now_s + PATIENCE_S
            self._let_one_go()
        self._moves = bool(self._waiting)
        if self._moves:
            loop.call_soon(self._move)

    def _let_one_go(self) -> None:
        while self._waiting:
            waiter, _ = self._waiting.popleft()
            if not waiter.done():  # else it was cancelled
                waiter.set_result(None)
                return


def _others_can_go_on(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether anything but who asks is to be called in this turn, or in the next one already.

    Of a loop that does not tell as asyncio's do, nothing is known: then a piece goes on in each turn.
    """
    return bool(getattr(loop, "_ready", ()))


_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _Polite] = WeakKeyDictionary()


SELDOM_SHARE, SELDOM_MAX_S = 0.002, 60.0


class Seldom:
    """What goes through all there is, which news waits for: in no more than SELDOM_SHARE of the time.

    But once in SELDOM_MAX_S however long it takes.
    """

    def __init__(self, least_s: float) -> None:
        """`least_s`: how often at the most."""
        self._least_s = least_s
        self._next_at_s = float("-inf")

    def is_due(self, now_s: float) -> bool:
        """Whether its time has come again."""
        return now_s >= self._next_at_s

    def done(self, began_s: float, ended_s: float) -> None:
        """It was done between these."""
        rest_s = min(SELDOM_MAX_S, (ended_s - began_s) / SELDOM_SHARE)
        self._next_at_s = began_s + max(self._least_s, rest_s)


class Pace:
    """So many turns a second at the most, in the order in which they are asked for.

    One that nobody took is not made up for.
    """

    def __init__(self, per_s: float) -> None:
        self._apart_s = 1 / per_s
        self._last_at_s = 0.0  # monotonic; it may be to come

    async def turn(self) -> None:
        """Wait for the next one."""
        now_s = time.monotonic()
        self._last_at_s = max(now_s, self._last_at_s + self._apart_s)
        await asyncio.sleep(self._last_at_s - now_s)
