"""A pod's log: bounded on disk, its last lines, its lines as they come."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path

from trimtab.host.files import keep_tail

LOG_BYTES_MAX = 8 << 20
TAIL_BYTES_MAX = 1 << 20
CHUNK_BYTES = 256 << 10
LINE_BYTES_MAX = 8 << 10  # a longer line is cut
OLD_LOGS_MAX = 50
LOOK_EACH_S = 0.25


class LogReader:
    """Reads one log that its writer appends to and that `bound` may empty at any time.

    It holds the file open, so the last lines of a pod are read even when its folder has gone.
    Raises OSError if there is no such file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")
        self._rest = b""  # of a line not yet ended, never more than one byte above LINE_BYTES_MAX

    def last(self, lines: int) -> list[str]:
        """The last `lines` complete lines; later ones come from `more`."""
        size = os.fstat(self._file.fileno()).st_size
        begin = self._file.seek(max(0, size - TAIL_BYTES_MAX))
        data = self._file.read(size - begin)
        if begin == 0:
            data = _end_of(self._path.with_name(self._path.name + ".1")) + data
        found = self._split(data if begin == 0 else data.partition(b"\n")[2])
        return found[-lines:] if lines > 0 else []

    def more(self) -> list[str]:
        """Lines ended since the last call, up to 256 KiB of them; empty if there is nothing new."""
        if os.fstat(self._file.fileno()).st_size < self._file.tell():
            self._file.seek(0)
            self._rest = b""
        return self._split(self._file.read(CHUNK_BYTES))

    def rest(self) -> list[str]:
        """The last line if it was never ended, once."""
        unended, self._rest = self._rest, b""
        return [_text(unended)] if unended else []

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _split(self, data: bytes) -> list[str]:
        *ended, unended = (self._rest + data).split(b"\n")
        self._rest = unended[: LINE_BYTES_MAX + 1]
        return [_text(line) for line in ended]


def tail(path: Path, lines: int) -> tuple[str, ...]:
    """The last `lines` of a log, an unended one included; empty if there is no log."""
    try:
        reader = LogReader(path)
    except OSError:
        return ()
    with contextlib.closing(reader):
        found = reader.last(lines) + reader.rest()
    return tuple(found[-lines:]) if lines > 0 else ()


async def follow(
    logs: Callable[[], Mapping[str, Path]], lines: int, go_on: bool
) -> AsyncIterator[tuple[str, str]]:
    """(pod id, line): the last `lines` of each log, then, if `go_on`, new ones until the caller stops.

    `logs` is asked again and again: a new pod's log joins, one that has gone is read to its end.
    A reader that falls behind a log's bound misses what was cut.
    """
    readers: dict[str, LogReader] = {}
    try:
        while True:
            present = logs()
            for pod_id in present.keys() - readers.keys():
                with contextlib.suppress(OSError):
                    readers[pod_id] = LogReader(present[pod_id])
                    for line in readers[pod_id].last(lines):
                        yield pod_id, line
            idle = True
            for pod_id, reader in list(readers.items()):
                found = reader.more()
                if not found and (not go_on or pod_id not in present):
                    found = reader.rest()
                    readers.pop(pod_id).close()
                for line in found:
                    idle = False
                    yield pod_id, line
            if not go_on and not readers:
                return
            if idle:
                await asyncio.sleep(LOOK_EACH_S)
    finally:
        for reader in readers.values():
            reader.close()


def bound(paths: Iterable[Path]) -> None:
    """Keep each log within 8 MiB, its predecessor beside it within 4; on a full disk drop what is there."""
    for path in paths:
        try:
            keep_tail(path, LOG_BYTES_MAX)
        except OSError:
            with contextlib.suppress(OSError):
                os.truncate(path, 0)


def retire(log: Path, to: Path) -> None:
    """Move the log of a pod that has gone to `to`, and drop all but the newest 50 logs there."""
    with contextlib.suppress(OSError):
        log.replace(to)
        old = sorted(to.parent.glob("*.log"), key=lambda path: path.stat().st_mtime)
        for path in old[:-OLD_LOGS_MAX]:
            path.unlink(missing_ok=True)


def _end_of(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES_MAX))
            return file.read(TAIL_BYTES_MAX)
    except OSError:
        return b""


def _text(line: bytes) -> str:
    cut = "…" if len(line) > LINE_BYTES_MAX else ""
    return line[:LINE_BYTES_MAX].decode(errors="replace").rstrip("\r") + cut
