"""Many small things, begun so many a second at the most."""

from __future__ import annotations

import asyncio
import time


class Pace:
    """Turns, in the order in which they are asked for. One that was missed is not made up for."""

    def __init__(self, per_s: float) -> None:
        self._apart_s = 1 / per_s
        self._last_at_s = 0.0  # monotonic; it may be to come

    async def turn(self) -> None:
        """Wait for the next one."""
        now_s = time.monotonic()
        self._last_at_s = max(now_s, self._last_at_s + self._apart_s)
        await asyncio.sleep(self._last_at_s - now_s)
