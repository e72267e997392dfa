"""The control API at one that follows: each connection is carried on, as it is, to the one that leads.

A Service leads to any of them. What goes through is TLS between others: who asks, the leader finds out.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from trimtab.control.options import Address
from trimtab.core.errors import Conflict
from trimtab.kube.lease import Holder

CONNECTIONS_MAX = 64  # people's: one more is closed at once
CONNECT_WITHIN_S = 3.0
CHUNK_BYTES = 64 << 10


class Forwarder:
    """Carries what comes to `at` to the leader's `port`; with None it listens nowhere.

    While nobody leads a connection is closed at once; one to whoever led before ends with that.
    """

    def __init__(self, at: Address | None, port: int = 0) -> None:
        self._at = at
        self._port = port
        self._host = ""  # the leader's; empty: nobody leads, or where is not known
        self._near: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}

    def saw(self, holder: Holder | None) -> None:
        """Who holds the Lease now; None: nobody."""
        host = holder.address.rpartition(":")[0].strip("[]") if holder is not None else ""
        if host != self._host:
            self._host = host
            self._cut()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Raises Conflict."""
        if self._at is None:
            yield
            return
        try:
            server = await asyncio.start_server(self._take, self._at.host, self._at.port)
        except OSError as error:
            hint = "stop what listens there, or give another port"
            raise Conflict(f"{self._at} cannot be had", where="--api", hint=hint) from error
        try:
            yield
        finally:
            server.close()
            self._cut()
            await asyncio.gather(*self._near.values(), return_exceptions=True)

    def _cut(self) -> None:
        for each in self._near:
            each.transport.abort()

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._host or len(self._near) >= CONNECTIONS_MAX:
            writer.close()
            return
        self._near[writer] = asyncio.create_task(self._carry(reader, writer))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(CONNECT_WITHIN_S):
                far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
            back = asyncio.create_task(pour(far_reader, writer))
            await pour(reader, far_writer)
            far_writer.transport.abort()  # whoever asked has gone
            await back
        except OSError:  # a TimeoutError too: the leader is not there, and whoever asks sees the end
            pass
        finally:
            del self._near[writer]
            writer.close()


async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What comes from the one to the other until it ends, at the pace of who reads."""
    with contextlib.suppress(OSError):
        while chunk := await reader.read(CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
    writer.close()  # once it has what was written
