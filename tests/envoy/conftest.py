"""A real Envoy with static clusters in front of a model that answers when told to."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from trimtab.core.revision import RevisionKey
from trimtab.core.signals import LatencySignal, RevisionSignal
from trimtab.envoy.bootstrap import Bootstrap, document
from trimtab.envoy.process import find_binary
from trimtab.envoy.statistics import Signals
from trimtab.host.ports import free_port
from trimtab.host.process import Mark, find, spawn
from trimtab.host.watch import exited

LOOPBACK = "127.0.0.1"
DEADLINE_S = 60.0
FILTERS = "type.googleapis.com/envoy.extensions.filters"


async def until(condition: Callable[[], Any], what: str) -> None:
    """Poll a condition until it holds; the deadline is only for what never will."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"never happened: {what}")


@pytest.fixture
def eventually() -> Callable[[Callable[[], Any], str], Any]:
    return until


@pytest.fixture
def home() -> Iterator[Path]:
    """A home with a short path; whatever still carries its mark at the end is killed."""
    path = Path(tempfile.mkdtemp(prefix="tt-"))
    (path / "run").mkdir(mode=0o700)
    yield path
    for process in find(path):
        process.signal_group(signal.SIGKILL)
    shutil.rmtree(path, ignore_errors=True)


@dataclass
class Model:
    """A model server: `?hold` waits for `release`, `?code` sets the status."""

    port: int = 0
    held: int = 0
    held_max: int = 0
    release: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.Response:
        if "hold" in request.query:
            self.held += 1
            self.held_max = max(self.held_max, self.held)
            try:
                await self.release.wait()
            finally:
                self.held -= 1
        return web.Response(text="ok", status=int(request.query.get("code", "200")))


@pytest.fixture
async def model() -> AsyncIterator[Model]:
    model = Model()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", model.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, LOOPBACK, 0)
    await site.start()
    model.port = runner.addresses[0][1]
    yield model
    model.release.set()
    await runner.cleanup()


def cluster(name: str, ports: list[int], *, limit: int, queue_max: int) -> dict[str, Any]:
    """A cluster with a limit per pod and a bounded queue, like those of a revision."""
    addresses = [{"socket_address": {"address": LOOPBACK, "port_value": port}} for port in ports]
    bounds = {"max_connections": 10_000, "max_requests": 10_000, "max_retries": 1_000}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "track_cluster_stats": {"per_endpoint_stats": True},
        "circuit_breakers": {
            "thresholds": [{**bounds, "max_pending_requests": queue_max}],
            "per_host_thresholds": [{"max_connections": limit}],
        },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}} for address in addresses]}],
        },
    }


def listener(port: int, clusters: list[str]) -> dict[str, Any]:
    """A listener that routes `/CLUSTER?…`, retries what failed before an answer, and says 429 when full."""
    retry = {"retry_on": "connect-failure,reset-before-request,gateway-error", "num_retries": 2}
    routes = [
        {"match": {"path": f"/{name}"}, "route": {"cluster": name, "timeout": "0.5s", "retry_policy": retry}}
        for name in clusters
    ]
    patient = [
        {"match": {"path": f"/patient/{name}"}, "route": {"cluster": name, "timeout": "0s"}}
        for name in clusters
    ]
    full = {
        "filter": {"response_flag_filter": {"flags": ["UO"]}},
        "status_code": 429,
    }
    manager = {
        "@type": f"{FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "gateway",
        "local_reply_config": {"mappers": [full]},
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [*routes, *patient]}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{FILTERS}.http.router.v3.Router"}}],
    }
    return {
        "name": "gateway",
        "address": {"socket_address": {"address": LOOPBACK, "port_value": port}},
        "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}],
    }


def static_document(bootstrap: Bootstrap, clusters: list[dict[str, Any]], port: int) -> dict[str, Any]:
    """The real bootstrap, with what ADS would bring written into it."""
    wanted = document(bootstrap)
    del wanted["dynamic_resources"]
    wanted["static_resources"]["clusters"] += clusters
    wanted["static_resources"]["listeners"] = [listener(port, [c["name"] for c in clusters])]
    return wanted


@dataclass
class Gateway:
    """Callers' side of an Envoy."""

    port: int
    session: aiohttp.ClientSession

    async def get(self, path: str) -> int:
        async with self.session.get(f"http://{LOOPBACK}:{self.port}/{path}") as response:
            await response.read()
            return response.status


@pytest.fixture
def make_document() -> Callable[..., dict[str, Any]]:
    return static_document


@pytest.fixture
def make_cluster() -> Callable[..., dict[str, Any]]:
    return cluster


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session


@pytest.fixture
async def start_gateway(home: Path, session: aiohttp.ClientSession) -> AsyncIterator[Callable[..., Any]]:
    """Starts Envoys on given clusters; each ends with the test."""
    started = []

    async def start(bootstrap: Bootstrap, clusters: list[dict[str, Any]]) -> Gateway:
        port = free_port(LOOPBACK)
        config = home / f"static-{len(started)}.json"
        config.write_text(json.dumps(static_document(bootstrap, clusters, port)))
        argv = [str(find_binary()), "-c", str(config), "--disable-hot-restart", "--concurrency", "1"]
        log = home / "static.log"
        process = spawn(
            [*argv, "-l", "warning"],
            Mark(home, "test", config.stem),
            env=dict(os.environ),
            log_path=log,
            cwd=home,
        )
        started.append(process)
        gateway = Gateway(port, session)
        await until(lambda: is_listening(port) or not process.alive(), "Envoy listens")
        assert process.alive(), log.read_text()
        return gateway

    yield start
    for process in started:
        process.signal_group(signal.SIGKILL)
        await exited(process)


@pytest.fixture
def listens() -> Callable[[int], bool]:
    return is_listening


def is_listening(port: int) -> bool:
    """Whether somebody listens on a port of the loopback; asked of the kernel, not of Envoy."""
    wanted = f"0100007F:{port:04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[1] == wanted and line.split()[3] == "0A" for line in lines)


@dataclass
class Collector:
    """Every signal that came, and the sums over them."""

    bundles: list[Signals] = field(default_factory=list)

    def __call__(self, signals: Signals) -> None:
        self.bundles.append(signals)

    def of(self, key: RevisionKey) -> list[RevisionSignal]:
        return [s for bundle in self.bundles for s in bundle.revisions if s.revision == key]

    def latencies(self, key: RevisionKey) -> list[LatencySignal]:
        return [s for bundle in self.bundles for s in bundle.latencies if s.revision == key]

    def sums(self, key: RevisionKey) -> dict[str, int]:
        names = ("arrivals", "completions", "rejected", "failed")
        return {name: sum(getattr(signal, name) for signal in self.of(key)) for name in names}

    async def flushes(self, count: int) -> None:
        """Wait for `count` more flushes."""
        wanted = len(self.bundles) + count
        await until(lambda: len(self.bundles) >= wanted, f"{count} flushes")


@pytest.fixture
def collector() -> Collector:
    return Collector()
