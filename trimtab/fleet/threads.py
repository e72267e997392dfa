"""Work in a thread that is never left behind half done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec

_P = ParamSpec("_P")


async def finish_in_thread(work: Callable[_P, None], *args: _P.args, **kwargs: _P.kwargs) -> None:
    """Like `asyncio.to_thread`, but a cancelled caller goes on being cancelled only once `work` is done.

    A thread cannot be cancelled: left alone, an older write could overtake a newer one.
    """
    working = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    try:
        await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait([working])
        working.exception()  # nobody is left to be told
        raise
