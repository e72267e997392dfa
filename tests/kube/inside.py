"""A test inside the network of our own cluster, where pods are reached: a whole control plane, and Envoy."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc

from deploy.cluster import lifecycle
from deploy.cluster.place import here
from tests.kube.words import HOLD
from trimtab.control.endpoints import Endpoints
from trimtab.control.environments import OwnEnvironment
from trimtab.control.metrics import Metrics
from trimtab.control.observations import Observations
from trimtab.control.reconcile import Reconciler
from trimtab.control.scaling import Scaling
from trimtab.control.scrape import Scraper
from trimtab.control.sqlite import SqliteStore
from trimtab.core.clock import SystemClock
from trimtab.core.names import EndpointName
from trimtab.core.spec import EndpointSpec
from trimtab.envoy.bootstrap import Bootstrap
from trimtab.envoy.intake import StatisticsIntake
from trimtab.envoy.process import EnvoyProcess
from trimtab.envoy.statistics import Signals
from trimtab.fleet.kubernetes import KubernetesFleet
from trimtab.fleet.kubernetes.template import HOLD_IMAGE
from trimtab.host.files import private_folder
from trimtab.host.ports import free_port
from trimtab.kube import Api
from trimtab.xds.server import AdsServer
from trimtab.xds.world import Gateway

CLONE_NEWNET = 0x40000000


@contextlib.contextmanager
def cluster_network() -> Iterator[None]:
    """This thread's sockets, and the programs that it starts, are in the cluster's network meanwhile."""
    libc = ctypes.CDLL(None, use_errno=True)
    first = lifecycle.first_process(here())
    with Path("/proc/thread-self/ns/net").open() as own, Path(f"/proc/{first}/ns/net").open() as theirs:
        _enter(libc, theirs.fileno())
        try:
            yield
        finally:
            _enter(libc, own.fileno())


def _enter(libc: ctypes.CDLL, namespace: int) -> None:
    if libc.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


@dataclass
class Plane:
    """A control plane with an Envoy of its own."""

    endpoints: Endpoints
    fleet: KubernetesFleet
    reconciler: Reconciler
    scraper: Scraper
    port: int  # Envoy's

    def apply(self, name: EndpointName, spec: EndpointSpec) -> None:
        self.endpoints.apply(name, spec, by="test")
        self.reconciler.spec_changed(name)


@contextlib.asynccontextmanager
async def control_plane(
    api: Api, namespace: str, home: Path, *, watch_nodes: bool = False
) -> AsyncIterator[Plane]:
    """All the parts of one, but for the store that a cluster will have: on Kubernetes' pods."""
    clock, metrics, observations, port = SystemClock(), Metrics(), Observations(), free_port("127.0.0.1")
    store = SqliteStore(home)
    endpoints = Endpoints(store, clock, lambda _name, _spec: [])
    fleet = KubernetesFleet(api, clock, {HOLD_IMAGE: HOLD}, namespace, watch_nodes=watch_nodes)
    ads = AdsServer(clock)
    scraper = Scraper(fleet, clock)
    scaling = Scaling(observations, store, clock, metrics, pod_signals=scraper.pod_signals)
    gateway = Gateway("127.0.0.1", port)
    reconciler = Reconciler(
        endpoints, fleet, ads, observations, scaling, gateway, clock, metrics, OwnEnvironment()
    )

    def on_signals(signals: Signals) -> None:
        observations.add(signals.revisions, signals.pods, signals.latencies)
        reconciler.saw_requests()

    bootstrap = Bootstrap.for_home(home)
    private_folder(bootstrap.control_socket.parent)
    server = grpc.aio.server()
    ads.add_to(server)
    StatisticsIntake(clock, on_signals).add_to(server)
    server.add_insecure_port(f"unix:{bootstrap.control_socket}")
    envoy = EnvoyProcess(home, bootstrap, clock)
    await fleet.open()
    await server.start()
    await envoy.open()
    work = (
        reconciler.run(),
        envoy.run(),
        scraper.run(),
        _relay(fleet.changed, reconciler.wake),
        _relay(ads.changed, reconciler.wake),
    )
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield Plane(endpoints, fleet, reconciler, scraper, port)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await envoy.stop(1.0)
        await server.stop(0)
        await fleet.close()
        store.close()


async def _relay(changed: asyncio.Event, wake: asyncio.Event) -> None:
    while True:
        await changed.wait()
        changed.clear()
        wake.set()


def inner_kubeconfig() -> str:
    """Of the API server as the cluster's own network has it."""
    return os.fspath(here().folder / "admin.kubeconfig")
