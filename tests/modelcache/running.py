"""A cache that runs: real HTTP, and tokens that say themselves whose they are (NAMESPACE)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from trimtab.core.clock import SystemClock
from trimtab.core.errors import Unreachable
from trimtab.modelcache.client import NodeCache
from trimtab.modelcache.server import Server
from trimtab.modelcache.shelf import Owner, Shelf


async def by_its_word(token: str) -> Owner | None:
    if token == "the API server is away":
        raise Unreachable("no answer")
    return Owner(token, "trimtab-iris") if token.isalpha() else None


@dataclass(frozen=True)
class Running:
    folder: Path
    port: int
    tokens: Path

    def as_pod_of(self, namespace: str = "team") -> NodeCache:
        token = self.tokens / namespace
        token.write_text(namespace)
        return NodeCache(f"http://127.0.0.1:{self.port}", token)

    def files(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file()]


@contextmanager
def running(folder: Path, bytes_max: int = 1 << 30) -> Iterator[Running]:
    clock, loop, started = SystemClock(), asyncio.new_event_loop(), threading.Event()
    shelf = Shelf(folder / "cache", bytes_max, clock)
    shelf.open()
    ports: list[int] = []

    async def serve() -> None:
        runner = web.AppRunner(Server(shelf, by_its_word, clock).app(), shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        ports.append(runner.addresses[0][1])
        started.set()
        await ended.wait()
        await runner.cleanup()

    ended = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert started.wait(30)
    tokens = folder / "tokens"
    tokens.mkdir(exist_ok=True)
    try:
        yield Running(folder / "cache", ports[0], tokens)
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(30)
        loop.close()
