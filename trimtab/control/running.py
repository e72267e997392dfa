"""What every control plane runs by: its servers, the signals that end it, and tasks that say what broke."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import grpc

from trimtab.control.leaving import TERM_GRACE_S
from trimtab.core.errors import Failed, TrimtabError

log = logging.getLogger(__name__)

MESSAGE_BYTES_MAX = 16 << 20  # 2,000 endpoints of one Envoy made one message of 1 MB


class Stoppable(Protocol):
    """What SIGINT tells to take everything down."""

    def stop(self, grace_s: float) -> None: ...


async def named(what: str, work: Coroutine[None, None, None]) -> None:
    """Do `work`; say which it was if it breaks."""
    try:
        await work
    except TrimtabError as error:
        log.error("%s: %s", what, error)
        raise
    except Exception as error:
        log.exception("%s broke", what)
        raise Failed(
            f"{what} broke: {error!r}; Envoy and the pods serve on",
            where="control plane",
            hint="start it again (`trimtab up`; a pod is by itself), and report what its log says",
        ) from error


async def relay(changed: asyncio.Event, wake: asyncio.Event) -> None:
    """News, of Envoy for example, wake who waits."""
    while True:
        await changed.wait()
        changed.clear()
        wake.set()


async def first_of(*events: asyncio.Event, within_s: float | None = None) -> None:
    """Until one of the events is set, or `within_s` has passed."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


@contextlib.contextmanager
def signals(platform: Stoppable) -> Iterator[asyncio.Event]:
    """SIGINT stops everything; SIGTERM and SIGHUP set the event that ends only us."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGINT, platform.stop, TERM_GRACE_S)
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, ended.set)
    try:
        yield ended
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def cancelled_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP cancel what is within, which is no error: `signals` takes over from there.

    The first process of a container never hears of signals that it has no handler for.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    told = asyncio.Event()

    def end() -> None:
        told.set()
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, end)
    try:
        yield
    except asyncio.CancelledError:
        if not told.is_set():
            raise
        task.uncancel()
    finally:
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.remove_signal_handler(number)


def new_server(before: Sequence[grpc.aio.ServerInterceptor[Any, Any]] = ()) -> grpc.aio.Server:
    """A gRPC server that takes what Envoys send."""
    return grpc.aio.server(
        interceptors=before,
        options=(("grpc.max_receive_message_length", MESSAGE_BYTES_MAX), ("grpc.so_reuseport", 0)),
    )


@contextlib.asynccontextmanager
async def served(*servers: grpc.aio.Server) -> AsyncIterator[None]:
    """Servers that are stopped at the end, whether or not they were started."""
    try:
        yield
    finally:
        await asyncio.gather(*(server.stop(grace=0.5) for server in servers))


def bind_unix(server: grpc.aio.Server, path: Path) -> None:
    """Bind a Unix socket that only its owner can open, from its first instant. Raises Failed.

    The mask is the whole process's, so nothing else may run under it: there is no await here.
    """
    path.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        server.add_insecure_port(f"unix:{path}")
    except RuntimeError as error:
        hint = "is its folder there and writable, its disk not full?"
        raise Failed("the socket cannot be made", where=str(path), hint=hint) from error
    finally:
        os.umask(before)
