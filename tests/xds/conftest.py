"""Shared by the xds suite: worlds in a few words, and `--regenerate-golden`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

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
    ) -> EndpointView:
        key = RevisionKey(EndpointName.parse(name), number)
        backends = tuple(Backend("127.0.0.1", port, draining=port in draining) for port in ports)
        revision = RevisionView(key, frozenset(protocols), target, queue_max, backends)
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
