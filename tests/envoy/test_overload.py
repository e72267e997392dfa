"""Bodies that wait are held in Envoy's memory, and that has a bound."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp

from trimtab.envoy.bootstrap import Bootstrap

BODY = b" " * 900_000  # just below what a connection buffers by itself
CALLS = 1_000
PACE_S = 0.02  # Envoy looks at its heap each 0.25 s: all at once would all be let in before that


async def test_beyond_the_bound_new_requests_are_refused_and_those_there_go_on(
    home: Path,
    model: Any,
    start_gateway: Callable[..., Any],
    make_cluster: Callable[..., dict[str, Any]],
    eventually: Callable[..., Any],
) -> None:
    bounded = replace(Bootstrap.for_home(home), heap_bytes_max=100 << 20)
    clusters = [make_cluster("default/iris/r1", [model.port], limit=1, queue_max=10_000)]
    gateway = await start_gateway(bounded, clusters)
    url = f"http://127.0.0.1:{gateway.port}/patient/default/iris/r1?hold=1"

    async def call() -> int:
        try:
            async with gateway.session.post(url, data=BODY) as response:
                await response.read()
                return int(response.status)
        except aiohttp.ClientError:
            return 503  # refused before the body was sent: the connection is closed on us

    calls: list[asyncio.Task[int]] = []
    while not any(call.done() for call in calls) and len(calls) < CALLS:
        calls.append(asyncio.create_task(call()))
        await eventually(lambda: model.held == 1, "the pod is busy")
        await asyncio.sleep(PACE_S)
    await eventually(lambda: any(call.done() for call in calls), "some are refused")
    assert {call.result() for call in calls if call.done()} == {503}
    model.release.set()
    answers = Counter(await asyncio.gather(*calls))
    assert answers[200] >= 20, "those that were there are answered"
    assert answers[200] + answers[503] == len(calls)
    async with asyncio.timeout(30):
        while await call() != 200:  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.1)
