"""Starts a control plane, runs it, and ends it: by `trimtab down` or Ctrl-C with all it started, else alone.

SIGINT and the API's Shutdown stop Envoy and every pod. SIGTERM ends only the control plane:
Envoy and the pods serve on, and the next control plane of the same home adopts them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc

import trimtab
from trimtab.control.api import ControlApi
from trimtab.control.ending import end_all, end_new
from trimtab.control.endpoints import Endpoints
from trimtab.control.environments import ModelEnvironments
from trimtab.control.home import Home
from trimtab.control.leaving import TERM_GRACE_S
from trimtab.control.metrics import Metrics
from trimtab.control.observations import Observations
from trimtab.control.options import (
    Address,
    ServeOptions,
    Started,
    checked_dcgm,
    checked_listen,
    checked_metrics_listen,
    down_window_s,
)
from trimtab.control.platform import Platform
from trimtab.control.reconcile import Reconciler
from trimtab.control.scaling import Scaling
from trimtab.control.scrape import Scraper
from trimtab.control.store import Store
from trimtab.control.traces import traces_from
from trimtab.core.clock import Clock, SystemClock
from trimtab.core.errors import Conflict, Failed
from trimtab.environment import Keeper
from trimtab.envoy.bootstrap import Bootstrap
from trimtab.envoy.intake import StatisticsIntake
from trimtab.envoy.process import ACCESS_LOG, EnvoyProcess
from trimtab.envoy.statistics import Signals
from trimtab.fleet.local import LocalFleet
from trimtab.host.collector import settle
from trimtab.host.ports import can_bind
from trimtab.host.process import find
from trimtab.v1 import control_pb2_grpc
from trimtab.xds.server import AdsServer
from trimtab.xds.world import Gateway

log = logging.getLogger(__name__)

MESSAGE_BYTES_MAX = 16 << 20  # 2,000 endpoints of one Envoy made one message of 1 MB
METRICS_EACH_S = 1.0
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
            parts = _build(home, started, gateway, metrics, dcgm)
            settle()
            await _run(parts, home, started, on_ready)
        finally:
            metrics_server.shutdown()
            metrics_server.server_close()


@dataclass(frozen=True)
class _Parts:
    store: Store
    fleet: LocalFleet
    environments: Keeper
    ads: AdsServer
    intake: StatisticsIntake
    envoy: EnvoyProcess
    reconciler: Reconciler
    platform: Platform
    scraper: Scraper
    api: ControlApi


def _build(home: Home, started: Started, gateway: Gateway, metrics: Metrics, dcgm: tuple[str, ...]) -> _Parts:
    clock: Clock = SystemClock()
    store = Store(home.path)
    observations = Observations()
    keeper = Keeper(home.path)
    environments = ModelEnvironments(keeper, home)
    endpoints = Endpoints(store, clock, home.has_model)
    fleet = LocalFleet(
        home.path,
        home.models,
        clock,
        python=environments.python,
        request_timeout_s=endpoints.request_timeout_s,
    )
    ads = AdsServer(clock)
    scraper = Scraper(fleet, clock, dcgm=dcgm)
    scaling = Scaling(
        observations,
        store,
        clock,
        metrics,
        down_window_s=down_window_s(os.environ),
        pod_signals=scraper.pod_signals,
    )
    reconciler = Reconciler(
        endpoints, fleet, ads, observations, scaling, gateway, clock, metrics, environments
    )

    def on_signals(signals: Signals) -> None:
        observations.add(signals.revisions, signals.pods, signals.latencies)
        scraper.latencies.add(signals.stages)
        metrics.signals.inc(len(signals.revisions))
        reconciler.saw_requests()

    intake = StatisticsIntake(clock, on_signals)
    envoy = EnvoyProcess(home.path, Bootstrap.for_home(home.path), clock)
    platform = Platform(
        home,
        started,
        endpoints,
        fleet,
        reconciler,
        observations,
        scraper,
        ads,
        intake,
        envoy,
        clock,
        metrics,
        environments,
        api_keys=bool(gateway.api_keys),
    )
    api = ControlApi(endpoints, store, fleet, reconciler, platform, clock)
    return _Parts(store, fleet, keeper, ads, intake, envoy, reconciler, platform, scraper, api)


async def _run(
    parts: _Parts, home: Home, started: Started, on_ready: Callable[[Started], None] | None
) -> None:
    def tell() -> None:
        home.announce(started)
        if on_ready is not None:
            on_ready(started)

    with contextlib.closing(parts.store), _signals(parts.platform) as ended:
        await parts.fleet.open()
        try:
            async with _servers(parts, home), _started(parts, home) as up:
                await _work(parts, ended, tell, up)
            if parts.platform.stopping.is_set():
                await end_all(parts.envoy, parts.fleet, parts.platform.grace_s)
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
    stopping, wake = parts.platform.stopping, parts.reconciler.wake
    work = {
        "the reconcile loop": parts.reconciler.run(),
        "the care of Envoy": parts.envoy.run(),
        "the news of pods": _relay(parts.fleet.changed, wake),
        "the news of Envoy": _relay(parts.ads.changed, wake),
        "the making of environments": parts.environments.run(),
        "the news of environments": _relay(parts.environments.changed, wake),
        "the pods' own counts": parts.scraper.run(),
        "the metrics": _measure(parts.platform),
    }
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(_named(what, each)) for what, each in work.items()]
        await _first_of(parts.reconciler.routed, stopping, ended, within_s=ROUTED_WITHIN_S)
        tell()
        up.set()
        await _first_of(stopping, ended)
        for task in running:
            task.cancel()


async def _named(what: str, work: Coroutine[None, None, None]) -> None:
    """Do `work`; say which it was if it breaks."""
    try:
        await work
    except Exception as error:
        log.exception("%s broke", what)
        raise Failed(
            f"{what} broke: {error!r}; Envoy and the pods serve on",
            where="control plane",
            hint="start it again with `trimtab up`, and report what its log says",
        ) from error


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
async def _servers(parts: _Parts, home: Home) -> AsyncIterator[None]:
    """The control API for people, and one server for Envoy: ADS and the intake of its statistics."""
    options = (("grpc.max_receive_message_length", MESSAGE_BYTES_MAX), ("grpc.so_reuseport", 0))
    control, envoys = grpc.aio.server(options=options), grpc.aio.server(options=options)
    control_pb2_grpc.add_ControlServicer_to_server(parts.api, control)
    parts.ads.add_to(envoys)
    parts.intake.add_to(envoys)
    bootstrap = Bootstrap.for_home(home.path)
    sockets = ((control, home.control_socket), (envoys, bootstrap.control_socket))
    try:
        for server, path in sockets:
            _bind(server, path)
            await server.start()
        yield
    finally:
        await asyncio.gather(*(server.stop(grace=0.5) for server, _ in sockets))


def _bind(server: grpc.aio.Server, path: Path) -> None:
    """Bind a Unix socket that only its owner can open, from its first instant. Raises Failed.

    The mask is the whole process's, so nothing else may run under it: there is no await here.
    """
    path.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        server.add_insecure_port(f"unix:{path}")
    except RuntimeError as error:
        hint = "is its folder there and writable, its disk not full?"
        raise Failed("the socket cannot be made", where=str(path), hint=hint) from error
    finally:
        os.umask(before)


@contextlib.contextmanager
def _signals(platform: Platform) -> Iterator[asyncio.Event]:
    """SIGINT stops everything; SIGTERM and SIGHUP set the event that ends only us."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGINT, platform.stop, TERM_GRACE_S)
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, ended.set)
    try:
        yield ended
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.remove_signal_handler(number)


async def _relay(changed: asyncio.Event, wake: asyncio.Event) -> None:
    """News of pods, and of what Envoy acknowledged, wake the reconcile loop."""
    while True:
        await changed.wait()
        changed.clear()
        wake.set()


async def _measure(platform: Platform) -> None:
    while True:
        try:
            platform.update_metrics()
        except Exception:
            log.exception("metrics could not be updated")
        await asyncio.sleep(METRICS_EACH_S)


async def _first_of(*events: asyncio.Event, within_s: float | None = None) -> None:
    """Until one of the events is set, or `within_s` has passed."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
