"""CPU and memory from a kubelet's page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.kube.words import until
from trimtab.core.clock import ManualClock
from trimtab.core.errors import Unreachable
from trimtab.fleet.kubernetes import usage
from trimtab.fleet.kubernetes.usage import UNKNOWN, Usage, Used, read_page

PAGE = """\
# HELP container_cpu_usage_seconds_total [STABLE] Cumulative cpu time consumed by the container
# TYPE container_cpu_usage_seconds_total counter
container_cpu_usage_seconds_total{container="hold",namespace="a",pod="iris-r1-x"} 0.5 1000000
container_cpu_usage_seconds_total{container="model",namespace="a",pod="iris-r1-x"} 12.25 1000500
container_cpu_usage_seconds_total{container="model",namespace="b",pod="iris-r1-x"} 1 1000000
container_memory_working_set_bytes{container="model",namespace="a",pod="iris-r1-x"} 5.8688512e+09 1000500
node_cpu_usage_seconds_total 55166.4 1000000
"""


def test_a_page_tells_of_our_container_of_each_pod() -> None:
    assert read_page(PAGE.splitlines(), offset_s=-900.0) == {
        "a/iris-r1-x": Used(12.25, 5_868_851_200, pytest.approx(100.5)),
        "b/iris-r1-x": Used(1.0, None, pytest.approx(100.0)),
    }


class Kubelets:
    """An API server with many nodes behind it; `broken` ones do not answer."""

    def __init__(self) -> None:
        self.broken: set[str] = set()
        self.asked: list[str] = []
        self.at_once = self.at_once_max = 0

    @asynccontextmanager
    async def stream(self, path: str, _query: Mapping[str, str], _silence_s: float) -> AsyncIterator[Any]:
        node = path.split("/")[4]
        self.asked.append(node)
        self.at_once += 1
        self.at_once_max = max(self.at_once, self.at_once_max)
        try:
            await asyncio.sleep(0)
            if node in self.broken:
                raise Unreachable("the kubelet does not answer")
            reader = asyncio.StreamReader()
            reader.feed_data(PAGE.encode())
            reader.feed_eof()
            yield reader
        finally:
            self.at_once -= 1


async def test_nodes_have_turns_of_their_own_and_few_are_read_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(usage, "LOOK_EACH_S", 0.001)
    clock, api, nodes = ManualClock(), Kubelets(), [f"node-{number}" for number in range(200)]
    read = Usage(api, clock, lambda: nodes)  # type: ignore[arg-type]
    running = asyncio.create_task(read.run())
    try:
        await until(lambda: all(read.of(node, "a/iris-r1-x") != UNKNOWN for node in nodes))
        assert read.of("node-7", "a/iris-r1-x").cpu_seconds == 12.25
        assert 1 < api.at_once_max <= usage.AT_ONCE_MAX
        api.broken = {"node-7"}
        api.asked.clear()
        seen = []
        for _ in range(30):  # a round, in half seconds
            clock.advance(0.5)
            before = len(api.asked)
            await asyncio.sleep(0.02)
            seen.append(len(api.asked) - before)
        assert sorted(set(api.asked)) == sorted(nodes)
        assert max(seen) < 30, "no crowd at one instant"
        assert read.of("node-7", "a/iris-r1-x") == UNKNOWN, "what cannot be read is unknown"
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
