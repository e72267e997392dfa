"""Shared by the xds suite: worlds in a few words, and `--regenerate-golden`."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.xds.gate import FakePod, Gate
from trimtab.core.names import EndpointName
from trimtab.core.protocol import Protocol
from trimtab.core.revision import RevisionKey
from trimtab.xds.world import Backend, EndpointView, RevisionView, Share

PATIENCE_S = 20.0


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--regenerate-golden",
        action="store_true",
        help="write what the golden files of tests/xds should hold, instead of comparing",
    )


@pytest.fixture
def endpoint() -> Callable[..., EndpointView]:
    """An endpoint of one revision with pods on the given ports."""

    def make(
        name: str,
        ports: tuple[int, ...] = (),
        *,
        protocols: tuple[Protocol, ...] = (Protocol.INVOCATIONS,),
        target: int = 1,
        queue_max: int = 100,
        draining: tuple[int, ...] = (),
        number: int = 1,
        timeout_s: float = 30.0,
        grpc_port: int = 0,
        grpc: int = 0,
        bridged: bool = False,
    ) -> EndpointView:
        key = RevisionKey(EndpointName.parse(name), number)
        backends = tuple(
            Backend("127.0.0.1", port, draining=port in draining, grpc_port=grpc_port) for port in ports
        )
        revision = RevisionView(key, frozenset(protocols), target, queue_max, backends, grpc, bridged)
        return EndpointView(key.endpoint, (revision,), (Share(key, 100),), timeout_s)

    return make


@pytest.fixture
def eventually() -> Callable[..., Awaitable[Any]]:
    """Poll a condition, plain or awaitable, until it is true; its value, or a failure that names it."""

    async def wait(condition: Callable[[], Any], what: str) -> Any:
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            value = condition()
            if asyncio.iscoroutine(value):
                value = await value
            if value:
                return value
            await asyncio.sleep(0.01)
        raise AssertionError(f"not within {PATIENCE_S:g} s: {what}")

    return wait


@pytest.fixture(params=["DELTA_GRPC"])
def api_type(request: pytest.FixtureRequest) -> str:
    """The variant of ADS that Envoy uses; a test may ask for both."""
    return str(request.param)


@pytest.fixture
async def gate(eventually: Callable[..., Awaitable[Any]], api_type: str) -> AsyncIterator[Gate]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # a socket's path must be short
        gate = Gate(Path(folder), eventually, api_type)
        await gate.start_control()
        await gate.start_envoy()
        yield gate
        await gate.stop()


@pytest.fixture
async def pods() -> AsyncIterator[Callable[[int], Awaitable[list[FakePod]]]]:
    """Start some model servers."""
    started: list[FakePod] = []

    async def start(count: int) -> list[FakePod]:
        new = [FakePod() for _ in range(count)]
        for pod in new:
            await pod.start()
        started.extend(new)
        return new

    yield start
    for pod in started:
        pod.open.set()
        await pod.stop()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client without a bound on connections; answers are not raised, but looked at."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(30)) as session:
        yield session
