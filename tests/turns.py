"""The turns of the event loop, for tests of what leaves room for others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Turns:
    """How many there were so far."""

    count: int = 0

    async def go_on(self) -> None:
        while True:
            self.count += 1
            await asyncio.sleep(0)


@contextmanager
def turning(turns: Turns) -> Iterator[None]:
    """Counts them meanwhile, as somebody who has something to do in each."""
    task = asyncio.create_task(turns.go_on())
    try:
        yield
    finally:
        task.cancel()
