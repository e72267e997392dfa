"""The loop: observe, decide, act, publish.

Each look compares whole states, so it may be repeated, or killed anywhere. One endpoint's
error is contained: it is logged, counted and shown in that endpoint's status, and the others go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections import defaultdict
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain

from trimtab.control import rollout
from trimtab.control.draining import Drain, Step
from trimtab.control.endpoints import Endpoints
from trimtab.control.environments import Environments
from trimtab.control.leaving import Leaving
from trimtab.control.metrics import Metrics
from trimtab.control.observations import Observations
from trimtab.control.progress import Progress
from trimtab.control.publishing import Publisher, Taken
from trimtab.control.records import EndpointRecord, Failure, Outcome, RevisionRecord
from trimtab.control.replacing import Replacing
from trimtab.control.rollout import Plan, RevisionFacts
from trimtab.control.scaling import Due, Scaling
from trimtab.control.split import Splits
from trimtab.control.views import Views, by_number, told_anew
from trimtab.core.clock import Clock
from trimtab.core.errors import Exhausted, TrimtabError, Unreachable
from trimtab.core.names import EndpointName
from trimtab.core.pod import Pod, PodPhase
from trimtab.core.revision import Revision, RevisionKey
from trimtab.core.turns import Seldom, give_way
from trimtab.environment import Place
from trimtab.fleet.protocol import Fleet
from trimtab.xds.kinds import ROUTES
from trimtab.xds.server import AdsServer
from trimtab.xds.world import ApiKey, EndpointView, Gateway

log = logging.getLogger(__name__)

LOOK_EACH_S = 1.0
AGAIN_PER_S = 50  # endpoints of which there is no news; of a thousand that start each is looked at in 20 s
LOOKS_APART_S = 0.02  # a burst of events is one look
REST, REST_MAX_S = 3.0, 0.25  # after a look for so many times as long as it took: what comes meanwhile is one
PODS_APART_S, PODS_REST, PODS_REST_MAX_S = 0.005, 1.0, 0.02  # the same of news of pods, which is told apart
LOG_TAIL_LINES = 20
DECISIONS_AT_ONCE_MAX = 200  # in one look; a thousand endpoints have so many in a second if all are busy
SEEN_AT_ONCE = 100  # endpoints whose turn may have come: of a thousand it takes some milliseconds to tell
FORGET_EACH_S = 1.0  # more seldom where there are thousands of pods
TOLD_WITHIN_S = 0.25  # else looks go on before Envoy is told: a thousand new endpoints take seconds to build
OTHERS_WAIT_S = 0.02  # for looks that wait for somebody else, such as an API server that makes something
RECORDED_AT_ONCE = 50  # decisions, in a transaction: two hundred take twenty milliseconds
TURN = 1  # endpoints that are decided on before others, such as news of pods, get on


@dataclass(frozen=True)
class Still:
    """What a look at an endpoint saw that found nothing to do, nor will while all of that is the same.

    Only time goes on then, until a decision of the autoscaler is due.
    """

    pods: tuple[Pod, ...]
    record: EndpointRecord
    revisions: dict[int, RevisionRecord]
    due: Due

    @property
    def serving(self) -> RevisionRecord:
        return self.revisions[self.record.serving_revision]


@dataclass(frozen=True)
class Looked:
    """All that a look depended on that left nothing to be done at once.

    While that is the same the next one finds the same, but for time, and for what nobody tells of: so it
    waits for LOOK_EACH_S, and for others that wait for longer: see AGAIN_PER_S. Of many endpoints that start,
    one whose pods come is not to wait for the others, nor are those who make its pods to lack a core for it.
    """

    pods: tuple[Pod, ...]
    record: EndpointRecord
    revisions: dict[int, RevisionRecord]
    drains: dict[str, Drain]  # as the look left them: a report of an empty pod makes others
    told: tuple[bool, ...]  # whether it is on record, and how far Envoys are: see `_told`
    at_s: float


@dataclass
class Live:
    """What is known of one endpoint only while we run; all of it can be lost."""

    drains: dict[str, Drain] = field(default_factory=dict)
    capped_by: str = ""
    last_failure: Failure = Failure()  # of a pod, for people
    lost: tuple[float, str] = (0.0, "")  # when a pod that had served failed (wall clock), and what it died of
    environment_failed: Place | None = None  # the last one whose failure was counted
    retry_at_s: float | None = None
    error: str = ""  # of our own
    progress: Progress | None = None
    still: Still | None = None
    looked: Looked | None = None


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
        environments: Environments,
    ) -> None:
        self._endpoints = endpoints
        self._environments = environments
        self._fleet = fleet
        self._observations = observations
        self._scaling = scaling
        self._clock = clock
        self._metrics = metrics
        self._publisher = Publisher(ads, gateway, clock, metrics)
        self._splits = Splits(observations)
        self._seen_by_envoy = Views(endpoints, self._splits, clock)
        self._leaving = Leaving(fleet, self._publisher, observations, clock)
        self._replacing = Replacing()
        self._live: dict[EndpointName, Live] = defaultdict(Live)
        self._pods: Mapping[EndpointName, tuple[Pod, ...]] | None = None
        self._scanned: Mapping[EndpointName, tuple[Pod, ...]] | None = None  # what that was made of
        self._signals_came = False  # since the last look
        self._looked_at_s = float("-inf")
        self._taken = self._publisher.taken()  # as of the last look
        self._forgets = Seldom(FORGET_EACH_S)
        self._kept: tuple[list[EndpointRecord], Mapping[EndpointName, tuple[Pod, ...]] | None] = ([], None)
        self.at_once = 1  # endpoints that are looked at side by side: more where pods are asked of a server
        self._slots: asyncio.Semaphore | None = None
        self._looking: dict[EndpointName, asyncio.Task[None]] = {}  # looks that go on
        self._telling: set[asyncio.Task[None]] = set()  # publications that do
        self.starts_at_once = rollout.STARTS_AT_ONCE_MAX  # of one revision; more where nodes share them
        self.wake = asyncio.Event()
        self.routed = asyncio.Event()  # Envoy has taken a whole configuration from us
        self.looks = 0
        self.looked = asyncio.Condition()  # notified after each look, for those who watch

    async def run(self) -> None:
        """Look again after each event, and at least each LOOK_EACH_S; ends when cancelled."""
        try:
            while True:
                await self._look_again()
        finally:
            going_on = (*self._looking.values(), *self._telling)
            for task in going_on:
                task.cancel()
            await asyncio.gather(*going_on, return_exceptions=True)

    async def _look_again(self) -> None:
        """One look, then the wait for the next one."""
        began_s = self._clock.now_s()
        try:
            await self.look()
        except Exception:  # the next look begins anew, from what is there then
            self._metrics.errors.labels("look").inc()
            log.exception("look failed")
        until_s = self._rested_s(began_s, REST, REST_MAX_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_EACH_S):  # `wait_for` of 3.11 may swallow a cancellation
                await self.wake.wait()
        await asyncio.sleep(max(LOOKS_APART_S, until_s - self._clock.now_s()))
        self.wake.clear()

    def _rested_s(self, began_s: float, times: float, most_s: float) -> float:
        """Until when nothing is begun after what has just ended: so many times as long as it took."""
        now_s = self._clock.now_s()
        return now_s + min(most_s, times * (now_s - began_s))

    async def tell_pods(self) -> None:
        """Until cancelled: Envoy is told of pods that came or went between two looks, however long one takes.

        A look goes through every endpoint of which something has to be done; a pod that is ready now has not
        to wait for what others need. Each turn of a busy loop takes milliseconds: the news passes through
        no other task.
        """
        until_s = 0.0
        while True:
            await self._fleet.changed.wait()
            self._publisher.heard_of_pods()
            await asyncio.sleep(max(PODS_APART_S, until_s - self._clock.now_s()))
            self._fleet.changed.clear()
            self.wake.set()  # only now: what came while this slept has to be looked at, too
            began_s = self._clock.now_s()
            try:
                await self._publish()
            except Exception:  # the next look begins anew, from what is there then
                self._metrics.errors.labels("look").inc()
                log.exception("Envoy was not told of pods")
            until_s = self._rested_s(began_s, PODS_REST, PODS_REST_MAX_S)

    def gather_envoys(self, within_s: float) -> None:
        """See `Publisher.gather`."""
        self._publisher.gather(within_s)

    def spec_changed(self, name: EndpointName) -> None:
        """Look at once, and let the autoscaler decide with the new spec."""
        self._scaling.decide_now(name)
        live = self._live[name]
        live.still = live.looked = None
        self.wake.set()

    def keys_changed(self, keys: tuple[ApiKey, ...]) -> None:
        """Only callers who have one of these are let through from now on."""
        self._publisher.gateway = replace(self._publisher.gateway, api_keys=keys)
        self.wake.set()

    @property
    def publish_error(self) -> str:
        """Why Envoy's configuration could not be built; empty if it could."""
        return self._publisher.error

    def live(self, name: EndpointName) -> Live:
        return self._live[name]

    def pods(self, name: EndpointName) -> dict[int, tuple[Pod, ...]]:
        """The endpoint's pods by revision, oldest first, as of the last look."""
        found = self._scan() if self._pods is None else self._pods
        return by_number(found.get(name, ()))

    async def look(self) -> None:
        """One look at everything. An error of one endpoint stays its own."""
        with self._metrics.look():
            seen, records = self._scan(), self._endpoints.all()
            names, deciding = await self._due(records, seen)
            more = len(deciding) > DECISIONS_AT_ONCE_MAX
            names += await self._decided(deciding[:DECISIONS_AT_ONCE_MAX])
            await (self._one_after_the_other(names) if self.at_once == 1 else self._side_by_side(names))
            for name in seen.keys() - {record.name for record in records}:
                await self._contained(name, self._leaving.remove(seen[name]))
            await give_way()
            await self._tell()
            await give_way()
            while self._scaling.record_decisions(RECORDED_AT_ONCE):
                await give_way()
            await give_way()
            self._forget_gone()
        if self._publisher.connected() and self._publisher.settled(ROUTES):
            self.routed.set()
        self.looks += 1
        if more:
            self._signals_came = True  # those that are left may be urgent
            self.wake.set()
        async with self.looked:
            self.looked.notify_all()

    async def _one_after_the_other(self, names: Iterable[EndpointName]) -> None:
        for name in names:
            await self._look_at(name)

    async def _side_by_side(self, names: Iterable[EndpointName]) -> None:
        """Those that wait for somebody else go on by themselves: what the others need is told meanwhile."""
        if self._slots is None:
            self._slots = asyncio.Semaphore(self.at_once)
        begun = []
        for name in names:
            if name not in self._looking:
                task = self._looking[name] = asyncio.create_task(self._look_in_turn(name, self._slots))
                begun.append(task)
                await give_way()  # a look that waits for nobody gives way to nobody either
        if begun:
            _, late = await asyncio.wait(begun, timeout=OTHERS_WAIT_S)
            for task in late:  # what it does may have to be told, and this look does not wait for it
                task.add_done_callback(lambda _: self.wake.set())

    async def _look_in_turn(self, name: EndpointName, slots: asyncio.Semaphore) -> None:
        try:
            async with slots:
                await self._look_at(name)
        finally:
            del self._looking[name]

    async def _look_at(self, name: EndpointName) -> None:
        pods = (self._pods or {}).get(name, ())
        self._seen_by_envoy.touch(name)  # what it does is told also while it waits for somebody else,
        await self._contained(name, self._endpoint(name, pods, self._live[name]))
        self._seen_by_envoy.touch(name)  # and what it has done since

    async def _due(
        self, records: Iterable[EndpointRecord], seen: Mapping[EndpointName, tuple[Pod, ...]]
    ) -> tuple[list[EndpointName], list[EndpointName]]:
        """The endpoints that have to be looked at, and those of which only a decision is due.

        Of thousands most have nothing to do but to decide: those must not keep the others waiting. What is
        urgent comes first, then what has been due for longest.
        """
        now_s, signals_came, before_s = self._clock.now_s(), self._signals_came, self._looked_at_s
        self._signals_came, self._looked_at_s = False, now_s
        taken = self._taken = self._publisher.taken()
        found, again, deciding = [], [], list[tuple[float, EndpointName]]()
        for number, record in enumerate(records, 1):
            if number % SEEN_AT_ONCE == 0:
                await give_way()
            if not self._endpoints.known(record.name):
                continue  # it has gone meanwhile
            live, pods = self._live[record.name], seen.get(record.name, ())
            still, looked = live.still, live.looked
            if still is None or not self._is_still(still, record, pods):
                if not self._finds_the_same(looked, record, pods, taken, signals_came=signals_came):
                    found.append(record.name)
                elif looked is not None and now_s - looked.at_s >= LOOK_EACH_S:
                    again.append((looked.at_s, record.name))
            elif now_s >= still.due.at_s:
                deciding.append((still.due.at_s, record.name))
            elif (signals_came or still.due.begins(before_s, now_s)) and self._scaling.is_urgent(
                record, still.serving, still.pods
            ):
                deciding.append((-math.inf, record.name))
        most = math.ceil(AGAIN_PER_S * min(LOOK_EACH_S, now_s - before_s))
        return found + [name for _, name in sorted(again)[:most]], [name for _, name in sorted(deciding)]

    async def _decided(self, names: Iterable[EndpointName]) -> list[EndpointName]:
        """Let the autoscaler decide about those that are still; returns of which more follows from it."""
        more = []
        for number, name in enumerate(names, 1):
            if not self._decided_still(name):
                more.append(name)
            if number % TURN == 0:
                await give_way()
        return more

    def _decided_still(self, name: EndpointName) -> bool:
        """Let the autoscaler decide about an endpoint that is still; whether nothing else follows from it."""
        live = self._live[name]
        still, live.still = live.still, None
        if still is None:
            return False
        try:
            after = self._scaling.decided(still.record, still.serving, still.pods, (), self._fleet.room)
            self._set(still.serving, after)
        except Exception as error:  # noqa: BLE001 -- it is told, and the others go on
            self._note_error(name, live, error)
            return True  # the next look is a whole one
        if after is not still.serving and after != still.serving:
            return False
        if self._scaling.capped_by(name):
            return False
        live.still = replace(still, due=self._scaling.due(name))
        return True

    def _is_still(self, still: Still, record: EndpointRecord, pods: tuple[Pod, ...]) -> bool:
        same = still.record is record and still.pods is pods
        return same and still.revisions == self._endpoints.revisions(record.name)

    def _finds_the_same(
        self,
        looked: Looked | None,
        record: EndpointRecord,
        pods: tuple[Pod, ...],
        taken: Taken,
        *,
        signals_came: bool,
    ) -> bool:
        """Whether a look now would do no more than the last one did, but for the time that has passed."""
        now_s, revisions = self._clock.now_s(), self._endpoints.revisions(record.name)
        if looked is None or looked.record is not record or looked.pods is not pods:
            return False
        if looked.revisions != revisions:
            return False
        serving = revisions.get(record.serving_revision)
        if serving is not None and (
            now_s >= self._scaling.due(record.name).at_s
            or (signals_came and self._scaling.is_urgent(record, serving, pods))
        ):
            return False
        drains = self._live[record.name].drains
        return looked.drains == drains and looked.told == self._told(record, drains, taken)

    def _told(self, record: EndpointRecord, drains: Mapping[str, Drain], taken: Taken) -> tuple[bool, ...]:
        """Whether the endpoint is on record; what Envoys know, where something follows from it."""
        told = [self._endpoints.recorded(record.name)]
        if record.serving_revision or record.deleting:
            told += taken.routes and self._publisher.tells_routes(record), taken.connected
        if any(drain.step is not Step.EMPTYING for drain in drains.values()):
            told.append(taken.assignments)
        return tuple(told)

    def _stills(self, record: EndpointRecord, pods: tuple[Pod, ...], steps: Plan, live: Live) -> Still | None:
        """What was seen, if nothing has to be done about it; None if the next look may find something."""
        revisions = self._endpoints.revisions(record.name)
        serving = revisions.get(record.serving_revision)
        at_rest = record.outcome is Outcome.SERVING and not record.deleting
        if serving is None or not at_rest or record.wanted_revision != record.serving_revision:
            return None
        if steps.starts or steps.leaves or steps.retry_at_s is not None or live.drains or live.capped_by:
            return None
        whole = len(pods) == serving.pods_wanted and not serving.failures
        if not whole or not all(_serves(pod, record.serving_revision) for pod in pods):
            return None
        return Still(pods, record, dict(revisions), self._scaling.due(record.name))

    def _scan(self) -> Mapping[EndpointName, tuple[Pod, ...]]:
        """Every pod by endpoint; where nothing has changed, the same tuple as before."""
        before, now = self._pods or {}, self._fleet.by_endpoint()
        if now is not self._scanned or self._pods is None:
            pods = dict(now)
            for name in told_anew(before, now):
                pods[name] = _same(before.get(name), now[name])
            self._pods, self._scanned = pods, now
        return self._pods

    async def _contained(self, name: EndpointName, work: Coroutine[None, None, None]) -> None:
        live = self._live[name]
        try:
            await work
            live.error = ""
        except Exception as error:  # noqa: BLE001 -- it is told, and the others go on
            self._note_error(name, live, error)

    def _note_error(self, name: EndpointName, live: Live, error: Exception) -> None:
        """What went wrong with one endpoint: in the log, in its status, and counted."""
        known = isinstance(error, TrimtabError)
        told = str(error) if known else f"internal error: {error!r}"
        if told != live.error:  # once, not at each look for as long as a disk is full
            log.warning("%s: %s", name, told, exc_info=None if known else error)
        live.error = told
        self._metrics.errors.labels("reconcile").inc()

    async def _endpoint(self, name: EndpointName, pods: tuple[Pod, ...], live: Live) -> None:
        live.still = live.looked = None
        looked = self._begun(name, pods)
        seen = pods
        pods = await self._without_strangers(name, pods)
        pods = await self._take_failures(name, pods, live)
        # From here to the acts there is no await: people may change a record while we wait.
        record = self._endpoints.get(name)
        by_revision = by_number(pods)
        to_take_over = self._decide(record, by_revision, live)
        facts = self._facts(record, by_revision, live, to_take_over)
        steps = rollout.plan(
            record,
            facts,
            routes_settled=self._publisher.routes_settled(record),
            connected=self._publisher.connected(),
            now_s=self._clock.wall_s(),
            starts_at_once=self.starts_at_once,
        )
        live.retry_at_s = steps.retry_at_s
        live.capped_by = self._capped_by(record, facts)
        record = self._record_progress(record, facts, steps, live)
        if not self._endpoints.recorded(name):
            live.looked = looked
            return  # another control plane could not go on from here; whoever records it wakes us
        await self._start(name, facts, steps, live)
        await self._leaving.advance(live.drains, pods, steps.leaves, record.spec.request_timeout_s)
        if record.deleting and not pods and self._publisher.routes_settled(record):
            self._endpoints.remove(name)
            self._forget(name)
        elif len(pods) == len(seen):  # no stranger, and none that failed
            live.still = self._stills(record, seen, steps, live)
            waits = steps.retry_at_s is not None or live.capped_by
            if not waits and all(each.has_environment for each in facts.values()):
                live.looked = replace(looked, drains=dict(live.drains))

    def _begun(self, name: EndpointName, pods: tuple[Pod, ...]) -> Looked:
        """What a look that begins now depends on: what it changes itself asks for another one."""
        record, revisions = self._endpoints.get(name), dict(self._endpoints.revisions(name))
        drains = dict(self._live[name].drains)
        told = self._told(record, drains, self._taken)  # if it is more by now, the next look finds that
        return Looked(pods, record, revisions, drains, told, self._clock.now_s())

    # observe

    async def _without_strangers(self, name: EndpointName, pods: tuple[Pod, ...]) -> tuple[Pod, ...]:
        """The pods whose revision is on record; any other, left by another store, has to go."""
        known = self._endpoints.revisions(name)
        await self._leaving.remove([pod for pod in pods if pod.revision.number not in known])
        return tuple(pod for pod in pods if pod.revision.number in known)

    async def _take_failures(self, name: EndpointName, pods: tuple[Pod, ...], live: Live) -> tuple[Pod, ...]:
        """Count pods that failed, keep their last words, and return those that are left."""
        now_s = self._clock.wall_s()
        revisions = self._endpoints.revisions(name)
        for pod in pods:
            if pod.phase is PodPhase.FAILED:
                live.last_failure = self._words_of(pod)
                if pod.ready_at_s is not None:
                    live.lost = (now_s, f"pod {pod.id}: {pod.cause}")
                failed = rollout.after_failure(revisions[pod.revision.number], pod, now_s)
                self._endpoints.put_revision(failed)
                self._metrics.pod_failures.labels(name.namespace, name.name).inc()
                log.warning("%s: pod %s failed: %s", name, pod.id, pod.cause)
                await self._fleet.forget_pod(pod.id)
        left = tuple(pod for pod in pods if pod.phase is not PodPhase.FAILED)
        for number, alive in by_number(left).items():
            after = rollout.after_service(revisions[number], alive, now_s)
            if after is not revisions[number]:
                self._endpoints.put_revision(after)
        return left

    def _words_of(self, pod: Pod) -> Failure:
        hint = f"see `trimtab logs {pod.revision.endpoint.short}`; mend the model, then deploy it again"
        return Failure(pod.cause, hint, self._fleet.log_tail(pod.id, LOG_TAIL_LINES))

    # decide

    def _decide(self, record: EndpointRecord, pods: dict[int, tuple[Pod, ...]], live: Live) -> int:
        """Set how many pods each revision of interest should have.

        Returns how many the wanted one must have ready before it takes the traffic.
        """
        revisions = self._endpoints.revisions(record.name)
        to_take_over = 1
        serving = revisions.get(record.serving_revision)
        if serving is not None and not record.deleting:
            alive = pods.get(record.serving_revision, ())
            leaving, room_for = live.drains.keys(), self._fleet.room
            self._set(serving, self._scaling.decided(record, serving, alive, leaving, room_for))
        if record.wanted_revision != record.serving_revision:
            newest = revisions[record.wanted_revision]
            alive = pods.get(record.wanted_revision, ())
            serving = revisions.get(record.serving_revision)  # with what was decided just now
            pods_wanted, to_take_over = self._scaling.begin(record, newest, serving, alive, self._fleet.room)
            self._set(newest, replace(newest, pods_wanted=pods_wanted))
        if record.deleting or (serving is None and record.outcome is Outcome.FAILED):
            self._scaling.wants_nothing(record.name)
        return to_take_over

    def _set(self, before: RevisionRecord, after: RevisionRecord) -> None:
        if after is not before and after != before:
            self._endpoints.put_revision(after)

    def _facts(
        self, record: EndpointRecord, pods: dict[int, tuple[Pod, ...]], live: Live, to_take_over: int
    ) -> dict[int, RevisionFacts]:
        leaving = frozenset(live.drains)
        gone = frozenset(pod_id for pod_id, drain in live.drains.items() if not drain.revocable)
        facts, replaced = {}, 0
        for number, revision in self._endpoints.revisions(record.name).items():
            alive = pods.get(number, ())
            found = RevisionFacts(
                record=revision,
                pods=alive,
                leaving=leaving,
                gone_from_envoy=gone,
                wanted=revision.pods_wanted,
                to_take_over=to_take_over,
                overdue_after_s=self._scaling.overdue_after_s(revision.revision.key, alive),
            )
            if found.late:
                left = self._replacing.most(record.name, self._pods or {}) - replaced
                found = replace(found, replaced_max=max(0, left))
                replaced += found.places() - found.wanted
            kept = number in (record.serving_revision, record.wanted_revision)
            short = kept and sum(not (pod.node_goes or pod.blocked) for pod in alive) < found.places()
            facts[number] = replace(
                found,
                capped=short and self._fleet.room(revision.revision).pods == 0,
                has_environment=not kept or self._has_environment(record, revision),
            )
        self._replacing.note(record.name, replaced)
        return facts

    def _has_environment(self, record: EndpointRecord, revision: RevisionRecord) -> bool:
        """Whether its pods can start; if not, an environment is being made from now on.

        Of what serves it is asked too before a pod is missing: a new trimtab makes new environments.
        """
        given_up = (
            record.outcome is Outcome.FAILED and revision.revision.key.number != record.serving_revision
        )
        return record.deleting or given_up or self._environments.of(revision.revision).python is not None

    def _capped_by(self, record: EndpointRecord, facts: dict[int, RevisionFacts]) -> str:
        """What keeps the machine from holding as many pods as there should be; empty if it does."""
        for number in (record.wanted_revision, record.serving_revision):
            if number in facts and facts[number].capped:
                return self._fleet.room(facts[number].record.revision).why
        return self._scaling.capped_by(record.name)

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

    async def _start(
        self, name: EndpointName, facts: dict[int, RevisionFacts], steps: Plan, live: Live
    ) -> None:
        for number, count in steps.starts:
            if facts[number].capped:
                continue
            revision = facts[number].record.revision
            if not self._may_start(revision, live):
                continue
            for _ in range(count):
                try:
                    await self._fleet.start_pod(revision)
                except Exhausted as error:  # by another start a moment ago, or the disk is full
                    live.capped_by = f"{error.message}; {error.hint}" if error.hint else error.message
                    break
                except Unreachable as error:  # no fault of the model's: tried again at the next look
                    live.capped_by = f"what starts pods: {error.message}"
                    break
                except TrimtabError as error:
                    live.last_failure = Failure(str(error), error.hint)
                    failed = rollout.after_refusal(
                        self._endpoints.revisions(name)[number], self._clock.wall_s()
                    )
                    self._endpoints.put_revision(failed)
                    break

    def _may_start(self, revision: Revision, live: Live) -> bool:
        """Whether there is an environment to start in; that it cannot be made counts as a failed start.

        What the model asks for and cannot be had will not be there at the next try either, unlike an index
        that does not answer or a full disk.
        """
        place = self._environments.of(revision, look=True)
        if place.error is None:
            return place.python is not None
        if live.environment_failed is place:  # this failure was counted, and its rest is over
            self._environments.try_again(revision)
            return False
        live.environment_failed = place
        live.last_failure = Failure(str(place.error), place.error.hint, place.log_tail)
        for_good = not isinstance(place.error, (Exhausted, Unreachable))
        record = self._endpoints.revisions(revision.key.endpoint)[revision.key.number]
        failed = rollout.after_refusal(record, self._clock.wall_s(), for_good=for_good)
        self._endpoints.put_revision(failed)
        return False

    def saw_requests(self) -> None:
        """After new signals: let drains count the flushes in which their pod was empty."""
        draining = {name: live.drains for name, live in self._live.items() if live.drains}
        pods = self._fleet.by_endpoint() if draining else {}
        for name, drains in draining.items():
            self._leaving.saw_requests(drains, {pod.id: pod for pod in pods.get(name, ())})
        self._signals_came = True
        self.wake.set()

    # publish

    async def _publish(self) -> None:
        await self._publisher.publish(self._views)

    async def _tell(self) -> None:
        """Tell Envoy what there is. What takes long to build is not waited for: others go on meanwhile."""
        telling = asyncio.create_task(self._publish())
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)
        await asyncio.wait({telling}, timeout=TOLD_WITHIN_S)
        if telling.done():
            telling.result()
        else:
            telling.add_done_callback(lambda _: self.wake.set())

    def _views(self) -> tuple[EndpointView, ...]:
        """The endpoints as Envoy should see them now: after what this look has started and stopped."""
        return self._seen_by_envoy.all(self._scan(), lambda name: self._live[name].drains)

    def _forget_gone(self) -> None:
        for name in self._live.keys() - {record.name for record in self._endpoints.all()}:
            self._forget(name)
        if self._forgets.is_due(self._clock.now_s()):
            self.keep_only_present()

    def keep_only_present(self) -> None:
        """Forget now what is of revisions and pods that have gone; looks do so seldom."""
        began_s = self._clock.now_s()
        self._keep_only_present()
        self._forgets.done(began_s, self._clock.now_s())

    def _keep_only_present(self) -> None:
        records, told = self._endpoints.all(), self._fleet.by_endpoint()
        if told is self._kept[1] and records == self._kept[0]:
            return
        self._kept, pods = (records, told), tuple(chain.from_iterable(told.values()))
        keys = {
            RevisionKey(record.name, number)
            for record in records
            for number in (record.serving_revision, record.wanted_revision)
        }
        keys |= {pod.revision for pod in pods}
        self._observations.keep_only(keys, pods)
        self._splits.keep_only(keys)
        kept = (self._endpoints.revisions(key.endpoint).get(key.number) for key in keys)
        self._environments.keep_only((record.revision for record in kept if record is not None), pods)

    def _forget(self, name: EndpointName) -> None:
        """At once when an endpoint has gone: the next one of its name begins anew."""
        self._live.pop(name, None)
        self._observations.forget(name)
        self._scaling.forget(name)
        self._replacing.forget(name)


def _same(before: tuple[Pod, ...] | None, now: tuple[Pod, ...]) -> tuple[Pod, ...]:
    """What there was before, where it is equal: it is quick to see that nothing has changed."""
    return before if before is not None and before == now else now


def _serves(pod: Pod, number: int) -> bool:
    """Whether it is a pod of this revision that takes traffic and is not taken away."""
    return pod.phase is PodPhase.READY and not pod.evicted and pod.revision.number == number
