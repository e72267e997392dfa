"""Is a pod ready, does its port still answer, and is it the pod that answers?"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from enum import Enum

import aiohttp
import psutil

ASK_TIMEOUT_S = 2.0
CONNECTIONS_MAX = 64  # probes under way at once; more wait for their turn


class Answer(Enum):
    """What a pod's port said."""

    READY = "ready"  # 200
    BUSY = "busy"  # somebody listens, who is not ready or has no time for us
    DEAD = "dead"  # nobody listens


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
        url = f"http://{_bracketed(host)}:{port}{path}"
        try:
            async with self._session.get(url, allow_redirects=False) as response:
                return Answer.READY if response.status == 200 else Answer.BUSY
        except aiohttp.ClientConnectorError:
            return Answer.DEAD
        except (aiohttp.ClientError, TimeoutError, OSError):
            return Answer.BUSY


async def listens(host: str, port: int) -> bool:
    """Whether the port takes a connection; a full backlog or a slow machine counts as yes.

    A model that is busy for minutes with one request still has a listening kernel socket: this is
    the question that tells a busy pod from a dead one.
    """
    try:
        async with asyncio.timeout(ASK_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port)
    except ConnectionRefusedError:
        return False
    except (OSError, TimeoutError):
        return True
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


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
