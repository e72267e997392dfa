"""Our own look at pods that start: they take traffic as soon as they answer.

The kubelet looks once a second and tells the API server, which tells us: a pod that answers waits a second
and more for its first request. So each pod that has an address is asked directly, often while it is young.
Where we cannot reach pods, nothing is lost: what the kubelet says counts too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from trimtab.core.turns import Pace
from trimtab.fleet.readiness import Answer, Prober

FIRST_APART_S = 0.1
APART_MAX_S = 1.0  # then the kubelet is as quick
APART_PER_AGE = 0.05  # a model that has loaded for 10 s is asked each half second
AT_ONCE_MAX = 64  # questions under way
PER_S = 200  # of pods that say at once that they are busy; with more of them each is asked less often


class Looks:
    """Asks each pod that is watched, until it answers. `answered` is called with its id, once."""

    def __init__(self, answered: Callable[[str], None]) -> None:
        self._answered = answered
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._at_once = asyncio.Semaphore(AT_ONCE_MAX)
        self._pace = Pace(PER_S)
        self._prober: Prober | None = None

    def open(self) -> None:
        """In the loop in which the pods are asked."""
        self._prober = Prober()

    async def close(self) -> None:
        for asking in self._asking.values():
            asking.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)
        self._asking = {}
        if self._prober is not None:
            await self._prober.close()
            self._prober = None

    def watch(self, pod_id: str, host: str, port: int, path: str) -> None:
        """Ask this pod from now on; one that is watched already stays so."""
        if self._prober is not None and pod_id not in self._asking:
            self._asking[pod_id] = asyncio.create_task(self._ask(self._prober, pod_id, host, port, path))

    def leave(self, pod_id: str) -> None:
        """Ask it no more."""
        asking = self._asking.pop(pod_id, None)
        if asking is not None:
            asking.cancel()

    async def _ask(self, prober: Prober, pod_id: str, host: str, port: int, path: str) -> None:
        began_s = time.monotonic()
        while True:
            async with self._at_once:
                await self._pace.turn()
                answer = await prober.ask(host, port, path)
            if answer is Answer.READY:
                break
            age_s = time.monotonic() - began_s
            await asyncio.sleep(min(APART_MAX_S, max(FIRST_APART_S, APART_PER_AGE * age_s)))
        self._asking.pop(pod_id, None)
        self._answered(pod_id)
