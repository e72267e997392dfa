"""What many endpoints cost: to build Envoy's resources for them, and for Envoy to find the one that is asked.

    python -m bench.routes [--endpoints 1,100,300,1000] [--seconds 3] [--json]

Each is an MLflow endpoint with all protocols. The first build is that of a control plane that just started;
the next is after a change of one endpoint's timeout. A real Envoy with one worker then answers requests for
the endpoint that comes last, by path, host, header and body, and for none. There is no pod: Envoy answers 503
by itself, so what is measured is its own. CPU time throughout: a shared machine lends its cores to others.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import psutil

from bench.footprint import cpu_seconds
from bench.rig import machine
from trimtab.core.clock import SystemClock
from trimtab.core.names import EndpointName
from trimtab.core.protocol import Protocol
from trimtab.core.revision import RevisionKey
from trimtab.envoy.bootstrap import Bootstrap, document
from trimtab.host.ports import free_port
from trimtab.xds.doors import ENDPOINT_HEADER
from trimtab.xds.kinds import ROUTES
from trimtab.xds.server import AdsServer
from trimtab.xds.snapshot import Snapshot, build_snapshot
from trimtab.xds.world import EndpointView, Gateway, RevisionView, Share, World

ENVOY = Path(sys.executable).with_name("envoy")
DOORS = ("by_path_us", "by_host_us", "by_header_us", "by_body_us", "by_nothing_us")
CONNECTIONS = 8
LOAD_TIMEOUT_S = 60.0  # of the load's command, beyond the seconds that it was asked for
CONFIRM_TIMEOUT_S = 300.0  # Envoy takes a thousand endpoints in


def world(endpoints: int, gateway: Gateway) -> World:
    """So many endpoints, each serving all protocols as MLflow pods do."""
    return World(gateway, tuple(_endpoint(f"model-{number:04d}") for number in range(endpoints)))


def _endpoint(name: str) -> EndpointView:
    key = RevisionKey(EndpointName("default", name), 1)
    revision = RevisionView(key, frozenset(Protocol), target_concurrency=4, queue_max=1000, grpc_bridged=True)
    return EndpointView(key.endpoint, (revision,), (Share(key, 100),))


def built(given: World) -> tuple[Snapshot, dict[str, float]]:
    """The snapshot of a world, and CPU seconds: of the first build, and of one after a change."""
    begin_s = time.process_time()
    snapshot = build_snapshot(given)
    first_s = time.process_time() - begin_s
    changed = replace(given.endpoints[0], request_timeout_s=77.0)
    begin_s = time.process_time()
    build_snapshot(replace(given, endpoints=(changed, *given.endpoints[1:])))
    return snapshot, {"first_build_s": first_s, "change_s": time.process_time() - begin_s}


@asynccontextmanager
async def envoy(folder: Path, ads: AdsServer) -> AsyncIterator[psutil.Process]:
    """An Envoy with one worker that has its configuration from `ads`."""
    bootstrap = Bootstrap("bench", folder / "x.sock", folder / "a.sock")
    server = grpc.aio.server()
    ads.add_to(server)
    server.add_insecure_port(f"unix:{bootstrap.control_socket}")
    await server.start()
    path = folder / "bootstrap.json"
    path.write_text(json.dumps(document(bootstrap)))
    command = [str(ENVOY), "--config-path", str(path), "--disable-hot-restart", "--concurrency", "1"]
    process = await asyncio.create_subprocess_exec(*command, "--log-level", "error")
    try:
        yield psutil.Process(process.pid)
    finally:
        process.kill()
        await process.wait()
        await server.stop(None)


async def asked(endpoints: int, seconds: int) -> dict[str, float]:
    """One number of endpoints: what building costs, and what Envoy does with the result."""
    gateway = Gateway("127.0.0.1", free_port("127.0.0.1"))
    given = world(endpoints, gateway)
    snapshot, found = built(given)
    found["route_table_bytes"] = len(snapshot.collections[ROUTES].resources["gateway"].payload)
    ads = AdsServer(SystemClock())
    folder = Path(tempfile.mkdtemp(prefix="trimtab-bench-"))
    try:
        async with envoy(folder, ads) as process:
            idle_s = cpu_seconds(process)
            ads.publish(snapshot)
            await _confirmed(ads, snapshot)
            found["envoy_takes_in_s"] = cpu_seconds(process) - idle_s
            found["envoy_memory_bytes"] = process.memory_info().rss
            name = given.endpoints[-1].name.name
            at = f"http://{gateway.host}:{gateway.port}"
            doors = {
                "by_path_us": (f"{at}/serving-endpoints/{name}/invocations", {}),
                "by_host_us": (f"{at}/invocations", {"Host": f"{name}.{gateway.domain}"}),
                "by_header_us": (f"{at}/invocations", {ENDPOINT_HEADER: name}),
                "by_body_us": (
                    f"{at}/serving-endpoints/chat/completions",
                    {"content-type": "application/json"},
                ),
                "by_nothing_us": (f"{at}/invocations", {}),
            }
            for door, (url, headers) in doors.items():
                asked_for = json.dumps({"model": name})
                found[door] = await _cpu_us(process, url, headers, asked_for, folder, seconds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return found


async def _confirmed(ads: AdsServer, snapshot: Snapshot) -> None:
    async with asyncio.timeout(CONFIRM_TIMEOUT_S):
        while not all(ads.acknowledged(kind, version) for kind, version in snapshot.versions.items()):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def _cpu_us(
    process: psutil.Process, url: str, headers: dict[str, str], body: str, folder: Path, seconds: int
) -> float:
    """Envoy's CPU microseconds of one request."""
    lua = folder / "ask.lua"
    lines = [f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items()]
    lua.write_text("\n".join(['wrk.method = "POST"', f"wrk.body = '{body}'", *lines]))
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(lua), url]
    begin_s = cpu_seconds(process)
    load = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said, _ = await asyncio.wait_for(load.communicate(), seconds + LOAD_TIMEOUT_S)
    used_s = cpu_seconds(process) - begin_s
    requests = re.search(rb"(\d+) requests in", said)
    if not requests or int(requests[1]) == 0:
        raise RuntimeError(f"wrk measured nothing: {said.decode()}")
    return used_s / int(requests[1]) * 1e6


def run(counts: list[int], seconds: int) -> dict[str, Any]:
    """The whole measurement, by number of endpoints."""
    built(world(1, Gateway("127.0.0.1", 1)))  # what all endpoints share is made once
    readings = {count: asyncio.run(asked(count, seconds)) for count in counts}
    first = readings[counts[0]]
    for reading in readings.values():
        reading["ratio"] = max(reading[door] / first[door] for door in DOORS)
    return {"schema_version": 1, "endpoints": readings, **machine()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--endpoints", default="1,100,300,1000")
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = run([int(count) for count in options.endpoints.split(",")], options.seconds)
    if options.json:
        print(json.dumps(result))
        return
    for count, reading in result["endpoints"].items():
        print(f"{count:5} endpoints: {words(reading)}")


def words(reading: dict[str, float]) -> str:
    per_request = ", ".join(
        f"{door.removesuffix('_us').replace('_', ' ')} {reading[door]:.0f}" for door in DOORS
    )
    return (
        f"first build {reading['first_build_s']:.2f} s, a change {reading['change_s'] * 1e3:.0f} ms;"
        f" table {reading['route_table_bytes'] / 2**20:.2f} MiB, taken in by Envoy in"
        f" {reading['envoy_takes_in_s']:.2f} s, {reading['envoy_memory_bytes'] / 2**20:.0f} MiB;"
        f" µs of a request: {per_request} (at most {reading['ratio']:.2f} of the first)"
    )


if __name__ == "__main__":
    main()
