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
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass, replace

import grpc

import trimtab
from trimtab.control.anew import KeysFile, Unusable
from trimtab.control.assembly import Around, ControlPlane, assemble
from trimtab.control.endpoints import Endpoints
from trimtab.control.environments import OwnEnvironment
from trimtab.control.home import Home
from trimtab.control.kubernetes.access import Access
from trimtab.control.kubernetes.certificates import Certificates
from trimtab.control.kubernetes.changes import KubernetesChanges
from trimtab.control.kubernetes.doorman import Doorman
from trimtab.control.kubernetes.events import Events
from trimtab.control.kubernetes.options import (
    KubernetesOptions,
    checked_api,
    checked_callers,
    checked_control,
    checked_gateway,
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
from trimtab.fleet.kubernetes import Exporters, KubernetesFleet
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
    plane: ControlPlane


async def serve(options: KubernetesOptions, on_ready: OnReady | None = None) -> None:
    """Run a control plane until it is told to end.

    Raises InvalidInput, Unauthorised, NotFound, Conflict, Exhausted, Unreachable or Failed if it cannot
    start, and Failed if a part of it broke while it ran.
    """
    address, keys = checked_gateway(options)
    checked_xds(options)
    checked_control(options)
    checked_api(options)
    checked_callers(options)
    home = Home.open(options.home)
    with home.locked():
        metrics = Metrics()
        wanted = parse_address(options.metrics_listen, "--metrics-listen", port_min=0)
        metrics_at, metrics_server = metrics.serve(wanted)
        public = options.public or str(address)
        started = Started(os.getpid(), trimtab.__version__, public, str(metrics_at), str(home.control_socket))
        traces = traces_from(os.environ)
        gateway = Gateway(
            address.host, address.port, options.domain, keys, traces, ACCESS_LOG, options.callers_tls
        )
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
            xds, for_people = checked_xds(options), checked_api(options)
            access = Access(api, SystemClock())
            async with (
                _servers(parts.plane, around.home, xds, checked_control(options)),
                _api_server(parts.plane, access, for_people),
            ):
                anew = {"xds-tls": xds[1], "api-tls": for_people[1]}
                work = _read_anew(parts.plane, around, options, anew) | {"the lease": keep()}
                await _work(parts, around, ended, work, on_ready)


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
    )
    exporters = Exporters(api, options.dcgm_pods) if options.dcgm_pods else None
    if exporters is not None:
        around = replace(around, dcgm=exporters)

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
    return _Parts(endpoints, watched, fleet, intake, writer, events, exporters, plane)


async def _work(
    parts: _Parts,
    around: Around,
    ended: asyncio.Event,
    more: dict[str, Coroutine[None, None, None]],
    on_ready: OnReady | None,
) -> None:
    plane = parts.plane
    work = (
        plane.work()
        | more
        | {
            "the writing of status": parts.writer.run(),
            "the telling of events": parts.events.run(),
            "the news of what is written": relay(parts.writer.written, plane.reconciler.wake),
            "the watch of endpoints": parts.watched.ended(),
            "the watch of pods": parts.fleet.ended(),
            "tidying": _tidy(parts.endpoints, parts.fleet),
        }
    )
    if parts.exporters is not None:
        work["the watch of DCGM exporters"] = parts.exporters.run()
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(named(what, each)) for what, each in work.items()]
        around.home.announce(around.started)
        if on_ready is not None:
            on_ready(around.started)
        await first_of(plane.platform.stopping, ended)
        for task in running:
            task.cancel()


def _read_anew(
    plane: ControlPlane, around: Around, options: KubernetesOptions, anew: Mapping[str, Certificates | None]
) -> dict[str, Coroutine[None, None, None]]:
    """What reads files again that may change, by what they are."""
    work = {}
    gauge = around.metrics.unusable
    if options.api_keys is not None:
        keys, taken = around.gateway.api_keys, plane.reconciler.keys_changed
        work["the keys of callers"] = KeysFile(
            options.api_keys, keys, taken, Unusable(gauge, "api-keys")
        ).run()
    for name, certificates in anew.items():
        if certificates is not None:
            work[f"the certificate {name}"] = certificates.run(Unusable(gauge, name))
    return work


async def _tidy(endpoints: Endpoints, fleet: Fleet) -> None:
    """Nobody prunes here: revisions that are too old go by themselves."""
    while True:
        await asyncio.sleep(TIDY_EACH_S)
        endpoints.forget_revisions(endpoints.old_revisions({pod.revision for pod in fleet.pods()}))


@contextlib.asynccontextmanager
async def _servers(
    plane: ControlPlane, home: Home, xds: tuple[Address | None, Certificates | None], control_at: Address
) -> AsyncIterator[None]:
    """The control API, and ADS with the intake of statistics: on sockets of our home, and over TCP."""
    xds_at, certificates = xds
    control, envoys = plane.control_server(), plane.envoy_server()
    async with served(control, envoys):
        bind_unix(control, home.control_socket)
        _bind(control, control_at, None, "--control")
        bind_unix(envoys, Bootstrap.for_home(home.path).control_socket)
        if xds_at is not None:
            _bind(envoys, xds_at, certificates.credentials() if certificates else None, "--xds")
        await control.start()
        await envoys.start()
        yield


@contextlib.asynccontextmanager
async def _api_server(
    plane: ControlPlane, access: Access, at: tuple[Address | None, Certificates | None]
) -> AsyncIterator[None]:
    """The control API for whoever shows a token, if that is asked for."""
    address, certificates = at
    if address is None or certificates is None:
        yield
        return
    server = plane.control_server(Doorman(access))
    async with served(server):
        _bind(server, address, certificates.credentials(of_both=False), "--api")
        await server.start()
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
