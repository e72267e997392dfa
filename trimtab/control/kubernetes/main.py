"""Runs a control plane against a cluster: its store is the API server, its pods are Deployments'.

Envoys come by themselves: it starts nothing on this machine. However it ends, pods and Envoys serve on.
With a Lease it may be one of several: then it follows whoever holds that, until it does itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from itertools import chain

import trimtab
from trimtab.control.anew import KeysFile, Unusable
from trimtab.control.assembly import Around, ControlPlane, assemble
from trimtab.control.endpoints import Endpoints
from trimtab.control.environments import OwnEnvironment
from trimtab.control.home import Home
from trimtab.control.kubernetes.access import Access
from trimtab.control.kubernetes.certificates import Certificates
from trimtab.control.kubernetes.changes import KubernetesChanges
from trimtab.control.kubernetes.door import Door, bind
from trimtab.control.kubernetes.doorman import Doorman
from trimtab.control.kubernetes.events import Events
from trimtab.control.kubernetes.forwarding import Forwarder
from trimtab.control.kubernetes.options import (
    KubernetesOptions,
    checked_api,
    checked_callers,
    checked_control,
    checked_envoys,
    checked_gateway,
    checked_placeholders,
    checked_topology_keys,
    on_kubernetes,
)
from trimtab.control.kubernetes.plane import Watched
from trimtab.control.kubernetes.store import KubernetesStore
from trimtab.control.kubernetes.watching import Intake
from trimtab.control.kubernetes.writing import Writer
from trimtab.control.metrics import Metrics
from trimtab.control.options import Address, Started, checked_dcgm, down_window_s, parse_address
from trimtab.control.options import ServeOptions as LocalOptions
from trimtab.control.replicas import Follower
from trimtab.control.running import bind_unix, cancelled_by_signals, first_of, named, relay, served, signals
from trimtab.control.traces import traces_from
from trimtab.core.clock import Clock, SystemClock
from trimtab.core.errors import InvalidInput
from trimtab.core.names import EndpointName
from trimtab.fleet.kubernetes import Envoys, Exporters, KubernetesFleet, Placeholders, mirror_of_pods
from trimtab.fleet.kubernetes.seen import SeenPod
from trimtab.fleet.protocol import Fleet
from trimtab.host.collector import settle, settled
from trimtab.host.threads import switch_often
from trimtab.kube import Api, Lease, Mirror
from trimtab.kube.lease import Holder
from trimtab.xds.world import Gateway

log = logging.getLogger(__name__)

OWNER = "trimtab"  # the field manager of all that the control plane writes by itself
ACCESS_LOG = "/dev/stdout"  # of Envoys: their pods' log
CONNECTION_MAX_S = 300.0  # of callers: Envoys that come are found by new connections alone
ITS_IMAGE = "its image's own"
TIDY_EACH_S = 60.0
GATHER_S = 10.0  # an Envoy, or who follows us and has some, comes back within a few seconds
STARTS_AT_ONCE = 50  # pods of one revision: many nodes share them, and each step is a write of its count
HEARD_WITHIN_S = 90.0  # of pods, whose watch tells at least each minute how far it is
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
    envoys: Envoys | None
    plane: ControlPlane


async def serve(options: KubernetesOptions, on_ready: OnReady | None = None) -> None:
    """Run a control plane until it is told to end.

    Raises InvalidInput, Unauthorised, NotFound, Conflict, Exhausted, Unreachable or Failed if it cannot
    start, and Failed if a part of it broke while it ran.
    """
    address, keys = checked_gateway(options)
    checked_control(options)
    checked_api(options)
    checked_callers(options)
    checked_placeholders(options)
    checked_envoys(options, os.environ)
    checked_topology_keys(options)
    home = Home.open(options.home)
    with home.locked():
        metrics = Metrics()
        door = Door(SystemClock(), home, options, Unusable(metrics.unusable, "xds-tls"))
        if door.certificates is not None:
            metrics.certificate("xds-tls", door.certificates.lasts)
        wanted = parse_address(options.metrics_listen, "--metrics-listen", port_min=0)
        metrics_at, metrics_server = metrics.serve(wanted)
        public = options.public or str(address)
        started = Started(os.getpid(), trimtab.__version__, public, str(metrics_at), str(home.control_socket))
        traces = traces_from(os.environ)
        gateway = Gateway(
            address.host,
            address.port,
            options.domain,
            keys,
            traces,
            ACCESS_LOG,
            options.callers_tls,
            CONNECTION_MAX_S,
        )
        dcgm = _exporters(options)
        window_s = down_window_s(os.environ)
        around = Around(home, started, gateway, metrics, dcgm, window_s, door.ads)
        try:
            with cancelled_by_signals():
                async with contextlib.AsyncExitStack() as ending:
                    switch_often()
                    await ending.enter_async_context(settled())
                    ending.push_async_callback(door.close)
                    leading = await ending.enter_async_context(_leading(options, door))
                    await _run(leading, around, options, door, on_ready)
        finally:
            metrics_server.shutdown()
            metrics_server.server_close()


def _exporters(options: KubernetesOptions) -> tuple[str, ...]:
    """Those that are named. Raises InvalidInput or Exhausted."""
    if options.dcgm and options.dcgm_pods:
        raise InvalidInput("are two ways to say the same", where="--dcgm, --dcgm-pods", hint="give one")
    return checked_dcgm(LocalOptions(home=options.home, dcgm=options.dcgm))


@dataclass(frozen=True)
class _Leading:
    """A connection that we may write by, the term of the Lease, and what has to run so that we still may.

    Pods are mirrored already: to list ten thousand takes seconds, in which nobody would decide.
    """

    api: Api
    pods: Mirror[SeenPod]
    term: int
    keep: Keep


@contextlib.asynccontextmanager
async def _leading(options: KubernetesOptions, door: Door) -> AsyncIterator[_Leading]:
    """Follow whoever leads until we do."""
    async with contextlib.AsyncExitStack() as ending:
        api = await Api.connect(OWNER, options.kubeconfig, options.context)
        ending.push_async_callback(api.close)
        pods = mirror_of_pods(api, options.namespace)
        mirroring = asyncio.create_task(pods.follow())
        ending.push_async_callback(_end, mirroring)
        if not options.lease:
            yield _Leading(api, pods, 0, lambda: _broken(mirroring))
            return
        own = await Api.connect(OWNER, options.kubeconfig, options.context)
        ending.push_async_callback(own.close)
        holder = f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"  # as client-go has it
        lease = Lease.parse(own, SystemClock(), options.lease, holder, door.address)
        follower = Follower(holder, door.ads, SystemClock(), door.connect, door.open)
        await _followed(lease, follower, door, Forwarder(*_api_address(options)))
        ending.push_async_callback(lease.give_back)
        if time.monotonic() - pods.heard_at_s > HEARD_WITHIN_S:  # what it shows may be long past
            await _end(mirroring)
            pods = mirror_of_pods(api, options.namespace)
            mirroring = asyncio.create_task(pods.follow())
            ending.push_async_callback(_end, mirroring)
        api.guard = lease.check
        keeping = asyncio.create_task(lease.keep())  # from now on: to list what is there may take long
        ending.push_async_callback(_end, keeping)
        yield _Leading(api, pods, lease.term, lambda: _broken(keeping, mirroring))


def _api_address(options: KubernetesOptions) -> tuple[Address | None, int]:
    """Where people with tokens come, if they do, and at which port of the one that leads."""
    address = parse_address(options.api, "--api", port_min=0) if options.api else None
    return address, address.port if address else 0


async def _followed(lease: Lease, follower: Follower, door: Door, forwarder: Forwarder) -> None:
    """Until the Lease is ours. What Envoys were told stays, and their streams do."""

    def saw(holder: Holder | None) -> None:
        follower.saw(holder)
        forwarder.saw(holder)

    lease.seen, door.take = saw, follower.take
    async with forwarder.listening():
        tasks = {asyncio.create_task(lease.acquire()), asyncio.create_task(follower.run())}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            lease.seen = lambda _: None
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _broken(*tasks: asyncio.Task[None]) -> None:
    """Until one of them breaks: none ends by itself."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _run(
    leading: _Leading, around: Around, options: KubernetesOptions, door: Door, on_ready: OnReady | None
) -> None:
    api = leading.api
    store = KubernetesStore()
    watched = Watched(api, store, options.namespace)
    async with contextlib.AsyncExitStack() as ending:
        ending.callback(store.close)
        ending.push_async_callback(watched.close)
        await watched.open()
        parts = _build(leading, around, options, store, watched)
        ending.push_async_callback(parts.fleet.close)
        await parts.fleet.open()
        watched.tie(parts.intake, parts.writer)
        settle()  # once more, now that all is there
        with signals(parts.plane.platform) as ended:
            door.lead(leading.term, parts.plane.intake.take, parts.plane.intake.take_whole)
            for_people, access = checked_api(options), Access(api, SystemClock())
            async with (
                _control_server(parts.plane, around.home, options),
                _api_server(parts.plane, access, for_people),
            ):
                await door.open()
                anew = _read_anew(parts.plane, around, options, {"api-tls": for_people[1]})
                work = anew | {"the lease, and the mirror of pods": leading.keep()}
                await _work(parts, around, ended, work, on_ready)


def _build(
    leading: _Leading, around: Around, options: KubernetesOptions, store: KubernetesStore, watched: Watched
) -> _Parts:
    api, clock = leading.api, SystemClock()
    endpoints = Endpoints(store, clock, on_kubernetes(options.images))
    fleet = KubernetesFleet(
        api,
        clock,
        options.images,
        options.namespace,
        watched.owner,
        checked_callers(options),
        node_metrics=options.node_metrics,
        request_timeout_s=endpoints.request_timeout_s,
        watch_nodes=options.watch_nodes,
        model_cache=options.model_cache,
        pods=leading.pods,
        pull_secrets=options.pull_secrets,
        topology_keys=checked_topology_keys(options),
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
    plane.reconciler.gather_envoys(GATHER_S)
    plane.reconciler.starts_at_once = STARTS_AT_ONCE
    events = Events(api, clock, socket.gethostname(), watched.seen)
    store.decided = events.decided
    view = plane.platform.endpoint
    told_by = plane.platform.told_by
    writer = Writer(api, clock, store, lambda: watched.objects, view, intake.problems, events.tell, told_by)
    envoys = _envoys(api, clock, options, plane)
    return _Parts(endpoints, watched, fleet, intake, writer, events, exporters, placeholders, envoys, plane)


def _envoys(api: Api, clock: Clock, options: KubernetesOptions, plane: ControlPlane) -> Envoys | None:
    sized = checked_envoys(options, os.environ)
    if sized is None:
        return None
    return Envoys(api, clock, sized, plane.observations.busy, plane.ads.connected_nodes)


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
    if parts.placeholders is not None:
        work["the placeholders"] = parts.placeholders.run()
    if parts.envoys is not None:
        work["the number of Envoys"] = parts.envoys.run()
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
            around.metrics.certificate(name, certificates.lasts)
            work[f"the certificate {name}"] = certificates.run(Unusable(gauge, name))
    return work


async def _tidy(endpoints: Endpoints, fleet: Fleet) -> None:
    """Nobody prunes here: revisions that are too old go by themselves."""
    while True:
        await asyncio.sleep(TIDY_EACH_S)
        pods = chain.from_iterable(fleet.by_endpoint().values())  # in no order: to sort thousands takes long
        endpoints.forget_revisions(endpoints.old_revisions({pod.revision for pod in pods}))


@contextlib.asynccontextmanager
async def _control_server(plane: ControlPlane, home: Home, options: KubernetesOptions) -> AsyncIterator[None]:
    """The control API: on a socket in our home, and over TCP on loopback."""
    control = plane.control_server()
    async with served(control):
        bind_unix(control, home.control_socket)
        bind(control, checked_control(options), None, "--control")
        await control.start()
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
        bind(server, address, certificates.credentials(of_both=False), "--api")
        await server.start()
        yield
