"""Connections that come to a control plane that follows, and whom they reach."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from trimtab.control.kubernetes import forwarding
from trimtab.control.kubernetes.forwarding import Forwarder
from trimtab.control.options import Address
from trimtab.core.errors import Conflict
from trimtab.host.ports import free_port
from trimtab.kube.lease import Holder

LARGE = bytes(1 << 20)


@contextlib.asynccontextmanager
async def leader(name: bytes) -> AsyncIterator[int]:
    """Says its name, then whatever it is told; its port."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(name)
        with contextlib.suppress(OSError):
            while chunk := await reader.read(1 << 16):
                writer.write(chunk)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@contextlib.asynccontextmanager
async def connected(at: Address) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(at.host, at.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def at() -> Address:
    return Address("127.0.0.1", free_port("127.0.0.1"))


def holder(host: str = "127.0.0.1") -> Holder:
    return Holder("pod", 1, f"{host}:18000")


async def has_none(forwarder: Forwarder) -> None:
    async with asyncio.timeout(10.0):
        while forwarder._near:  # noqa: ASYNC110 -- they end by themselves, and tell nobody
            await asyncio.sleep(0.01)


async def ended(reader: asyncio.StreamReader) -> bool:
    """Whether nothing comes any more, and nothing came."""
    with contextlib.suppress(ConnectionError):
        return await asyncio.wait_for(reader.read(), 10.0) == b""
    return True


@contextlib.asynccontextmanager
async def led() -> AsyncIterator[tuple[Forwarder, Address]]:
    """One that carries on to a leader whose first byte is `l`, and where it listens."""
    async with leader(b"l") as port:
        forwarder = Forwarder(here := at(), port)
        async with forwarder.listening():
            forwarder.saw(holder())
            yield forwarder, here


async def test_what_comes_is_carried_to_the_leader_and_back() -> None:
    async with led() as (forwarder, here):
        async with connected(here) as (reader, writer):
            writer.write(LARGE)
            assert await asyncio.wait_for(reader.readexactly(1 + len(LARGE)), 10.0) == b"l" + LARGE
        await has_none(forwarder)


async def test_while_nobody_leads_or_it_cannot_be_reached_it_ends() -> None:
    forwarder = Forwarder(here := at(), free_port("127.0.0.1"))
    async with forwarder.listening():
        async with connected(here) as (reader, _):
            assert await ended(reader), "nobody leads"
        forwarder.saw(Holder("pod", 1))
        async with connected(here) as (reader, _):
            assert await ended(reader), "where is not known"
        forwarder.saw(holder())
        async with connected(here) as (reader, _):
            assert await ended(reader), "nothing listens there"
        await has_none(forwarder)


async def test_a_connection_ends_with_whom_it_led_to() -> None:
    async with led() as (forwarder, here):
        async with connected(here) as (reader, _):
            assert await reader.readexactly(1) == b"l"
            forwarder.saw(Holder("pod", 2, "127.0.0.1:1"))  # the same place, another term: it stays
            assert forwarder._near
            forwarder.saw(None)
            assert await ended(reader)
        forwarder.saw(holder())
        async with connected(here) as (last, _):
            assert await last.readexactly(1) == b"l"
    assert await ended(last)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(here.host, here.port)


async def test_there_are_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "CONNECTIONS_MAX", 2)
    async with led() as (_, here), connected(here) as (first, _), connected(here) as (second, _):
        assert await first.readexactly(1) + await second.readexactly(1) == b"ll"
        async with connected(here) as (third, _):
            assert await ended(third)


async def test_a_port_that_is_taken_is_told_and_without_one_it_listens_nowhere() -> None:
    async with leader(b"l") as port:
        with pytest.raises(Conflict, match="cannot be had"):
            async with Forwarder(Address("127.0.0.1", port), port).listening():
                raise AssertionError
    async with Forwarder(None).listening():
        pass
