"""Files that may be written anew while we run, as a Secret of Kubernetes is; what is unusable is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from prometheus_client import Gauge

from trimtab.control.options import read_api_keys
from trimtab.core.errors import TrimtabError
from trimtab.xds.world import ApiKey

log = logging.getLogger(__name__)

LOOK_EACH_S = 1.0


class Unusable:
    """Tells once that what a file holds now cannot be used, and once that it can be again."""

    def __init__(self, gauge: Gauge, file: str) -> None:
        """`file` is what the gauge calls it."""
        self._gauge = gauge.labels(file)
        self._gauge.set(0)
        self._wrong = ""

    def wrong(self, error: TrimtabError) -> None:
        """What it held before goes on being used."""
        if str(error) != self._wrong:
            log.error("%s; what it held before stays in use; %s", error, error.hint)
        self._wrong = str(error)
        self._gauge.set(1)

    def right(self) -> None:
        if self._wrong:
            log.info("it can be used again; it could not: %s", self._wrong)
        self._wrong = ""
        self._gauge.set(0)


class KeysFile:
    """Callers' keys in a file, of which `keys` are in use; `take` is called with others when it has them."""

    def __init__(
        self,
        path: Path,
        keys: tuple[ApiKey, ...],
        take: Callable[[tuple[ApiKey, ...]], None],
        unusable: Unusable,
    ) -> None:
        self._path = path
        self._keys = keys
        self._take = take
        self._unusable = unusable
        self._seen: tuple[int, ...] | None = None

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EACH_S)
            mark = _mark(self._path)
            if mark is not None and mark == self._seen:
                continue
            self._seen = mark
            try:
                keys = await asyncio.to_thread(read_api_keys, self._path)
            except TrimtabError as error:
                self._unusable.wrong(error)
                continue
            self._unusable.right()
            if keys != self._keys:
                log.info("%s: %d keys of callers, before it were %d", self._path, len(keys), len(self._keys))
                self._keys = keys
                self._take(keys)


def _mark(path: Path) -> tuple[int, ...] | None:
    """Another one whenever the file is; None if there is none. There may be 10,000 keys to read."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
