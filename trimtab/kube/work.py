"""A queue of keys to do something about: each once at a time, and again if it changed meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from trimtab.core.errors import TrimtabError
from trimtab.core.turns import give_way

RETRY_FIRST_S = 0.2
RETRY_MAX_S = 30.0

K = TypeVar("K", bound=Hashable)

_logger = logging.getLogger(__name__)


class Work(Generic[K]):
    """Calls `settle(key)` for each key added, `workers` at a time; what raises is tried again, ever later."""

    def __init__(self, settle: Callable[[K], Awaitable[None]], workers: int) -> None:
        self._settle = settle
        self._workers = workers
        self._due: asyncio.Queue[K] = asyncio.Queue()  # bounded by the number of keys: each is in it once
        self._queued: set[K] = set()
        self._busy: set[K] = set()
        self._again: set[K] = set()
        self._failures: dict[K, int] = {}
        self._later: dict[K, asyncio.TimerHandle] = {}  # one for each key, until it is looked at again

    def add(self, key: K) -> None:
        """Look at it soon."""
        if key in self._busy:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._due.put_nowait(key)

    def add_after(self, key: K, rest_s: float) -> None:
        """Look at it in `rest_s` seconds, if nothing has it looked at sooner."""
        self._call_off(key)
        self._later[key] = asyncio.get_running_loop().call_later(rest_s, self._retry, key)

    async def run(self) -> None:
        """Until it is cancelled."""
        places = asyncio.Semaphore(self._workers)
        async with asyncio.TaskGroup() as group:
            while True:
                key = await self._due.get()
                await places.acquire()
                self._queued.discard(key)
                self._busy.add(key)
                self._call_off(key)
                group.create_task(self._work(key, places))
                await give_way()  # a thousand that wait for nobody keep nobody waiting

    async def _work(self, key: K, places: asyncio.Semaphore) -> None:
        try:
            await self._settle(key)
            self._failures.pop(key, None)
        except TrimtabError as error:
            self._try_later(key, str(error))
        except Exception:
            _logger.exception("settling %s", key)
            self._try_later(key, "internal error")
        finally:
            self._busy.discard(key)
            places.release()
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def _try_later(self, key: K, told: str) -> None:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        rest_s = min(RETRY_MAX_S, RETRY_FIRST_S * 2 ** min(failures - 1, 10))
        _logger.warning("%s: %s; tried again in %.1f s", key, told, rest_s)
        self.add_after(key, rest_s)

    def _retry(self, key: K) -> None:
        del self._later[key]
        self.add(key)

    def _call_off(self, key: K) -> None:
        waiting = self._later.pop(key, None)
        if waiting is not None:
            waiting.cancel()
