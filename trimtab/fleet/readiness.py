"""Is a pod ready, does its port still answer, and is it the pod that answers?"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import aiohttp
import psutil

ASK_TIMEOUT_S = 2.0
WORDS_BYTES_MAX = 1024  # of an answer
CONNECTIONS_MAX = 64  # probes under way at once; more wait for their turn


class Answer(Enum):
    """What a pod's port said."""

    READY = "ready"  # 200
    BUSY = "busy"  # another status
    SILENT = "silent"  # somebody listens, who has no time for us
    DEAD = "dead"  # nobody listens


@dataclass(frozen=True)
class Heard:
    """What a pod's port said, and the beginning of its words."""

    answer: Answer
    words: str = ""


class Prober:
    """Asks pods over HTTP. Make and `close` it inside the running loop."""

    def __init__(self) -> None:
        connector = aiohttp.TCPConnector(limit=CONNECTIONS_MAX, force_close=True)
        timeout = aiohttp.ClientTimeout(total=ASK_TIMEOUT_S)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)

    async def close(self) -> None:
        """Drop the connections."""
        await self._session.close()

    async def ask(self, host: str, port: int, path: str) -> Answer:
        """GET `path`, waiting at most 2 s. Never raises for what the pod does."""
        return (await self.hear(host, port, path)).answer

    async def hear(self, host: str, port: int, path: str) -> Heard:
        """The same, with what it said."""
        url = f"http://{_bracketed(host)}:{port}{path}"
        try:
            async with self._session.get(url, allow_redirects=False) as response:
                said = await response.content.read(WORDS_BYTES_MAX)
                words = said.decode(errors="replace").strip()
                return Heard(Answer.READY if response.status == 200 else Answer.BUSY, words)
        except aiohttp.ClientConnectorError as error:
            refused = isinstance(error.os_error, ConnectionRefusedError)
            return Heard(Answer.DEAD if refused else Answer.SILENT)
        except (aiohttp.ClientError, TimeoutError, OSError):
            return Heard(Answer.SILENT)


def owns_port(processes: Sequence[int], port: int) -> bool:
    """Whether one of `processes` listens on `port`; True if the system will not tell.

    Between choosing a port and the pod's binding it another server may take it, and would
    answer for the pod.
    """
    for process_id in processes:
        try:
            connections = psutil.Process(process_id).net_connections("tcp")
        except psutil.NoSuchProcess:
            continue
        except (psutil.Error, OSError):
            return True
        if any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections):
            return True
    return False


def dead_children(process_id: int) -> frozenset[int]:
    """Children of a process that have ended and that it has not asked after: a moment, or for ever."""
    try:
        children = psutil.Process(process_id).children()
    except psutil.Error:
        return frozenset()
    dead = set()
    for child in children:
        with contextlib.suppress(psutil.Error):
            if child.status() == psutil.STATUS_ZOMBIE:
                dead.add(child.pid)
    return frozenset(dead)


def stopped(processes: Sequence[int]) -> int:
    """The first of `processes` that is stopped (SIGSTOP); 0 if none is. One in a debugger is not."""
    for process_id in processes:
        with contextlib.suppress(psutil.Error):
            if psutil.Process(process_id).status() == psutil.STATUS_STOPPED:
                return process_id
    return 0


def turns(processes: Sequence[int]) -> int:
    """How often threads of these processes waited for something and went on, so far.

    Whatever serves waits: for a connection, for the rest of a request, for a lock. The count stands still
    while none of them runs, and in a loop that has no end and waits for nothing: that is only interrupted.
    """
    found = 0
    for process_id in processes:
        for status in Path(f"/proc/{process_id}/task").glob("*/status"):
            with contextlib.suppress(OSError, ValueError):  # the thread may end while we read
                lines = status.read_text().splitlines()
                found += sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt"))
    return found


@contextlib.contextmanager
def on_exit(process_id: int, notice: Callable[[], None]) -> Iterator[None]:
    """Call `notice` once, at once, when the process ends. Where the system cannot, it is never called."""
    try:
        handle = os.pidfd_open(process_id)
    except (AttributeError, OSError):  # not Linux, or gone already: the next look will tell
        yield
        return
    loop = asyncio.get_running_loop()

    def ended() -> None:
        loop.remove_reader(handle)
        notice()

    loop.add_reader(handle, ended)
    try:
        yield
    finally:
        loop.remove_reader(handle)
        os.close(handle)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
