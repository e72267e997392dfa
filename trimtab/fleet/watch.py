"""The background of an open fleet: one task that holds the loops and a task per pod."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine

from trimtab.fleet.readiness import Prober

_logger = logging.getLogger(__name__)


class Watch:
    """Tasks that live from `begin` to `end`. An error in one is logged; the others go on."""

    def __init__(self) -> None:
        self.prober = Prober()
        self._group: asyncio.TaskGroup | None = None
        self._began = asyncio.Event()
        self._task = asyncio.create_task(self._hold())

    @classmethod
    async def begin(cls) -> Watch:
        """Inside a running loop."""
        watch = cls()
        await watch._began.wait()
        return watch

    def add(self, work: Coroutine[None, None, None]) -> None:
        """Run `work` until it is done or the watch ends."""
        assert self._group is not None
        self._group.create_task(self._contained(work))

    def repeat(self, step: Callable[[], Awaitable[None]], each_s: float) -> None:
        """Run `step` again and again, `each_s` after it was done."""
        self.add(_repeated(step, each_s))

    async def end(self) -> None:
        """Cancel all of it and wait until it is gone."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await self.prober.close()

    async def _hold(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._began.set()
            await asyncio.get_running_loop().create_future()

    async def _contained(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except Exception:
            _logger.exception("in the background of the fleet")


async def _repeated(step: Callable[[], Awaitable[None]], each_s: float) -> None:
    while True:
        try:
            await step()
        except Exception:
            _logger.exception("in the background of the fleet")
        await asyncio.sleep(each_s)
