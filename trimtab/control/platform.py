"""The whole of one control plane as its API tells it: endpoints with their status, Envoy, the machine."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Protocol

import psutil

import trimtab
from trimtab.control.endpoints import Endpoints
from trimtab.control.environments import Environments
from trimtab.control.home import Home
from trimtab.control.metrics import Metrics
from trimtab.control.observations import LoadNow, Observations
from trimtab.control.options import Started
from trimtab.control.reconcile import LOG_TAIL_LINES, Reconciler
from trimtab.control.records import EndpointRecord
from trimtab.control.scrape import Scraper
from trimtab.control.status import Seen, endpoint_message, state_of
from trimtab.core import protocol
from trimtab.core.clock import Clock
from trimtab.core.errors import Conflict, Failed
from trimtab.core.names import DEFAULT_NAMESPACE, EndpointName
from trimtab.core.pod import Pod
from trimtab.core.revision import RevisionKey
from trimtab.core.turns import give_way
from trimtab.environment import Place
from trimtab.envoy.intake import StatisticsIntake
from trimtab.envoy.process import EnvoyStatus
from trimtab.fleet.protocol import Fleet
from trimtab.runtime.catalog import runtime_of
from trimtab.source.cache import begin_prune
from trimtab.v1 import control_pb2 as v1
from trimtab.xds.server import AdsServer, NodeStatus

log = logging.getLogger(__name__)

DISK_LOW_BYTES = 1 << 30
STATISTICS_STALE_S = 10.0
LOST_SHOWN_S = 600.0
MEASURED_AT_ONCE = 20  # endpoints, for the metrics: a millisecond
ELSEWHERE = "whoever may see the endpoints of all namespaces is told why"
PRUNE_WAIT_S = 100.0  # less than a client waits; a spinning disk removes 10 GB of small files in a minute
URL_TAILS = {
    protocol.Protocol.INVOCATIONS: "invocations",
    protocol.Protocol.OPENAI: "v1",
    protocol.Protocol.OPEN_INFERENCE_REST: "v2",
}


class OwnEnvoy(Protocol):
    """An Envoy that this control plane starts."""

    @property
    def node(self) -> str: ...

    def status(self) -> EnvoyStatus: ...


class Platform:
    """Puts together what the parts know. Changes nothing but by `prune` and `stop`."""

    def __init__(  # noqa: PLR0913, PLR0917 - it tells of every part
        self,
        home: Home,
        started: Started,
        endpoints: Endpoints,
        fleet: Fleet,
        reconciler: Reconciler,
        observations: Observations,
        scraper: Scraper,
        ads: AdsServer,
        intake: StatisticsIntake,
        envoy: OwnEnvoy | None,
        clock: Clock,
        metrics: Metrics,
        environments: Environments,
        *,
        api_keys: bool,
        tls: bool = False,
    ) -> None:
        self._home = home
        self._started = started
        self._endpoints = endpoints
        self._fleet = fleet
        self._reconciler = reconciler
        self._observations = observations
        self._scraper = scraper
        self._ads = ads
        self._intake = intake
        self._envoy = envoy
        self._clock = clock
        self._metrics = metrics
        self._environments = environments
        self._api_keys = api_keys
        self._scheme = "https" if tls else "http"
        self._me = psutil.Process()
        self._pruning: asyncio.Task[v1.PruneResponse] | None = None
        self.stopping = asyncio.Event()
        self.grace_s = 0.0

    def stop(self, grace_s: float) -> None:
        """Ask the control plane to take everything down."""
        self.grace_s = grace_s
        self.stopping.set()

    def endpoint(self, name: EndpointName) -> v1.Endpoint:
        """One endpoint with its status. Raises NotFound."""
        seen = self._seen(name)
        serving = RevisionKey(name, seen.record.serving_revision)
        splits = self._scraper.latencies.splits(serving, self._clock.now_s())
        return endpoint_message(replace(seen, splits=splits))

    def told_by(self, name: EndpointName) -> tuple[object, ...] | None:
        """What the status of an endpoint is told from: while that is equal to what it was, so is the status.

        None while there is something to do about it: then nobody knows without telling it.
        """
        live = self._reconciler.live(name)
        if live.still is None:
            return None
        key = live.still.serving.revision.key
        load = self._observations.load(key, self._clock.now_s())
        faults = self._scraper.counts(key).only_faults
        lost = live.lost if self._lost(live.lost) else None  # not its words: they tell how long ago
        return (
            live.still.pods,
            live.still.record,
            live.still.serving,
            load,
            faults,
            lost,
            *self._nacks_for(name),
        )

    async def prune(self, *, dry_run: bool) -> v1.PruneResponse:
        """Remove models that no revision refers to, environments not in use, and logs of gone endpoints.

        Raises Conflict while a model is being copied or another prune is under way, and Failed if the files
        are not gone within PRUNE_WAIT_S: then that goes on.
        """
        if self._pruning is not None and not self._pruning.done():
            raise Conflict("another prune is under way", hint="it ends by itself: try again later")
        self._pruning = asyncio.create_task(self._prune(dry_run))
        try:
            return await asyncio.wait_for(asyncio.shield(self._pruning), PRUNE_WAIT_S)
        except TimeoutError:
            hint = "it goes on; nothing refers to these files any more"
            raise Failed(f"files are still being removed after {PRUNE_WAIT_S:g} s", hint=hint) from None

    async def _prune(self, dry_run: bool) -> v1.PruneResponse:
        """Names go here and now, in one step with the look at what is in use; files in other threads."""
        self._reconciler.keep_only_present()
        running = {pod.revision for pod in self._fleet.pods()}
        old = self._endpoints.old_revisions(running)
        if not dry_run:
            self._endpoints.forget_revisions(old)
        finish = begin_prune(self._home.models, self._endpoints.digests(without=old), dry_run)
        names = frozenset(record.name for record in self._endpoints.all())
        logs, log_bytes = self._fleet.prune_logs(names, dry_run)
        environments, environment_bytes = await self._environments.prune(dry_run=dry_run)
        pruned = await asyncio.to_thread(finish)
        return v1.PruneResponse(
            removed=[*pruned.removed, *environments, *logs],
            bytes=pruned.bytes + environment_bytes + log_bytes,
        )

    def describe(self) -> v1.Platform:
        """The platform itself."""
        return v1.Platform(
            version=trimtab.__version__,
            home=str(self._home.path),
            listen=self._started.listen,
            metrics_listen=self._started.metrics_listen,
            process_id=os.getpid(),
            started_at_s=self._me.create_time(),
            envoys=self._envoys(),
            memory_free_bytes=psutil.virtual_memory().available,
            disk_free_bytes=shutil.disk_usage(self._home.path).free,
            warnings=list(self._warnings()),
            memory_bytes=self._me.memory_info().rss,
            api_keys=self._api_keys,
        )

    async def update_metrics(self) -> None:
        """Set the gauges from what is there now. Of thousands of endpoints a few at a time."""
        gauges = self._metrics
        pods: Counter[tuple[str, ...]] = Counter()
        states: Counter[tuple[str, ...]] = Counter()
        wanted: dict[tuple[str, ...], float] = {}
        in_flight: dict[tuple[str, ...], float] = {}
        queued: dict[tuple[str, ...], float] = {}
        now_s = self._clock.now_s()
        async for seen in self._all_seen(now_s):
            record = seen.record
            labels = (record.name.namespace, record.name.name)
            states[v1.State.Name(state_of(seen)),] += 1
            pods.update((*labels, pod.phase.value) for some in seen.pods.values() for pod in some)
            serving = seen.revisions.get(record.serving_revision)
            wanted[labels] = serving.pods_wanted if serving else 0
            if seen.load.in_flight is not None and seen.load.queued is not None:
                in_flight[labels], queued[labels] = seen.load.in_flight, seen.load.queued
        await gauges.show(gauges.endpoints, states)
        await gauges.show(gauges.pods, pods)
        await gauges.show(gauges.pods_wanted, wanted)
        await gauges.show(gauges.in_flight, in_flight)
        await gauges.show(gauges.queued, queued)
        nodes = self._ads.nodes()
        gauges.envoy_connected.set(sum(node.connected for node in nodes))
        await gauges.show(
            gauges.envoy_busy, {(envoy,): busy for envoy, busy in self._observations.busy(now_s).items()}
        )
        await gauges.show(gauges.certificate_ends, self._observations.certificate_ends(now_s))
        gauges.envoy_restarts.set(self._envoy.status().restarts if self._envoy else 0)
        gauges.nacks.set(sum(bool(t.nack) for node in nodes for t in node.types))

    async def _all_seen(self, now_s: float) -> AsyncIterator[Seen]:
        """What is measured of each; one of which nothing can be told is counted, and hides no other."""
        for number, record in enumerate(self._endpoints.all(), 1):
            if number % MEASURED_AT_ONCE == 0:
                await give_way()
            if not self._endpoints.known(record.name):
                continue
            try:
                seen = self._measured(record, now_s)
            except Exception:
                self._metrics.errors.labels("metrics").inc()
                log.exception("%s: its metrics could not be updated", record.name)
                continue
            yield seen

    def _measured(self, record: EndpointRecord, now_s: float) -> Seen:
        """Its state, pods and load: nothing of each pod, of which there may be thousands, but its phase."""
        name, live = record.name, self._reconciler.live(record.name)
        serving = RevisionKey(name, record.serving_revision)
        return Seen(
            record=record,
            revisions=self._endpoints.revisions(name),
            pods=self._reconciler.pods(name),
            drains=live.drains,
            load=self._observations.load(serving, now_s) if record.serving_revision else LoadNow(),
            last_failure=live.last_failure,
            answers=self._scraper.counts(serving),
        )

    def _seen(self, name: EndpointName) -> Seen:
        record = self._endpoints.get(name)
        live = self._reconciler.live(name)
        pods = self._reconciler.pods(name)
        wall_s, now_s = self._clock.wall_s(), self._clock.now_s()
        every = [pod for some in pods.values() for pod in some]
        serving = RevisionKey(name, record.serving_revision)
        return Seen(
            record=record,
            revisions=self._endpoints.revisions(name),
            pods=pods,
            drains=dict(live.drains),
            load=self._observations.load(serving, now_s) if record.serving_revision else LoadNow(),
            in_flight=self._in_flight(every, now_s),
            cpu_cores={p.id: c for p in every if (c := self._observations.cpu_cores(p, now_s)) is not None},
            last_failure=live.last_failure,
            log_tail=self._log_tail(pods.get(record.serving_revision, ())),
            capped_by=live.capped_by,
            retry_in_s=None if live.retry_at_s is None else max(0.0, live.retry_at_s - wall_s),
            warnings=tuple(w for w in (live.error, self._lost(live.lost), *self._nacks_for(name)) if w),
            url=self._url(record),
            answers=self._scraper.counts(serving),
            environments=self._places(record),
        )

    def _places(self, record: EndpointRecord) -> dict[int, Place]:
        """Where pods of what is wanted and of what serves start."""
        known = self._endpoints.revisions(record.name)
        numbers = {record.wanted_revision, record.serving_revision} & known.keys()
        places = {number: self._environments.known(known[number].revision) for number in numbers}
        return {number: place for number, place in places.items() if place is not None}

    def _lost(self, lost: tuple[float, str]) -> str:
        """What happened to a pod of late: once it is replaced nothing else shows that it had to be."""
        at_s, words = lost
        ago_s = self._clock.wall_s() - at_s
        return f"{ago_s:.0f} s ago a pod was lost and replaced, {words}" if ago_s < LOST_SHOWN_S else ""

    def _log_tail(self, pods: tuple[Pod, ...]) -> tuple[str, ...]:
        """The last words of the pods that serve, read only if their model fails every request."""
        if pods and self._scraper.counts(pods[0].revision).only_faults:
            return self._fleet.log_tail(pods[0].id, LOG_TAIL_LINES)
        return ()

    def _in_flight(self, pods: list[Pod], now_s: float) -> dict[str, int]:
        found = {pod.id: self._observations.in_flight(pod, now_s) for pod in pods}
        return {pod_id: seen[1] for pod_id, seen in found.items() if seen is not None}

    def _url(self, record: EndpointRecord) -> str:
        """Where the endpoint answers; of a protocol with several calls, what they all begin with."""
        name, spoken = record.name, runtime_of(record.spec.models[0]).protocols
        told = name.name if name.namespace == DEFAULT_NAMESPACE else str(name)
        tail = next(tail for each, tail in URL_TAILS.items() if each in spoken)
        return f"{self._scheme}://{self._started.listen}/serving-endpoints/{told}/{tail}"

    def _envoys(self) -> list[v1.Envoy]:
        """Ours, whether or not it is connected; every other one that was."""
        nodes = {node.node: node for node in self._ads.nodes()}
        if self._envoy is not None:
            return [self._own_envoy(self._envoy, nodes.get(self._envoy.node))]
        return [self._told(v1.Envoy(running=node.connected), name, node) for name, node in nodes.items()]

    def _own_envoy(self, envoy: OwnEnvoy, node: NodeStatus | None) -> v1.Envoy:
        status = envoy.status()
        message = v1.Envoy(
            process_id=status.pid or 0,
            running=status.running,
            version=status.version,
            restarts=status.restarts,
        )
        return self._told(message, envoy.node, node)

    def _told(self, envoy: v1.Envoy, name: str, node: NodeStatus | None) -> v1.Envoy:
        """With what its stream and its statistics tell."""
        envoy.node, envoy.connected = name, node.connected if node else False
        age_s = self._intake.age_s(name)
        if age_s is not None:
            envoy.statistics_age_s = age_s
        for told in node.types if node else ():
            envoy.subscriptions.add(
                type=told.short,
                sent_version=told.sent_version,
                acked_version=told.acked_version,
                nack=told.nack,
                nack_at_s=told.nack_at_s,
            )
        return envoy

    def _nacks(self, hidden: str = "") -> Iterator[str]:
        """`hidden` stands for Envoy's words, if it is given."""
        if not self._ads.any_refused():  # asked for each endpoint, again and again
            return
        for node in self._ads.nodes():
            for told in node.types:
                if told.nack:
                    yield f"Envoy `{node.node}` refused its {told.short}: {hidden or told.nack}"

    def _nacks_for(self, name: EndpointName) -> Iterator[str]:
        """As whoever sees this endpoint may know: Envoy's words may name those of other namespaces."""
        found = tuple(self._nacks())
        if found and any(record.name.namespace != name.namespace for record in self._endpoints.all()):
            return self._nacks(ELSEWHERE)
        return iter(found)

    def _warnings(self) -> Iterator[str]:
        yield from self._nacks()
        if self._reconciler.publish_error:
            yield self._reconciler.publish_error
        free = shutil.disk_usage(self._home.path).free
        if free < DISK_LOW_BYTES:
            yield f"the disk of {self._home.path} has {free >> 20} MiB left; free some space"
        for age_s in self._statistics_ages_s():
            if age_s > STATISTICS_STALE_S:
                yield f"Envoy's statistics are {age_s:.0f} s old: scaling holds what there is"

    def _statistics_ages_s(self) -> list[float]:
        """Of our Envoy, or of all that are connected."""
        connected = [node.node for node in self._ads.nodes() if node.connected]
        nodes = [self._envoy.node] if self._envoy is not None else connected
        return [age_s for node in nodes if (age_s := self._intake.age_s(node)) is not None]
