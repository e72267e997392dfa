"""Control planes that are ended whatever happens to a test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.control.replicas.peers import Peer


@pytest.fixture
async def peer() -> AsyncIterator[Callable[..., Awaitable[Peer]]]:
    """Start one more."""
    made: list[Peer] = []

    async def start(name: str, **said: object) -> Peer:
        made.append(Peer(name, **said))  # type: ignore[arg-type]
        await made[-1].start()
        return made[-1]

    yield start
    for each in made:
        await each.die()
