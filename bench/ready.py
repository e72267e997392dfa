"""How soon a ready pod gets traffic: from `ready_at_s` in its status to the first request it served.

    python bench/ready.py [--pods 4] [--json]

Starts a platform of its own, keeps more requests in flight than its pods may hold, raises the range's
minimum by one pod at a time, and reads each new pod's own count of requests until it moves.
The reading is repeated each POLL_EACH_S, so a result may be that much too large.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from bench.rig import ROW, Platform, iris, machine, platform

POLL_EACH_S = 0.01
POD_TIMEOUT_S = 120.0
BUSY_CLIENTS = 12
COUNTS = ("http_server_active_requests", "http_server_request_duration_seconds_count")


@asynccontextmanager
async def busy(session: aiohttp.ClientSession, url: str) -> AsyncIterator[None]:
    """Closed-loop clients that keep the endpoint's pods full; an answer other than 200 ends all."""

    async def ask() -> None:
        while True:
            async with session.post(url, json=ROW) as response:
                response.raise_for_status()
                await response.read()

    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(ask()) for _ in range(BUSY_CLIENTS)]
        yield
        for client in clients:
            client.cancel()


async def new_pod(trimtab: Platform, known: set[str]) -> dict[str, Any]:
    """The first pod that is not known yet, whatever its phase."""
    while True:
        status = (await asyncio.to_thread(trimtab.endpoint, "iris"))["status"]
        for revision in status["revisions"]:
            for pod in revision["pods"]:
                if pod["id"] not in known and pod["address"]:
                    known.add(pod["id"])
                    return dict(pod)


async def first_request_at_s(session: aiohttp.ClientSession, address: str) -> float:
    """Wall-clock seconds at which the pod was seen to have served something."""
    while True:
        try:
            async with session.get(f"http://{address}/metrics") as response:
                if served(await response.text()) > 0:
                    return time.time()
        except aiohttp.ClientError:
            pass  # it does not listen yet
        await asyncio.sleep(POLL_EACH_S)


def served(text: str) -> float:
    """Requests for predictions that a pod's /metrics says it has begun to answer or answered."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name in COUNTS and sample.labels["http_route"] == "/invocations"
    )


async def measure(trimtab: Platform, model: str, pods: int) -> list[float]:
    """Seconds from ready to the first request, of each pod that was added."""
    waits_s: list[float] = []
    known = {pod["id"] for pod in await asyncio.to_thread(trimtab.pods, "iris")}
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(timeout=timeout) as session, busy(session, trimtab.url("iris")):
        for count in range(2, pods + 1):
            async with asyncio.timeout(POD_TIMEOUT_S):
                deploy = asyncio.create_task(asyncio.to_thread(set_range, trimtab, model, count, pods))
                pod = await new_pod(trimtab, known)
                at_s = await first_request_at_s(session, pod["address"])
                await deploy
            ready = {pod["id"]: pod["ready_at_s"] for pod in await asyncio.to_thread(trimtab.pods, "iris")}
            waits_s.append(at_s - float(ready[pod["id"]]))
    return waits_s


def set_range(trimtab: Platform, model: str, low: int, high: int) -> None:
    trimtab("deploy", model, "--name", "iris", "--concurrency", f"{low}..{high}", "--set", f"max_pods={low}")


def run(pods: int) -> dict[str, Any]:
    """The whole measurement, on a platform of its own."""
    with tempfile.TemporaryDirectory() as folder, platform() as trimtab:
        model = iris(Path(folder, "model"))
        set_range(trimtab, model, 1, pods)
        waits_s = asyncio.run(measure(trimtab, model, pods))
    return {
        "schema_version": 1,
        "waits_s": [round(wait_s, 3) for wait_s in waits_s],
        "median_s": round(statistics.median(waits_s), 3),
        "max_s": round(max(waits_s), 3),
        "poll_each_s": POLL_EACH_S,
        **machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pods", type=int, default=4, help="how many there are in the end")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = run(arguments.pods)
    if arguments.json:
        print(json.dumps(result))
        return
    shown = ", ".join(f"{1000 * wait_s:.0f}" for wait_s in result["waits_s"])
    print(f"from ready to the first request: {shown} ms (median {1000 * result['median_s']:.0f} ms)")


if __name__ == "__main__":
    main()
