"""Runs a control plane against a cluster: its store is the API server, its pods are Deployments'.

Envoys come by themselves: it starts nothing on this machine. However it ends, pods and Envoys serve on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, replace

import grpc

import trimtab
from trimtab.control.assembly import Around, ControlPlane, assemble
from trimtab.control.endpoints import Endpoints
from trimtab.control.environments import OwnEnvironment
from trimtab.control.home import Home
from trimtab.control.kubernetes.changes import KubernetesChanges
from trimtab.control.kubernetes.events import Events
from trimtab.control.kubernetes.options import (
    KubernetesOptions,
    checked_callers,
    checked_control,
    checked_gateway,
    checked_placeholders,
    checked_xds,
    on_kubernetes,
)
from trimtab.control.kubernetes.plane import Watched
from trimtab.control.kubernetes.store import KubernetesStore
from trimtab.control.kubernetes.watching import Intake
from trimtab.control.kubernetes.writing import Writer
from trimtab.control.metrics import Metrics
from trimtab.control.options import Address, Started, checked_dcgm, down_window_s, parse_address
from trimtab.control.options import ServeOptions as LocalOptions
from trimtab.control.running import bind_unix, cancelled_by_signals, first_of, named, relay, served, signals
from trimtab.control.traces import traces_from
from trimtab.core.clock import Clock, SystemClock
from trimtab.core.errors import Conflict, InvalidInput
from trimtab.core.names import EndpointName
from trimtab.envoy.bootstrap import Bootstrap
from trimtab.fleet.kubernetes import Exporters, KubernetesFleet, Placeholders
from trimtab.fleet.protocol import Fleet
from trimtab.host.collector import settle
from trimtab.kube import Api, Lease
from trimtab.xds.world import Gateway

log = logging.getLogger(__name__)

OWNER = "trimtab"  # the field manager of all that the control plane writes by itself
ACCESS_LOG = "/dev/stdout"  # of Envoys: their pods' log
ITS_IMAGE = "its image's own"
TIDY_EACH_S = 60.0
AT_ONCE = 16  # endpoints whose pods are asked for side by side: the API server is not ours alone

OnReady = Callable[[Started], None]
Keep = Callable[[], Coroutine[None, None, None]]


@dataclass(frozen=True)
class _Parts:
    endpoints: Endpoints
    watched: Watched
    fleet: KubernetesFleet
    intake: Intake
    writer: Writer
    events: Events
    exporters: Exporters | None
    placeholders: Placeholders | None
    plane: ControlPlane


async def serve(options: KubernetesOptions, on_ready: OnReady | None = None) -> None:
    """Run a control plane until it is told to end.

    Raises InvalidInput, Unauthorised, NotFound, Conflict, Exhausted, Unreachable or Failed if it cannot
    start, and Failed if a part of it broke while it ran.
    """
    address, keys = checked_gateway(options)
    checked_xds(options)
    checked_control(options)
    checked_callers(options)
    checked_placeholders(options)
    home = Home.open(options.home)
    with home.locked():
        metrics = Metrics()
        wanted = parse_address(options.metrics_listen, "--metrics-listen", port_min=0)
        metrics_at, metrics_server = metrics.serve(wanted)
        public = options.public or str(address)
        started = Started(os.getpid(), trimtab.__version__, public, str(metrics_at), str(home.control_socket))
        traces = traces_from(os.environ)
        gateway = Gateway(address.host, address.port, options.domain, keys, traces, ACCESS_LOG)
        dcgm = _exporters(options)
        around = Around(home, started, gateway, metrics, dcgm, down_window_s(os.environ))
        try:
            with cancelled_by_signals():
                async with _leading(options) as (api, keep):
                    await _run(api, around, options, keep, on_ready)
        finally:
            metrics_server.shutdown()
            metrics_server.server_close()


def _exporters(options: KubernetesOptions) -> tuple[str, ...]:
    """Those that are named. Raises InvalidInput or Exhausted."""
    if options.dcgm and options.dcgm_pods:
        raise InvalidInput("are two ways to say the same", where="--dcgm, --dcgm-pods", hint="give one")
    return checked_dcgm(LocalOptions(home=options.home, dcgm=options.dcgm))


@contextlib.asynccontextmanager
async def _leading(options: KubernetesOptions) -> AsyncIterator[tuple[Api, Keep]]:
    """A connection that we may write by, once we may; and what has to run so that we still may."""
    async with contextlib.AsyncExitStack() as ending:
        api = await Api.connect(OWNER, options.kubeconfig, options.context)
        ending.push_async_callback(api.close)
        if not options.lease:
            yield api, _nothing
            return
        own = await Api.connect(OWNER, options.kubeconfig, options.context)
        ending.push_async_callback(own.close)
        holder = f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
        lease = Lease.parse(own, SystemClock(), options.lease, holder)
        await lease.acquire()
        ending.push_async_callback(lease.give_back)
        api.guard = lease.check
        keeping = asyncio.create_task(lease.keep())  # from now on: to list what is there may take long
        ending.push_async_callback(_end, keeping)
        yield api, lambda: _broken(keeping)


async def _nothing() -> None:
    """There is only this one."""


async def _broken(task: asyncio.Task[None]) -> None:
    """Until it breaks: it does not end by itself."""
    await asyncio.shield(task)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _run(
    api: Api, around: Around, options: KubernetesOptions, keep: Keep, on_ready: OnReady | None
) -> None:
    store = KubernetesStore()
    watched = Watched(api, store, options.namespace)
    async with contextlib.AsyncExitStack() as ending:
        ending.callback(store.close)
        ending.push_async_callback(watched.close)
        await watched.open()
        parts = _build(api, around, options, store, watched)
        ending.push_async_callback(parts.fleet.close)
        await parts.fleet.open()
        watched.tie(parts.intake, parts.writer)
        settle()
        with signals(parts.plane.platform) as ended:
            async with _servers(parts.plane, around.home, options):
                await _work(parts, around, ended, keep, on_ready)


def _build(
    api: Api, around: Around, options: KubernetesOptions, store: KubernetesStore, watched: Watched
) -> _Parts:
    clock: Clock = SystemClock()
    endpoints = Endpoints(store, clock, on_kubernetes(options.images))
    fleet = KubernetesFleet(
        api,
        clock,
        options.images,
        options.namespace,
        watched.owner,
        checked_callers(options),
        node_metrics=options.node_metrics,
        watch_nodes=options.watch_nodes,
        model_cache=options.model_cache,
    )
    exporters = Exporters(api, options.dcgm_pods) if options.dcgm_pods else None
    if exporters is not None:
        around = replace(around, dcgm=exporters)

    warm = checked_placeholders(options)
    placeholders = Placeholders(api, clock, warm, fleet.starts) if warm is not None else None

    def changed(name: EndpointName) -> None:
        plane.reconciler.spec_changed(name)

    intake = Intake(endpoints, store, changed, os.environ.get("MLFLOW_TRACKING_URI", ""))
    changes = KubernetesChanges(api, endpoints, watched, intake)
    environments = OwnEnvironment(ITS_IMAGE)
    plane = assemble(around, store, endpoints, fleet, environments, clock, changes, envoy=None)
    plane.reconciler.at_once = AT_ONCE
    events = Events(api, clock, socket.gethostname(), watched.seen)
    store.decided = events.decided
    view = plane.platform.endpoint
    writer = Writer(api, clock, store, lambda: watched.objects, view, intake.problems, events.tell)
    return _Parts(endpoints, watched, fleet, intake, writer, events, exporters, placeholders, plane)


async def _work(
    parts: _Parts, around: Around, ended: asyncio.Event, keep: Keep, on_ready: OnReady | None
) -> None:
    plane = parts.plane
    work = plane.work() | {
        "the writing of status": parts.writer.run(),
        "the telling of events": parts.events.run(),
        "the news of what is written": relay(parts.writer.written, plane.reconciler.wake),
        "the watch of endpoints": parts.watched.ended(),
        "the watch of pods": parts.fleet.ended(),
        "the lease": keep(),
        "tidying": _tidy(parts.endpoints, parts.fleet),
    }
    if parts.exporters is not None:
        work["the watch of DCGM exporters"] = parts.exporters.run()
    if parts.placeholders is not None:
        work["the placeholders"] = parts.placeholders.run()
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(named(what, each)) for what, each in work.items()]
        around.home.announce(around.started)
        if on_ready is not None:
            on_ready(around.started)
        await first_of(plane.platform.stopping, ended)
        for task in running:
            task.cancel()


async def _tidy(endpoints: Endpoints, fleet: Fleet) -> None:
    """Nobody prunes here: revisions that are too old go by themselves."""
    while True:
        await asyncio.sleep(TIDY_EACH_S)
        endpoints.forget_revisions(endpoints.old_revisions({pod.revision for pod in fleet.pods()}))


@contextlib.asynccontextmanager
async def _servers(plane: ControlPlane, home: Home, options: KubernetesOptions) -> AsyncIterator[None]:
    """The control API, and ADS with the intake of statistics: on sockets of our home, and over TCP."""
    (xds_at, credentials), control_at = checked_xds(options), checked_control(options)
    control, envoys = plane.control_server(), plane.envoy_server()
    async with served(control, envoys):
        bind_unix(control, home.control_socket)
        _bind(control, control_at, None, "--control")
        bind_unix(envoys, Bootstrap.for_home(home.path).control_socket)
        if xds_at is not None:
            _bind(envoys, xds_at, credentials, "--xds")
        await control.start()
        await envoys.start()
        yield


def _bind(
    server: grpc.aio.Server, address: Address, credentials: grpc.ServerCredentials | None, where: str
) -> None:
    """Raises Conflict."""
    try:
        if credentials is None:
            server.add_insecure_port(str(address))
        else:
            server.add_secure_port(str(address), credentials)
    except RuntimeError as error:
        hint = "stop what listens there, or give another port"
        raise Conflict(f"{address} cannot be had", where=where, hint=hint) from error
