"""Real Envoys, the server that configures them, and model servers that can be held or killed."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
from aiohttp import web

from trimtab.core.clock import SystemClock
from trimtab.envoy.bootstrap import Bootstrap, document
from trimtab.envoy.intake import StatisticsIntake
from trimtab.envoy.statistics import Signals
from trimtab.host.ports import free_port
from trimtab.xds.kinds import LISTENERS
from trimtab.xds.listeners import LISTENER, build_listener
from trimtab.xds.server import AdsServer
from trimtab.xds.snapshot import Collection, Snapshot, build_snapshot, resource
from trimtab.xds.world import ApiKey, EndpointView, Gateway, World


class FakePod:
    """A model server on a port of its own that says what it was asked, and can be held or killed."""

    def __init__(self) -> None:
        self.in_flight = self.in_flight_max = self.served = 0
        self.open = asyncio.Event()  # while it is clear, requests are held
        self.open.set()
        self.pace_s = 0.0
        self.dies_of = b""  # a body that it dies of
        self.requests: list[web.Request] = []  # under way
        self.headers: list[dict[str, str]] = []  # of all that came
        self.port = 0
        self._runner: web.AppRunner | None = None
        self._death: asyncio.Task[None] | None = None

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

    @property
    def alive(self) -> bool:
        return self._runner is not None

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
            if body and body == self.dies_of:
                self._death = asyncio.create_task(self.die())  # which ends us too
                await asyncio.Event().wait()
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


class OnOneMachine(AdsServer):
    """Tells each Envoy a port of its own to listen on."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(SystemClock())
        self._gateway = gateway
        self.ports: dict[str, int] = {}  # of those with another one than the gateway's

    def _shares_of(self, node: str, snapshot: Snapshot) -> Snapshot:
        found = super()._shares_of(node, snapshot)
        if node not in self.ports:
            return found
        listener = resource(build_listener(replace(self._gateway, port=self.ports[node])))
        own = Collection({LISTENER: listener})
        self._order[LISTENERS][own.version] = self._published
        return replace(found, collections={**found.collections, LISTENERS: own})


class Gate:
    """The ADS server, and real Envoys that it configures over a Unix socket."""

    def __init__(
        self, folder: Path, eventually: Callable[..., Awaitable[Any]], api_type: str = "DELTA_GRPC"
    ) -> None:
        self.gateway = Gateway("127.0.0.1", free_port("127.0.0.1"))
        self.signals: list[Signals] = []  # of each flush of any Envoy
        self.url = f"http://127.0.0.1:{self.gateway.port}"
        self.log_path = folder / "envoy.log"
        self.socket = folder / "x.sock"
        self._folder = folder
        self._api_type = api_type
        self._eventually = eventually
        self.envoys: tuple[str, ...] = ()  # that share limits; none: each has the whole
        self._processes: dict[str, asyncio.subprocess.Process] = {}

    async def start_control(self) -> None:
        self.ads = OnOneMachine(self.gateway)
        self.server = grpc.aio.server()
        self.ads.add_to(self.server)
        StatisticsIntake(SystemClock(), self.signals.append).add_to(self.server)
        self.server.add_insecure_port(f"unix:{self.socket}")
        await self.server.start()

    async def start_envoy(self, node: str = "envoy-1", socket: Path | None = None) -> None:
        """Another Envoy of this name; `socket` is its control plane's, by default ours."""
        bootstrap = Bootstrap(node, socket or self.socket, self.admin_socket(node))
        settings = document(bootstrap)
        settings["dynamic_resources"]["ads_config"]["api_type"] = self._api_type
        path = self._folder / f"{node}.json"
        path.write_text(json.dumps(settings))
        envoy = Path(sys.executable).with_name("envoy")
        command = [str(envoy), "--config-path", str(path), "--disable-hot-restart", "--concurrency", "1"]
        with self.log_path.open("ab") as log:
            self._processes[node] = await asyncio.create_subprocess_exec(
                *command, "--log-level", "warning", stdout=log, stderr=log
            )

    def admin_socket(self, node: str) -> Path:
        return self._folder / f"{node}.a.sock"

    async def kill_envoy(self, node: str = "envoy-1") -> None:
        process = self._processes.pop(node)
        process.kill()
        await process.wait()

    async def stop(self) -> None:
        for node in list(self._processes):
            await self.kill_envoy(node)
        await self.server.stop(None)

    def snapshot(self, *endpoints: EndpointView, keys: tuple[ApiKey, ...] = ()) -> Snapshot:
        """A world of these endpoints."""
        return build_snapshot(World(replace(self.gateway, api_keys=keys), endpoints, self.envoys))

    def send(self, *endpoints: EndpointView, keys: tuple[ApiKey, ...] = ()) -> Snapshot:
        """Publish a world of these endpoints."""
        snapshot = self.snapshot(*endpoints, keys=keys)
        self.ads.publish(snapshot)
        return snapshot

    async def publish(self, *endpoints: EndpointView, keys: tuple[ApiKey, ...] = ()) -> Snapshot:
        """Publish, and wait until every Envoy has confirmed all of it."""
        snapshot = self.send(*endpoints, keys=keys)
        await self.confirmed(snapshot)
        return snapshot

    async def confirmed(self, snapshot: Snapshot) -> None:
        def all_acknowledged() -> bool:
            return all(self.ads.acknowledged(kind, version) for kind, version in snapshot.versions.items())

        await self._eventually(all_acknowledged, f"Envoy confirms; {self.ads.nodes()}")
