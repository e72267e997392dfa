"""The scenario of `bench.truth` on this machine: a platform of its own, the real Envoy, real pods."""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import aiohttp
import numpy as np
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from bench import load as sender
from bench.isolation import save
from bench.rig import ROW, Platform, platform
from trimtab.control.options import DOWN_WINDOW
from trimtab.core.spec import ConcurrencyRange

NAME = "waits"
WAITS = """\
def predict(self, context, model_input, params=None):
    time.sleep(1)
    return [1]
"""
RANGE = ConcurrencyRange(1, 128)
CORES = 8  # what a pod is said to have: its limit begins there, and few pods start side by side on two cores
DOWN_WINDOW_S = 30.0  # so that the way down is seen too
LOOK_EACH_S, PODS_EACH_S = 0.5, 10.0
ALONE_REQUESTS = 10
REQUEST_TIMEOUT_S = 60.0

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scenario:
    """Arrivals that rise and fall back. What comes before `warmup_s` is not compared."""

    phases: tuple[sender.Phase, ...]
    warmup_s: float
    step_s: float  # when the rate rises
    seed: int = 1

    @property
    def end_s(self) -> float:
        return sum(phase.seconds for phase in self.phases)

    @property
    def times_s(self) -> Floats:
        """When each request arrives, from the begin."""
        due = sender.arrivals(list(self.phases), random.Random(self.seed))
        return np.array([offset_s for offset_s, _ in due])


def scenario(base_s: float, step_s: float, after_s: float) -> Scenario:
    phases = (sender.Phase(base_s, 12.0), sender.Phase(step_s, 48.0), sender.Phase(after_s, 12.0))
    return Scenario(phases, warmup_s=base_s / 2, step_s=base_s)


class Decided(NamedTuple):
    """One decision about pods, as the log tells it; its time from the begin of the load."""

    at_s: float
    pods: int
    limit: int


@dataclass
class Seen:
    """What happened on the machine. Times from the begin of the load, latencies by order of arrival."""

    latencies_s: Floats  # infinite: failed
    alone_s: float  # latency of a request that has the pod for itself
    starts_s: list[float] = field(default_factory=list)
    ready: list[tuple[float, int]] = field(default_factory=list)
    decided: list[Decided] = field(default_factory=list)


class Sent(sender.Load):
    """A load of which each latency is kept."""

    def __init__(self, url: str, phases: Sequence[sender.Phase]) -> None:
        headers = {"content-type": "application/json"}
        case = sender.Case(json.dumps(ROW).encode())
        super().__init__(url, [case], headers, list(phases), in_flight_max=10_000)
        self.by_due: list[tuple[float, float]] = []  # (due, latency)

    def _count(self, phase: sender.Tally, outcome: str, text: str, latency_s: float) -> None:
        super()._count(phase, outcome, text, latency_s)
        self.by_due.append((time.monotonic() - latency_s, latency_s if outcome == "200" else np.inf))

    @property
    def latencies_s(self) -> Floats:
        return np.array([latency_s for _, latency_s in sorted(self.by_due)])


async def alone_s(session: aiohttp.ClientSession, url: str) -> float:
    """Median latency of requests that come one after the other."""
    took_s = []
    for _ in range(ALONE_REQUESTS):
        begin_s = time.monotonic()
        async with session.post(url, json=ROW) as response:
            response.raise_for_status()
            await response.read()
        took_s.append(time.monotonic() - begin_s)
    return statistics.median(took_s)


def ready_pods(page: str) -> int:
    """How many pods a metrics page of the control plane tells to be ready."""
    families = text_string_to_metric_families(page)
    samples = [sample for family in families if family.name == "trimtab_pods" for sample in family.samples]
    return int(sum(sample.value for sample in samples if sample.labels["phase"] == "ready"))


async def watch_ready(session: aiohttp.ClientSession, metrics: str, ready: list[tuple[float, int]]) -> None:
    """Ready pods each LOOK_EACH_S, for ever, from the control plane's metrics. Times are wall clock."""
    while True:
        async with session.get(metrics) as response:
            ready.append((time.time(), ready_pods(await response.text())))
        await asyncio.sleep(LOOK_EACH_S)


async def watch_starts(trimtab: Platform, starts_s: dict[str, float]) -> None:
    """How long each pod took to start, by its id; all live longer than PODS_EACH_S. For ever."""
    while True:
        for pod in await asyncio.to_thread(trimtab.pods, NAME):
            starts_s[pod["id"]] = pod["ready_at_s"] - pod["started_at_s"]
        await asyncio.sleep(PODS_EACH_S)


async def observe(trimtab: Platform, metrics: str, given: Scenario) -> Seen:
    """Send the arrivals and write down what happens."""
    url = trimtab.url(NAME)
    timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
    ready: list[tuple[float, int]] = []
    starts_s: dict[str, float] = {}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        alone = await alone_s(session, url)
        first = {pod["id"] for pod in await asyncio.to_thread(trimtab.pods, NAME)}
        load = Sent(url, given.phases)
        watchers = [
            asyncio.create_task(watch_ready(session, metrics, ready)),
            asyncio.create_task(watch_starts(trimtab, starts_s)),
        ]
        begin_s = time.time()
        await load.run(session, random.Random(given.seed))
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
    return Seen(
        latencies_s=load.latencies_s,
        alone_s=alone,
        starts_s=[start_s for pod, start_s in starts_s.items() if pod not in first],
        ready=[(at_s - begin_s, pods) for at_s, pods in ready],
        decided=decisions(trimtab, begin_s),
    )


def decisions(trimtab: Platform, begin_s: float) -> list[Decided]:
    """All decisions about pods, oldest first."""
    logged = trimtab("why", NAME, "--limit", "1000")["decisions"]
    found = []
    for each in logged:
        inputs = {one["name"]: one.get("value") for one in each["inputs"]}
        if "ready_pods" in inputs:
            found.append(Decided(each["at_s"] - begin_s, each["pods"], int(inputs["target_concurrency"])))
    return sorted(found)


def on_the_machine(given: Scenario) -> Seen:
    """The scenario with real pods, on a platform of its own."""
    os.environ[DOWN_WINDOW] = f"{DOWN_WINDOW_S:g}"
    with tempfile.TemporaryDirectory() as folder, platform() as trimtab:
        model = save(NAME, WAITS, Path(folder))
        concurrency = f"{RANGE.min}..{RANGE.max}"
        settings = ("--set", f"resources.cpu={CORES}")
        trimtab("deploy", model, "--name", NAME, "--concurrency", concurrency, *settings)
        metrics = f"http://{trimtab.control_plane()['metrics_listen']}/metrics"
        return asyncio.run(observe(trimtab, metrics, given))
