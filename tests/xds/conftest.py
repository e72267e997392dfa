"""Shared by the xds suite: worlds in a few words, and `--regenerate-golden`."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from aiohttp import web

from trimtab.core.clock import SystemClock
from trimtab.core.names import EndpointName
from trimtab.core.protocol import Protocol
from trimtab.core.revision import RevisionKey
from trimtab.envoy.bootstrap import Bootstrap, document
from trimtab.envoy.intake import StatisticsIntake
from trimtab.envoy.statistics import Signals
from trimtab.host.ports import free_port
from trimtab.xds.server import AdsServer
from trimtab.xds.snapshot import Snapshot, build_snapshot
from trimtab.xds.world import ApiKey, Backend, EndpointView, Gateway, RevisionView, Share, World

PATIENCE_S = 20.0


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--regenerate-golden",
        action="store_true",
        help="write what the golden files of tests/xds should hold, instead of comparing",
    )


@pytest.fixture
def endpoint() -> Callable[..., EndpointView]:
    """An endpoint of one revision with pods on the given ports."""

    def make(
        name: str,
        ports: tuple[int, ...] = (),
        *,
        protocols: tuple[Protocol, ...] = (Protocol.INVOCATIONS,),
        target: int = 1,
        queue_max: int = 100,
        draining: tuple[int, ...] = (),
        number: int = 1,
        timeout_s: float = 30.0,
        grpc_port: int = 0,
        grpc: int = 0,
        bridged: bool = False,
    ) -> EndpointView:
        key = RevisionKey(EndpointName.parse(name), number)
        backends = tuple(
            Backend("127.0.0.1", port, draining=port in draining, grpc_port=grpc_port) for port in ports
        )
        revision = RevisionView(key, frozenset(protocols), target, queue_max, backends, grpc, bridged)
        return EndpointView(key.endpoint, (revision,), (Share(key, 100),), timeout_s)

    return make


@pytest.fixture
def eventually() -> Callable[..., Awaitable[Any]]:
    """Poll a condition, plain or awaitable, until it is true; its value, or a failure that names it."""

    async def wait(condition: Callable[[], Any], what: str) -> Any:
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            value = condition()
            if asyncio.iscoroutine(value):
                value = await value
            if value:
                return value
            await asyncio.sleep(0.01)
        raise AssertionError(f"not within {PATIENCE_S:g} s: {what}")

    return wait


class FakePod:
    """A model server on a port of its own that says what it was asked, and can be held or killed."""

    def __init__(self) -> None:
        self.in_flight = self.in_flight_max = self.served = 0
        self.open = asyncio.Event()  # while it is clear, requests are held
        self.open.set()
        self.pace_s = 0.0
        self.requests: list[web.Request] = []  # under way
        self.headers: list[dict[str, str]] = []  # of all that came
        self.port = 0
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{tail:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        assert site._server is not None
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]

    async def stop(self) -> None:
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    async def die(self) -> None:
        """As by kill -9: connections are reset, and nobody listens any more."""
        for request in self.requests:
            if request.transport is not None:
                request.transport.abort()
        await self.stop()

    async def _answer(self, request: web.Request) -> web.Response:
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)
        self.requests.append(request)
        self.headers.append(dict(request.headers))
        try:
            body = await request.read()
            await asyncio.sleep(self.pace_s)
            await self.open.wait()
            self.served += 1
            answer = {
                "port": self.port,
                "method": request.method,
                "path": request.path_qs,
                "bytes": len(body),
            }
            return web.json_response(answer | {"headers": {k.lower(): v for k, v in request.headers.items()}})
        finally:
            self.in_flight -= 1
            self.requests.remove(request)


class Gate:
    """A real Envoy and the ADS server that configures it, over a Unix socket."""

    def __init__(self, folder: Path, eventually: Callable[..., Awaitable[Any]], api_type: str) -> None:
        self.gateway = Gateway("127.0.0.1", free_port("127.0.0.1"))
        self.signals: list[Signals] = []  # of each flush
        self.url = f"http://127.0.0.1:{self.gateway.port}"
        self.log_path = folder / "envoy.log"
        self.bootstrap = Bootstrap("envoy-1", folder / "x.sock", folder / "a.sock")
        self._api_type = api_type
        self._eventually = eventually
        self._process: asyncio.subprocess.Process | None = None

    async def start_control(self) -> None:
        self.ads = AdsServer(SystemClock())
        self.server = grpc.aio.server()
        self.ads.add_to(self.server)
        StatisticsIntake(SystemClock(), self.signals.append).add_to(self.server)
        self.server.add_insecure_port(f"unix:{self.bootstrap.control_socket}")
        await self.server.start()

    async def start_envoy(self) -> None:
        settings = document(self.bootstrap)
        settings["dynamic_resources"]["ads_config"]["api_type"] = self._api_type
        path = self.bootstrap.control_socket.with_name("bootstrap.json")
        path.write_text(json.dumps(settings))
        envoy = Path(sys.executable).with_name("envoy")
        command = [str(envoy), "--config-path", str(path), "--disable-hot-restart", "--concurrency", "1"]
        with self.log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command, "--log-level", "warning", stdout=log, stderr=log
            )

    async def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
        await self.server.stop(None)

    def send(self, *endpoints: EndpointView, keys: tuple[ApiKey, ...] = ()) -> Snapshot:
        """Publish a world of these endpoints."""
        snapshot = build_snapshot(World(replace(self.gateway, api_keys=keys), endpoints))
        self.ads.publish(snapshot)
        return snapshot

    async def publish(self, *endpoints: EndpointView, keys: tuple[ApiKey, ...] = ()) -> Snapshot:
        """Publish, and wait until Envoy has confirmed all of it."""
        snapshot = self.send(*endpoints, keys=keys)
        await self.confirmed(snapshot)
        return snapshot

    async def confirmed(self, snapshot: Snapshot) -> None:
        def all_acknowledged() -> bool:
            return all(self.ads.acknowledged(kind, version) for kind, version in snapshot.versions.items())

        await self._eventually(all_acknowledged, f"Envoy confirms; {self.ads.nodes()}")


@pytest.fixture(params=["DELTA_GRPC"])
def api_type(request: pytest.FixtureRequest) -> str:
    """The variant of ADS that Envoy uses; a test may ask for both."""
    return str(request.param)


@pytest.fixture
async def gate(eventually: Callable[..., Awaitable[Any]], api_type: str) -> AsyncIterator[Gate]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # a socket's path must be short
        gate = Gate(Path(folder), eventually, api_type)
        await gate.start_control()
        await gate.start_envoy()
        yield gate
        await gate.stop()


@pytest.fixture
async def pods() -> AsyncIterator[Callable[[int], Awaitable[list[FakePod]]]]:
    """Start some model servers."""
    started: list[FakePod] = []

    async def start(count: int) -> list[FakePod]:
        new = [FakePod() for _ in range(count)]
        for pod in new:
            await pod.start()
        started.extend(new)
        return new

    yield start
    for pod in started:
        pod.open.set()
        await pod.stop()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client without a bound on connections; answers are not raised, but looked at."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(30)) as session:
        yield session
