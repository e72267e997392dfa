"""Starts a control plane, runs it, and ends it: by `trimtab down` or Ctrl-C with all it started, else alone.

SIGINT and the API's Shutdown stop Envoy and every pod. SIGTERM ends only the control plane:
Envoy and the pods serve on, and the next control plane of the same home adopts them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import trimtab
from trimtab.control.anew import KeysFile, Unusable
from trimtab.control.assembly import Around, ControlPlane, assemble
from trimtab.control.changes import LocalChanges
from trimtab.control.ending import end_all, end_new
from trimtab.control.endpoints import Endpoints
from trimtab.control.environments import ModelEnvironments
from trimtab.control.home import Home
from trimtab.control.metrics import Metrics
from trimtab.control.options import (
    Address,
    ServeOptions,
    Started,
    checked_dcgm,
    checked_listen,
    checked_metrics_listen,
    down_window_s,
)
from trimtab.control.running import bind_unix, first_of, named, served, signals
from trimtab.control.servable import on_this_machine
from trimtab.control.sqlite import SqliteStore
from trimtab.control.traces import traces_from
from trimtab.core.clock import Clock, SystemClock
from trimtab.core.errors import Conflict
from trimtab.environment import Keeper
from trimtab.envoy.bootstrap import Bootstrap
from trimtab.envoy.process import ACCESS_LOG, EnvoyProcess
from trimtab.fleet.local import LocalFleet
from trimtab.host.collector import settled
from trimtab.host.ports import can_bind
from trimtab.host.process import find
from trimtab.host.threads import switch_often
from trimtab.xds.world import Gateway

ROUTED_WITHIN_S = 10.0  # it takes 0.1 s; with a refused listener `status` and `doctor` tell more than a wait


async def serve(options: ServeOptions, on_ready: Callable[[Started], None] | None = None) -> None:
    """Run a control plane until it is told to end.

    Raises InvalidInput, Unauthorised, NotFound, Conflict, Exhausted or Failed if it cannot start; then
    nothing runs that did not run before. Raises Failed if a part of it broke while it ran; then Envoy
    and the pods serve on.
    """
    address, keys = checked_listen(options)
    metrics_address = checked_metrics_listen(options)
    dcgm = checked_dcgm(options)
    traces = traces_from(os.environ)
    home = Home.open(options.home)
    with home.locked():
        _check_port(home, address)
        metrics = Metrics()
        metrics_bound, metrics_server = metrics.serve(metrics_address)
        started = Started(
            os.getpid(), trimtab.__version__, str(address), str(metrics_bound), str(home.control_socket)
        )
        access_log = str(home.path / "envoy" / ACCESS_LOG)
        gateway = Gateway(address.host, address.port, options.domain, keys, traces, access_log)
        try:
            parts = _build(home, started, gateway, metrics, dcgm, options.api_keys)
            switch_often()
            async with settled():
                await _run(parts, home, started, on_ready)
        finally:
            metrics_server.shutdown()
            metrics_server.server_close()


@dataclass(frozen=True)
class _Parts:
    store: SqliteStore
    fleet: LocalFleet
    environments: Keeper
    envoy: EnvoyProcess
    plane: ControlPlane
    keys: KeysFile | None


def _build(
    home: Home,
    started: Started,
    gateway: Gateway,
    metrics: Metrics,
    dcgm: tuple[str, ...],
    api_keys: Path | None,
) -> _Parts:
    clock: Clock = SystemClock()
    store = SqliteStore(home.path)
    keeper = Keeper(home.path)
    environments = ModelEnvironments(keeper, home)
    endpoints = Endpoints(store, clock, on_this_machine(home.has_model))
    fleet = LocalFleet(
        home.path,
        home.models,
        clock,
        python=environments.python,
        request_timeout_s=endpoints.request_timeout_s,
    )
    envoy = EnvoyProcess(home.path, Bootstrap.for_home(home.path), clock)
    around = Around(home, started, gateway, metrics, dcgm, down_window_s(os.environ))
    plane = assemble(around, store, endpoints, fleet, environments, clock, LocalChanges(endpoints), envoy)
    keys = None
    if api_keys is not None:
        unusable = Unusable(metrics.unusable, "api-keys")
        keys = KeysFile(api_keys, gateway.api_keys, plane.reconciler.keys_changed, unusable)
    return _Parts(store, fleet, keeper, envoy, plane, keys)


async def _run(
    parts: _Parts, home: Home, started: Started, on_ready: Callable[[Started], None] | None
) -> None:
    def tell() -> None:
        home.announce(started)
        if on_ready is not None:
            on_ready(started)

    with contextlib.closing(parts.store), signals(parts.plane.platform) as ended:
        await parts.fleet.open()
        try:
            async with _servers(parts.plane, home), _started(parts, home) as up:
                await _work(parts, ended, tell, up)
            if parts.plane.platform.stopping.is_set():
                await end_all(parts.envoy, parts.fleet, parts.plane.platform.grace_s)
        finally:
            await parts.fleet.close()


@contextlib.asynccontextmanager
async def _started(parts: _Parts, home: Home) -> AsyncIterator[asyncio.Event]:
    """Have an Envoy. What fails before the event is set takes down what was started, not what was adopted."""
    before = {process.pid for process in await asyncio.to_thread(find, home.path)}
    up = asyncio.Event()
    try:
        await parts.envoy.open()
        yield up
    except BaseException:
        if not up.is_set():
            await end_new(parts.envoy, parts.fleet, before)
        raise


async def _work(parts: _Parts, ended: asyncio.Event, tell: Callable[[], None], up: asyncio.Event) -> None:
    """Reconcile and keep Envoy alive until told to end; `tell` once Envoy has its configuration.

    Raises Failed if a part breaks: it is of no use without the others.
    """
    plane = parts.plane
    stopping = plane.platform.stopping
    work = plane.work() | {
        "the care of Envoy": parts.envoy.run(),
        "the making of environments": parts.environments.run(),
    }
    if parts.keys is not None:
        work["the keys of callers"] = parts.keys.run()
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(named(what, each)) for what, each in work.items()]
        await first_of(plane.reconciler.routed, stopping, ended, within_s=ROUTED_WITHIN_S)
        tell()
        up.set()
        await first_of(stopping, ended)
        for task in running:
            task.cancel()


def _check_port(home: Home, address: Address) -> None:
    """Raises Conflict if somebody else listens there; an Envoy of this home may."""
    before = home.last_announced()
    ours = before is not None and before.listen == str(address) and find(home.path, "envoy")
    if not ours and not can_bind(address.host, address.port):
        raise Conflict(
            f"{address} is taken",
            where="--listen",
            hint="stop what listens there, or give another port, e.g. --listen 127.0.0.1:8081",
        )


@contextlib.asynccontextmanager
async def _servers(plane: ControlPlane, home: Home) -> AsyncIterator[None]:
    """The control API for people, and one server for Envoy: ADS and the intake of its statistics."""
    control, envoys = plane.control_server(), plane.envoy_server()
    sockets = ((control, home.control_socket), (envoys, Bootstrap.for_home(home.path).control_socket))
    async with served(control, envoys):
        for server, path in sockets:
            bind_unix(server, path)
            await server.start()
        yield
