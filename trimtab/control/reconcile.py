"""The loop: observe, decide, act, publish.

Each look compares whole states, so it may be repeated, or killed anywhere. One endpoint's
error is contained: it is logged, counted and shown in that endpoint's status, and the others go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from trimtab.control import draining, rollout, view
from trimtab.control.draining import Drain, Step
from trimtab.control.endpoints import Endpoints
from trimtab.control.metrics import Metrics
from trimtab.control.observations import Observations
from trimtab.control.progress import Progress
from trimtab.control.records import EndpointRecord, Failure, Outcome, RevisionRecord
from trimtab.control.rollout import Plan, RevisionFacts
from trimtab.control.scaling import Scaling
from trimtab.core.clock import Clock
from trimtab.core.errors import Exhausted, TrimtabError
from trimtab.core.names import EndpointName
from trimtab.core.pod import Pod, PodPhase
from trimtab.core.revision import RevisionKey
from trimtab.fleet.protocol import Fleet
from trimtab.xds.kinds import ASSIGNMENTS, ROUTES
from trimtab.xds.server import AdsServer
from trimtab.xds.snapshot import Snapshot, build_snapshot
from trimtab.xds.world import Gateway, Share, World

log = logging.getLogger(__name__)

LOOK_EACH_S = 1.0
LOOKS_APART_S = 0.02  # a burst of events is one look
DRAIN_MARGIN_S = 5.0  # beyond the longest request an endpoint allows
LOG_TAIL_LINES = 20
TERM_GRACE_S = 30.0


@dataclass
class Live:
    """What is known of one endpoint only while we run; all of it can be lost."""

    drains: dict[str, Drain] = field(default_factory=dict)
    capped_by: str = ""
    last_failure: Failure = Failure()  # of a pod, for people
    retry_at_s: float | None = None
    error: str = ""  # of our own
    progress: Progress | None = None


class Reconciler:
    """Drives the fleet and Envoy's snapshot toward what the endpoints want."""

    def __init__(
        self,
        endpoints: Endpoints,
        fleet: Fleet,
        ads: AdsServer,
        observations: Observations,
        scaling: Scaling,
        gateway: Gateway,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._endpoints = endpoints
        self._fleet = fleet
        self._ads = ads
        self._observations = observations
        self._scaling = scaling
        self._gateway = gateway
        self._clock = clock
        self._metrics = metrics
        self._live: dict[EndpointName, Live] = defaultdict(Live)
        self._snapshot: Snapshot | None = None
        self._world: World | None = None
        self.publish_error = ""
        self.wake = asyncio.Event()
        self.looks = 0
        self.looked = asyncio.Condition()  # notified after each look, for those who watch

    async def run(self) -> None:
        """Look again after each event, and at least each LOOK_EACH_S; ends when cancelled."""
        while True:
            await self.look()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.wake.wait(), LOOK_EACH_S)
            await asyncio.sleep(LOOKS_APART_S)
            self.wake.clear()

    def spec_changed(self, name: EndpointName) -> None:
        """Look at once, and let the autoscaler decide with the new spec."""
        self._scaling.decide_now(name)
        self.wake.set()

    def live(self, name: EndpointName) -> Live:
        return self._live[name]

    def pods(self, name: EndpointName) -> dict[int, tuple[Pod, ...]]:
        """The endpoint's pods by revision, oldest first."""
        return _by_revision(pod for pod in self._fleet.pods() if pod.revision.endpoint == name)

    async def look(self) -> None:
        """One look at everything. Never raises but for cancellation."""
        with self._metrics.look():
            pods: dict[EndpointName, list[Pod]] = defaultdict(list)
            for pod in self._fleet.pods():
                pods[pod.revision.endpoint].append(pod)
            for record in self._endpoints.all():
                await self._contained(record, tuple(pods.pop(record.name, ())))
            for strangers in pods.values():
                await self._remove_strangers(strangers)
            self._publish()
            self._forget_gone()
        self.looks += 1
        async with self.looked:
            self.looked.notify_all()

    async def _contained(self, record: EndpointRecord, pods: tuple[Pod, ...]) -> None:
        live = self._live[record.name]
        try:
            await self._endpoint(record, pods, live)
            live.error = ""
        except TrimtabError as error:
            live.error = str(error)
            self._metrics.errors.labels("reconcile").inc()
            log.warning("%s: %s", record.name, error)
        except Exception as error:
            live.error = f"internal error: {error!r}"
            self._metrics.errors.labels("reconcile").inc()
            log.exception("%s: look failed", record.name)

    async def _endpoint(self, record: EndpointRecord, pods: tuple[Pod, ...], live: Live) -> None:
        pods = await self._take_failures(record, pods, live)
        by_revision = _by_revision(pods)
        record = self._decide(record, by_revision)
        facts = self._facts(record, by_revision, live)
        now_s = self._clock.wall_s()
        steps = rollout.plan(
            record,
            facts,
            routes_settled=self._routes_settled(record),
            connected=self._connected(),
            now_s=now_s,
        )
        live.retry_at_s = steps.retry_at_s
        record = self._record_progress(record, facts, steps, live)
        await self._start(record, steps, live)
        await self._drain(record, pods, steps, live)
        if record.deleting and not pods and self._routes_settled(record):
            self._endpoints.remove(record.name)

    # observe

    async def _take_failures(
        self, record: EndpointRecord, pods: tuple[Pod, ...], live: Live
    ) -> tuple[Pod, ...]:
        """Count pods that failed, keep their last words, and return those that are left."""
        now_s = self._clock.wall_s()
        revisions = self._endpoints.revisions(record.name)
        for pod in pods:
            revision = revisions.get(pod.revision.number)
            if revision is None:
                continue
            if pod.phase is PodPhase.FAILED:
                self._metrics.pod_failures.labels(record.name.namespace, record.name.name).inc()
                log.warning("%s: pod %s failed: %s", record.name, pod.id, pod.cause)
                live.last_failure = self._words_of(pod)
                self._endpoints.put_revision(rollout.after_failure(revision, pod, now_s))
                await self._fleet.forget_pod(pod.id)
        left = tuple(pod for pod in pods if pod.phase is not PodPhase.FAILED)
        for number, alive in _by_revision(left).items():
            before = self._endpoints.revisions(record.name).get(number)
            after = rollout.after_service(before, alive, now_s) if before else None
            if after is not None and after is not before:
                self._endpoints.put_revision(after)
        return left

    def _words_of(self, pod: Pod) -> Failure:
        hint = f"see `trimtab logs {pod.revision.endpoint.short}`; mend the model, then deploy it again"
        return Failure(pod.cause, hint, self._fleet.log_tail(pod.id, LOG_TAIL_LINES))

    # decide

    def _decide(self, record: EndpointRecord, pods: dict[int, tuple[Pod, ...]]) -> EndpointRecord:
        """Set how many pods each revision of interest should have."""
        revisions = self._endpoints.revisions(record.name)
        serving = revisions.get(record.serving_revision)
        if serving is not None and not record.deleting:
            room = self._fleet.room(serving.revision)
            wanted = self._scaling.pods_wanted(record, serving, pods.get(record.serving_revision, ()), room)
            self._set_wanted(serving, wanted)
        newest = self._endpoints.revisions(record.name)[record.wanted_revision]
        if record.wanted_revision != record.serving_revision:
            floor = self._scaling.floor(record, newest)
            before = self._endpoints.revisions(record.name).get(record.serving_revision)
            self._set_wanted(newest, max(floor, before.pods_wanted if before else 0))
        return record

    def _set_wanted(self, revision: RevisionRecord, pods: int) -> None:
        if revision.pods_wanted != pods:
            self._endpoints.put_revision(replace(revision, pods_wanted=pods))

    def _facts(
        self, record: EndpointRecord, pods: dict[int, tuple[Pod, ...]], live: Live
    ) -> dict[int, RevisionFacts]:
        leaving = frozenset(live.drains)
        gone = frozenset(pod_id for pod_id, drain in live.drains.items() if not drain.revocable)
        facts = {}
        for number, revision in self._endpoints.revisions(record.name).items():
            alive = pods.get(number, ())
            short = len(alive) < revision.pods_wanted
            capped = short and self._fleet.room(revision.revision).pods == 0
            facts[number] = RevisionFacts(revision, alive, leaving, gone, revision.pods_wanted, capped)
        return facts

    def _record_progress(
        self, record: EndpointRecord, facts: dict[int, RevisionFacts], steps: Plan, live: Live
    ) -> EndpointRecord:
        """Write down what became true: which revision serves, how the rollout stands or ended."""
        if live.progress is None or live.progress.generation != record.generation:
            live.progress = Progress(record.generation)
        if steps.serving != record.serving_revision and not record.deleting:
            log.info("%s: revision %d takes the traffic", record.name, steps.serving)
            record = replace(record, serving_revision=steps.serving)
            self._endpoints.put(record)
        if record.outcome is not Outcome.ROLLING or record.deleting:
            return record
        wanted = facts[record.wanted_revision]
        stages = live.progress.stages(record, wanted, complete=steps.complete, now_s=self._clock.wall_s())
        if stages != record.stages:
            record = replace(record, stages=stages)
            self._endpoints.put(record)
        if steps.complete:
            return self._endpoints.end_rollout(record, Outcome.SERVING, Failure())
        if steps.gave_up:
            log.warning("%s: revision %d failed: %s", record.name, wanted.number, live.last_failure.cause)
            return self._endpoints.end_rollout(record, Outcome.FAILED, live.last_failure)
        return record

    # act

    async def _start(self, record: EndpointRecord, steps: Plan, live: Live) -> None:
        live.capped_by = "" if not steps.starts else live.capped_by
        for number, count in steps.starts:
            revision = self._endpoints.revisions(record.name)[number]
            for _ in range(count):
                try:
                    await self._fleet.start_pod(revision.revision)
                    live.capped_by = ""
                except Exhausted as error:
                    live.capped_by = str(error)
                    break
                except TrimtabError as error:
                    live.last_failure = Failure(str(error), error.hint)
                    failed_at_s = self._clock.wall_s()
                    failures = revision.failures + 1
                    self._endpoints.put_revision(
                        replace(revision, failures=failures, failed_at_s=failed_at_s)
                    )
                    break

    async def _drain(self, record: EndpointRecord, pods: tuple[Pod, ...], steps: Plan, live: Live) -> None:
        """Begin, continue or take back the leaving of pods."""
        now_s = self._clock.now_s()
        present = {pod.id: pod for pod in pods if pod.phase in (PodPhase.STARTING, PodPhase.READY)}
        stays = {i for i, drain in live.drains.items() if i not in steps.leaves and drain.revocable}
        for pod_id in stays | (live.drains.keys() - present.keys()):
            del live.drains[pod_id]
        grace_s = record.spec.request_timeout_s + DRAIN_MARGIN_S
        for pod_id in steps.leaves:
            if present[pod_id].phase is PodPhase.STARTING:
                await self._fleet.stop_pod(pod_id, TERM_GRACE_S)
            elif pod_id not in live.drains:
                live.drains[pod_id] = Drain(pod_id, now_s, grace_s)
        settled, connected = self._settled(ASSIGNMENTS), self._connected()
        for pod_id, drain in list(live.drains.items()):
            marked = self._in_world_as_wanted(drain, present[pod_id])
            live.drains[pod_id] = draining.advance(
                drain, settled=settled and marked, connected=connected, now_s=now_s
            )
            if live.drains[pod_id].step is Step.STOP:
                await self._fleet.stop_pod(pod_id, TERM_GRACE_S)
                del live.drains[pod_id]

    async def _remove_strangers(self, pods: list[Pod]) -> None:
        """Pods of endpoints that are not there any more."""
        for pod in pods:
            if pod.phase is PodPhase.FAILED:
                await self._fleet.forget_pod(pod.id)
            elif pod.phase is not PodPhase.STOPPING:
                await self._fleet.stop_pod(pod.id, TERM_GRACE_S)

    def saw_requests(self) -> None:
        """After new signals: let drains count the flushes in which their pod was empty."""
        now_s = self._clock.now_s()
        pods = {pod.id: pod for pod in self._fleet.pods()}
        for live in self._live.values():
            for pod_id, drain in live.drains.items():
                if pod_id in pods:
                    seen = self._observations.in_flight(pods[pod_id].address, now_s)
                    if seen is not None:
                        at_s, in_flight = seen
                        live.drains[pod_id] = draining.with_flush(drain, at_s=at_s, in_flight=in_flight)
        self.wake.set()

    # publish

    def _publish(self) -> None:
        """Build what Envoy should know, if it changed; if it cannot be built, the last good one stays."""
        views = []
        for record in self._endpoints.all():
            revisions = self._endpoints.revisions(record.name)
            live = self._live[record.name]
            views.append(view.endpoint_view(record, revisions, self.pods(record.name), live.drains))
        world = World(self._gateway, tuple(views))
        if world == self._world:
            return
        try:
            self._snapshot = build_snapshot(world)
        except Exception as error:
            self.publish_error = f"Envoy's configuration could not be built: {error}"
            self._metrics.errors.labels("snapshot").inc()
            log.exception("the last good snapshot stays")
            return
        self._world, self.publish_error = world, ""
        self._ads.publish(self._snapshot)
        self._metrics.snapshots.inc()

    def _settled(self, kind: str) -> bool:
        """Every connected Envoy has acknowledged what was last published of this kind; true without any."""
        if self._snapshot is None:
            return False
        return not self._connected() or self._ads.acknowledged(kind, self._snapshot.version(kind))

    def _connected(self) -> bool:
        return any(node.connected for node in self._ads.nodes())

    def _routes_settled(self, record: EndpointRecord) -> bool:
        """Envoy has acknowledged the routes, and they say what the record says now."""
        return self._settled(ROUTES) and self._published_shares(record.name) == view.shares(record)

    def _published_shares(self, name: EndpointName) -> tuple[Share, ...] | None:
        endpoints = self._world.endpoints if self._world else ()
        return next((endpoint.shares for endpoint in endpoints if endpoint.name == name), None)

    def _in_world_as_wanted(self, drain: Drain, pod: Pod) -> bool:
        """Whether what was last published already shows this drain's step."""
        endpoints = self._world.endpoints if self._world else ()
        shown = [
            backend.draining
            for endpoint in endpoints
            for revision in endpoint.revisions
            for backend in revision.backends
            if (backend.host, backend.port) == (pod.host, pod.port)
        ]
        return shown == ([True] if drain.in_assignment else [])

    def _forget_gone(self) -> None:
        names = {record.name for record in self._endpoints.all()}
        for name in self._live.keys() - names:
            del self._live[name]
            self._scaling.forget(name)
        pods = self._fleet.pods()
        keys = {
            RevisionKey(record.name, number)
            for record in self._endpoints.all()
            for number in (record.serving_revision, record.wanted_revision)
        }
        self._observations.keep_only(keys | {pod.revision for pod in pods}, pods)


def _by_revision(pods: Iterable[Pod]) -> dict[int, tuple[Pod, ...]]:
    found: dict[int, list[Pod]] = defaultdict(list)
    for pod in pods:
        found[pod.revision.number].append(pod)
    return {number: tuple(some) for number, some in found.items()}
