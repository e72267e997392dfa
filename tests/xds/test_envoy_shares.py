"""Two real Envoys before the same pods: together they let through what the pods may hold."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import aiohttp

from trimtab.host.ports import free_port

LIMIT = 5


async def test_both_together_keep_to_a_pods_limit(
    gate: Any, pods: Any, endpoint: Any, eventually: Any
) -> None:
    """Also while the second one joins and leaves, but for what is under way in that moment."""
    some = await pods(2)
    for pod in some:
        pod.pace_s = 0.01
    iris = endpoint("iris", tuple(pod.port for pod in some), target=LIMIT)
    gate.envoys = ("envoy-1",)
    await gate.publish(iris)
    gate.ads.ports["envoy-2"] = port = free_port("127.0.0.1")
    calls = [asyncio.create_task(_calls(gate.url)) for _ in range(4 * LIMIT)]
    await _keeps_to(LIMIT, some, eventually)

    gate.envoys = ("envoy-1", "envoy-2")
    await gate.publish(iris)  # before the other one is there: it finds its share free
    await gate.start_envoy("envoy-2")
    await eventually(lambda: len(gate.ads.connected_nodes()) == 2, "the second one has come")
    await gate.confirmed(gate.ads.snapshot)
    calls += [asyncio.create_task(_calls(f"http://127.0.0.1:{port}")) for _ in range(4 * LIMIT)]
    await _keeps_to(LIMIT, some, eventually)

    await gate.kill_envoy("envoy-2")
    await eventually(lambda: len(gate.ads.connected_nodes()) == 1, "it has gone")
    await _keeps_to(LIMIT, some, eventually)  # with the share that it had
    gate.envoys = ("envoy-1",)
    await gate.publish(iris)
    await _keeps_to(LIMIT, some, eventually)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def _keeps_to(limit: int, pods: Any, eventually: Any) -> None:
    """Once what was under way is answered: for a while in which each pod answers hundreds."""
    await _answers(20, pods, eventually)
    for pod in pods:
        pod.in_flight_max = pod.in_flight
    await _answers(200, pods, eventually)
    assert max(pod.in_flight_max for pod in pods) <= limit


async def _answers(count: int, pods: Any, eventually: Any) -> None:
    before = [pod.served for pod in pods]
    await eventually(
        lambda: all(pod.served >= was + count for pod, was in zip(pods, before, strict=True)), "pods answer"
    )


async def _calls(url: str) -> None:
    """One after the other, until the Envoy is killed."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30)) as http:
        with contextlib.suppress(aiohttp.ClientError):
            while True:
                async with http.post(f"{url}/serving-endpoints/iris/invocations", data=b"{}") as answer:
                    await answer.read()
