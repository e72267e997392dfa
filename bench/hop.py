"""What the hop costs: the same requests through Envoy and straight to the pod, in turns, one at a time.

    python bench/hop.py [--requests 2000] [--json]

Starts a platform of its own. Which of the two goes first is drawn anew for each pair, so that
neither gains from what the other warmed up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

from bench.load import quantile
from bench.rig import ROW, iris, machine, platform

WARM_UP = 200  # pairs that are not counted: connections, caches, the server's own start


async def measure(targets: dict[str, str], requests: int) -> dict[str, list[float]]:
    """Seconds that each request took, by target. Raises ClientResponseError for an answer other than 200."""
    taken: dict[str, list[float]] = {name: [] for name in targets}
    order = list(targets.items())
    draw = random.Random(1)
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(timeout=timeout, raise_for_status=True) as session:
        for count in range(WARM_UP + requests):
            draw.shuffle(order)
            for name, url in order:
                begin_s = time.perf_counter()
                async with session.post(url, json=ROW) as response:
                    await response.read()
                if count >= WARM_UP:
                    taken[name].append(time.perf_counter() - begin_s)
    return taken


def summarise(taken: dict[str, list[float]]) -> dict[str, Any]:
    """p50 and p99 of each side and their differences in seconds; `ratio` is of the p50s."""
    quantiles = {
        name: {"p50_s": quantile(sorted(values), 0.5), "p99_s": quantile(sorted(values), 0.99)}
        for name, values in taken.items()
    }
    through, straight = quantiles["through_envoy"], quantiles["straight"]
    added = {key: round((through[key] or 0) - (straight[key] or 0), 6) for key in through}
    ratio = round((through["p50_s"] or 0) / (straight["p50_s"] or 1), 3)
    return {**quantiles, "added": added, "ratio": ratio}


def run(requests: int) -> dict[str, Any]:
    """The whole measurement, on a platform of its own."""
    with tempfile.TemporaryDirectory() as folder, platform() as trimtab:
        trimtab("deploy", iris(Path(folder, "model")), "--name", "iris", "--concurrency", "1..1")
        (pod,) = trimtab.pods("iris")
        targets = {"through_envoy": trimtab.url("iris"), "straight": f"http://{pod['address']}/invocations"}
        taken = asyncio.run(measure(targets, requests))
    return {"schema_version": 1, "requests": requests, **summarise(taken), **machine()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    result = run(arguments.requests)
    if arguments.json:
        print(json.dumps(result))
        return
    print(f"{'':15}{'p50 ms':>9}{'p99 ms':>9}")
    for name in ("straight", "through_envoy", "added"):
        p50, p99 = (1000 * result[name][key] for key in ("p50_s", "p99_s"))
        print(f"{name.replace('_', ' '):15}{p50:9.2f}{p99:9.2f}")
    print(f"through Envoy takes {result['ratio']:.2f} times as long ({requests_of(result)})")


def requests_of(result: dict[str, Any]) -> str:
    return f"{result['requests']} requests each, one at a time, {result['cores']} cores"


if __name__ == "__main__":
    main()
