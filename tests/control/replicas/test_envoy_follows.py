"""A real Envoy whose control plane follows another one: changes, the end of the leader, a new one."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.control.replicas.peers import Peer, endpoint
from tests.kube.words import until
from tests.xds.gate import FakePod, Gate
from trimtab.xds.kinds import ASSIGNMENTS

PATH = "/serving-endpoints/iris/invocations"


async def eventually(condition: Callable[[], Any], what: str) -> None:
    await until(condition)


@pytest.fixture
async def folder() -> AsyncIterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp") as path:  # a socket's path must be short
        yield Path(path)


@pytest.fixture
async def gate(folder: Path) -> AsyncIterator[Gate]:
    gate = Gate(folder, eventually)
    await gate.start_control()  # which nobody asks: Envoy's control plane is a follower
    yield gate
    await gate.stop()


@pytest.fixture
async def pods() -> AsyncIterator[list[FakePod]]:
    made = [FakePod(), FakePod()]
    for pod in made:
        await pod.start()
    yield made
    for pod in made:
        await pod.stop()


async def test_envoy_serves_on_whoever_leads(
    gate: Gate, pods: list[FakePod], peer: Callable[..., Awaitable[Peer]], folder: Path
) -> None:
    a, b = pods
    one, two = await peer("one"), await peer("two", socket=folder / "follower.sock")
    await one.lead(1)
    two.follow(one.holder(1))
    first = gate.snapshot(endpoint("iris", a.port))
    one.ads.publish(first)
    await gate.start_envoy("envoy-1", folder / "follower.sock")
    await until(lambda: one.all_acknowledged(first), within_s=30)
    async with aiohttp.ClientSession() as http, Calls(http, gate.url + PATH) as calls:
        await until(lambda: calls.good > 20)
        second = gate.snapshot(endpoint("iris", a.port, b.port, draining=(a.port,)))
        one.ads.publish(second)
        await until(lambda: one.ads.acknowledged(ASSIGNMENTS, second.version(ASSIGNMENTS)))
        before = a.served
        await until(lambda: b.served > 20)
        assert a.served == before, "what the leader drains is drained at an Envoy of a follower"
        await until(lambda: one.flushes, within_s=20)  # the leader hears what Envoy counts

        await one.die()
        two.follow(None)
        good = calls.good
        await until(lambda: calls.good > good + 50)
        assert [node.connected for node in two.ads.nodes()] == [True]

        await two.lead(2)
        third = gate.snapshot(endpoint("iris", a.port))
        two.ads.publish(third)
        await until(lambda: two.all_acknowledged(third))
        before = a.served
        await until(lambda: a.served > before + 20)
    assert calls.bad == []


class Calls:
    """One after the other, for as long as the `with` lasts."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = url
        self.good = 0
        self.bad: list[object] = []

    async def __aenter__(self) -> Calls:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                async with self._http.post(self._url, data=b"{}") as answer:
                    if answer.status == 200:
                        self.good += 1
                    else:
                        self.bad.append((answer.status, await answer.text()))
            except aiohttp.ClientError as error:
                self.bad.append(error)
