"""What it takes to read an Envoy's statistics: of all that it has, or of what it is told to send.

    python -m bench.intake [--endpoints 1000] [--pods 10000] [--json]

Two real Envoys with as many clusters and pods, whose statistics a gRPC server of ours takes once a second;
one has our bootstrap, the other one the same without `custom_metric_conversions`. Nobody sends requests: what
is read are gauges. Their messages are then read by `StatisticsIntake`, several rounds of each side in turn.
Printed are what a flush has, what reading one takes of a core, and what making one takes Envoy; the ratio is
of the time that reading takes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from trimtab.core.clock import SystemClock
from trimtab.envoy.bootstrap import Bootstrap, Json, document
from trimtab.envoy.intake import StatisticsIntake, serve_statistics
from trimtab.envoy.otlp import parse
from trimtab.envoy.process import find_binary

SETTLES_WITHIN_S, FLUSHES, ROUNDS = 60.0, 8, 5


@dataclass
class Told:
    """What one Envoy sent: each flush as its messages; and what it took Envoy of a core meanwhile."""

    flushes: list[list[bytes]]
    envoy_share: float

    @property
    def bytes_each(self) -> float:
        return statistics.mean(sum(map(len, flush)) for flush in self.flushes)

    def read_s(self) -> float:
        """Time of a core that reading one flush takes, the mean of all."""
        intake = StatisticsIntake(SystemClock(), lambda _: None)
        began_s = time.process_time()
        for flush in self.flushes:
            asyncio.run(intake.take_whole(flush))
        return (time.process_time() - began_s) / len(self.flushes)


def configuration(bootstrap: Bootstrap, endpoints: int, pods: int, *, all_of_it: bool) -> Json:
    """The bootstrap with static clusters in place of ADS, whose pods nobody asks."""
    made = document(bootstrap)
    del made["dynamic_resources"]
    if all_of_it:
        del made["stats_sinks"][0]["typed_config"]["custom_metric_conversions"]
    made["static_resources"]["clusters"] += [
        _cluster(number, pods // endpoints + (number < pods % endpoints)) for number in range(endpoints)
    ]
    return made


def _cluster(number: int, pods: int) -> Json:
    name = f"team/e{number}/r1"
    addresses = (f"10.{number >> 8 & 255}.{number & 255}.{pod + 1}" for pod in range(pods))
    backends = [
        {"endpoint": {"address": {"socket_address": {"address": address, "port_value": 8000}}}}
        for address in addresses
    ]
    return {
        "name": name,
        "type": "STATIC",
        "track_cluster_stats": {"per_endpoint_stats": True},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": backends}]},
    }


async def listen(endpoints: int, pods: int, *, all_of_it: bool) -> Told:
    """Start an Envoy, take FLUSHES whole flushes once it has said of all pods, and end it."""
    came: dict[int, list[bytes]] = {}

    def take(message: bytes) -> None:
        came.setdefault(parse(message).at_ns, []).append(message)

    with tempfile.TemporaryDirectory(prefix="tt-") as folder:
        home = Path(folder)
        bootstrap = Bootstrap("bench", home / "xds.sock", home / "admin.sock", tells_busy=True)
        config = home / "envoy.json"
        config.write_text(json.dumps(configuration(bootstrap, endpoints, pods, all_of_it=all_of_it)))
        server = grpc.aio.server()
        serve_statistics(server, take)
        server.add_insecure_port(f"unix:{bootstrap.control_socket}")
        await server.start()
        options = ("--disable-hot-restart", "--concurrency", "1", "-l", "error")
        envoy = await asyncio.create_subprocess_exec(find_binary(), "-c", config, *options)
        try:
            await _known(came, pods)
            first, began_s, used_s = max(came), time.monotonic(), _used_s(envoy.pid)
            await asyncio.sleep(FLUSHES + 2)  # the first and the last may be cut
            share = (_used_s(envoy.pid) - used_s) / (time.monotonic() - began_s)
        finally:
            envoy.kill()
            await envoy.wait()
            await server.stop(None)
    whole = sorted(at_ns for at_ns in came if at_ns > first)[:-1]
    return Told([came[at_ns] for at_ns in whole], share)


async def _known(came: dict[int, list[bytes]], pods: int) -> None:
    """Once a flush has told of so many pods."""
    async with asyncio.timeout(SETTLES_WITHIN_S):
        while not any(_pods(messages) == pods for messages in list(came.values())):  # noqa: ASYNC110
            await asyncio.sleep(1.0)  # a flush comes each second


def _pods(messages: Sequence[bytes]) -> int:
    return sum(len(parse(message).pods) for message in messages)


def _used_s(pid: int) -> float:
    """Time of a core that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(endpoints: int, pods: int) -> dict[str, float]:
    """The median round of each side."""
    sides = {
        "sent": asyncio.run(listen(endpoints, pods, all_of_it=False)),
        "all": asyncio.run(listen(endpoints, pods, all_of_it=True)),
    }
    rounds = [{name: told.read_s() for name, told in sides.items()} for _ in range(ROUNDS)]
    found: dict[str, float] = {}
    for name, told in sides.items():
        found[f"{name}_bytes"] = told.bytes_each
        found[f"{name}_messages"] = statistics.mean(map(len, told.flushes))
        found[f"{name}_read_s"] = statistics.median(each[name] for each in rounds)
        found[f"{name}_envoy"] = told.envoy_share
    found["ratio"] = statistics.median(each["sent"] / each["all"] for each in rounds)
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--endpoints", type=int, default=1_000)
    parser.add_argument("--pods", type=int, default=10_000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = measure(arguments.endpoints, arguments.pods)
    if arguments.json:
        print(json.dumps(found))
        return
    for name in ("sent", "all"):
        messages, size_mb = found[f"{name}_messages"], found[f"{name}_bytes"] / 1e6
        read_ms, envoy = 1e3 * found[f"{name}_read_s"], 1e2 * found[f"{name}_envoy"]
        print(
            f"{name:5} {messages:5.1f} messages, {size_mb:5.2f} MB a flush: read in {read_ms:6.1f} ms of a"
            f" core, made in {envoy:5.1f} % of one"
        )
    print(f"ratio {found['ratio']:.3f}")


if __name__ == "__main__":
    main()
