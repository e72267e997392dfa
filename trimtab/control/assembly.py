"""Puts the parts of a control plane together, whatever store, fleet and Envoys it has."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Coroutine
from dataclasses import dataclass
from typing import Any

import grpc

from trimtab.control.api import ControlApi
from trimtab.control.changes import Changes
from trimtab.control.endpoints import Endpoints
from trimtab.control.environments import Environments
from trimtab.control.home import Home
from trimtab.control.metrics import Metrics
from trimtab.control.observations import Observations
from trimtab.control.options import Started
from trimtab.control.platform import OwnEnvoy, Platform
from trimtab.control.reconcile import Reconciler
from trimtab.control.running import new_server, relay
from trimtab.control.scaling import Scaling
from trimtab.control.scrape import Scraper
from trimtab.control.store import Store
from trimtab.core.clock import Clock
from trimtab.envoy.intake import StatisticsIntake
from trimtab.envoy.statistics import Signals
from trimtab.fleet.protocol import Fleet
from trimtab.v1 import control_pb2_grpc
from trimtab.xds.server import AdsServer
from trimtab.xds.world import Gateway

log = logging.getLogger(__name__)

METRICS_EACH_S = 1.0
METRICS_SHARE, METRICS_REST_MAX_S = 0.005, 15.0  # of the time, where there are thousands of endpoints


@dataclass(frozen=True)
class Around:
    """What a control plane is told when it starts. `dcgm`: exporters' pages; they may come and go.

    `ads` is a server that serves Envoys already; None: a new one.
    """

    home: Home
    started: Started
    gateway: Gateway
    metrics: Metrics
    dcgm: Collection[str] = ()
    down_window_s: float | None = None
    ads: AdsServer | None = None


@dataclass(frozen=True)
class ControlPlane:
    """The parts that every control plane has."""

    fleet: Fleet
    ads: AdsServer
    intake: StatisticsIntake
    environments: Environments
    reconciler: Reconciler
    platform: Platform
    scraper: Scraper
    api: ControlApi
    observations: Observations

    def work(self) -> dict[str, Coroutine[None, None, None]]:
        """What has to run for as long as it lives, by what it is."""
        wake = self.reconciler.wake
        return {
            "the reconcile loop": self.reconciler.run(),
            "the news of pods": self.reconciler.tell_pods(),
            "the news of Envoy": relay(self.ads.changed, wake),
            "the news of environments": relay(self.environments.changed, wake),
            "the pods' own counts": self.scraper.run(),
            "the metrics": _measure(self.platform),
        }

    def control_server(self, *before: grpc.aio.ServerInterceptor[Any, Any]) -> grpc.aio.Server:
        """For people; bound to nothing yet. `before` stand before every call."""
        server = new_server(before)
        control_pb2_grpc.add_ControlServicer_to_server(self.api, server)
        return server

    def envoy_server(self) -> grpc.aio.Server:
        """For Envoys: ADS, and the intake of their statistics; bound to nothing yet."""
        server = new_server()
        self.ads.add_to(server)
        self.intake.add_to(server)
        return server


def assemble(
    around: Around,
    store: Store,
    endpoints: Endpoints,
    fleet: Fleet,
    environments: Environments,
    clock: Clock,
    changes: Changes,
    envoy: OwnEnvoy | None,
) -> ControlPlane:
    """`envoy` is the one that we start, if any; others come by themselves."""
    metrics, observations, ads = around.metrics, Observations(), around.ads or AdsServer(clock)
    ads.sent = metrics.told_s.observe
    scraper = Scraper(fleet, clock, dcgm=around.dcgm)
    scaling = Scaling(
        observations,
        store,
        clock,
        metrics,
        down_window_s=around.down_window_s,
        pod_signals=scraper.pod_signals,
    )
    reconciler = Reconciler(
        endpoints,
        fleet,
        ads,
        observations,
        scaling,
        around.gateway,
        clock,
        metrics,
        environments,
    )

    def on_signals(signals: Signals) -> None:
        observations.add(signals.revisions, signals.pods, signals.latencies)
        scraper.latencies.add(signals.stages)
        if signals.envoy is not None:
            observations.add_envoy(signals.envoy)
        if signals.certificates is not None:
            observations.add_certificates(signals.certificates)
        if signals.leaves:
            ads.leaves(signals.leaves)
        metrics.signals.inc(len(signals.revisions))
        for name in signals.unusable:
            metrics.certificates_refused.labels(name).inc()
            log.error("an Envoy cannot use its certificate `%s`; the one before stays: see its log", name)
        asyncio.get_running_loop().call_soon(reconciler.saw_requests)  # of a large flush each takes a while

    intake = StatisticsIntake(clock, on_signals)
    platform = Platform(
        around.home,
        around.started,
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
        api_keys=bool(around.gateway.api_keys),
        tls=bool(around.gateway.certificate),
    )
    api = ControlApi(endpoints, store, fleet, reconciler, platform, clock, changes)
    return ControlPlane(fleet, ads, intake, environments, reconciler, platform, scraper, api, observations)


async def _measure(platform: Platform) -> None:
    while True:
        began_s = time.monotonic()
        try:
            await platform.update_metrics()
        except Exception:
            log.exception("metrics could not be updated")
        took_s = time.monotonic() - began_s
        await asyncio.sleep(max(METRICS_EACH_S, min(METRICS_REST_MAX_S, took_s / METRICS_SHARE)))
