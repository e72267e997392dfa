"""The garbage collector of a process that makes millions of objects, nearly none of them in cycles.

A collection stops everything: one of 50,000 objects takes 20 to 100 ms, a whole one beside ten thousand pods
a good part of a second. So what is young is looked at once, a little at a time, and what has lived on is put
out of the collector's sight. What there is in cycles that lived on is looked for once in a long while.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator

YOUNG_MAX = 2_000  # objects made (less those freed) between two collections of these: a millisecond
NEVER = 2**31 - 1
AWAY_EACH_S = 10.0
WHOLE_EACH_S = 3_600.0


def settle() -> None:
    """Collect the young alone from now on, and never again what is there: modules, classes, what was read.

    May be called again once more is there that stays.
    """
    gc.set_threshold(YOUNG_MAX, NEVER, NEVER)
    _whole()


@contextlib.asynccontextmanager
async def settled() -> AsyncIterator[None]:
    """Meanwhile what has lived on since the last time goes out of sight, too."""
    settle()
    keeping = asyncio.create_task(_keep_settled())
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


async def _keep_settled() -> None:
    while True:
        for _ in range(int(WHOLE_EACH_S / AWAY_EACH_S)):
            await asyncio.sleep(AWAY_EACH_S)
            gc.freeze()
        _whole()


def _whole() -> None:
    gc.unfreeze()
    gc.collect()
    gc.freeze()
