"""Pods' logs, as their nodes have them: the last words of those that failed, and lines as they come."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection

from trimtab.core.errors import InvalidInput, TrimtabError
from trimtab.fleet.kubernetes.template import BRING, CONTAINER
from trimtab.kube import Api, Resource

PODS = Resource("v1", "pods")
KEPT_LINES = 200
KEPT_MAX = 50
LINES_MAX = 10_000
WAITING_MAX = 1_000  # lines that nobody has taken yet; then the nodes are read no further
LOOK_EACH_S = 0.5
SILENCE_MAX_S = 3_600.0


class Logs:
    """Reads logs through the API server."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._kept: dict[str, tuple[str, ...]] = {}  # oldest first

    async def keep(self, pod_id: str, *, previous: bool, container: str = CONTAINER) -> tuple[str, ...]:
        """Read and keep the last lines of a pod that failed; `previous`: of its container before this one."""
        query = {"container": container, "tailLines": str(KEPT_LINES)}
        if previous:
            query["previous"] = "true"
        lines: tuple[str, ...] = ()
        with contextlib.suppress(TrimtabError):  # it never began, or its node has gone
            lines = tuple((await self._api.get(_path(pod_id), query)).decode(errors="replace").splitlines())
        self._kept[pod_id] = lines
        while len(self._kept) > KEPT_MAX:
            del self._kept[next(iter(self._kept))]
        return lines

    def kept(self, pod_id: str) -> tuple[str, ...]:
        return self._kept.get(pod_id, ())

    async def follow(
        self, present: Callable[[], Collection[str]], lines: int, go_on: bool
    ) -> AsyncIterator[tuple[str, str]]:
        """(pod id, line): the last `lines` of each pod, then, if `go_on`, new ones until the caller stops.

        `present` is asked again and again: a new pod's log joins.
        """
        told: asyncio.Queue[tuple[str, str]] = asyncio.Queue(WAITING_MAX)
        readers: dict[str, asyncio.Task[None]] = {}
        try:
            while True:
                for pod_id in set(present()) - readers.keys():
                    reading = self._read(pod_id, min(lines, LINES_MAX), go_on, told)
                    readers[pod_id] = asyncio.create_task(reading)
                done = not go_on and all(reader.done() for reader in readers.values())
                try:
                    async with asyncio.timeout(0 if done else LOOK_EACH_S):
                        line = await told.get()
                except TimeoutError:
                    if done and told.empty():
                        return
                else:  # not within the timeout, which would end whatever the caller does meanwhile
                    yield line
        finally:
            for reader in readers.values():
                reader.cancel()
            await asyncio.gather(*readers.values(), return_exceptions=True)

    async def _read(self, pod_id: str, lines: int, go_on: bool, told: asyncio.Queue[tuple[str, str]]) -> None:
        """Of what brings its model, where the model's own container has not begun and nobody waits for it."""
        begun = False
        while not begun:
            begun = await self._read_from(CONTAINER, pod_id, lines, go_on, told)
            if not begun and not go_on:
                await self._read_from(BRING, pod_id, lines, go_on, told)
                return
            if not begun:
                await asyncio.sleep(LOOK_EACH_S)

    async def _read_from(
        self, container: str, pod_id: str, lines: int, go_on: bool, told: asyncio.Queue[tuple[str, str]]
    ) -> bool:
        """Whether it had begun, or need not be asked again."""
        query = {"container": container, "tailLines": str(lines), "follow": str(go_on).lower()}
        try:
            async with self._api.stream(_path(pod_id), query, SILENCE_MAX_S) as read:
                while line := await read.readline():
                    await told.put((pod_id, line.decode(errors="replace").rstrip("\r\n")))
        except InvalidInput:  # its container has not begun, or there is none of that name
            return False
        except (TrimtabError, ValueError):  # it has gone, or a line has no end: see `Api.stream`
            pass
        return True


def _path(pod_id: str) -> str:
    namespace, _, name = pod_id.partition("/")
    return PODS.path(namespace, name, "log")
