"""The fleet on Kubernetes: a Deployment for each revision, whose count and whose leaving pods we set.

Two mirrors hold what the API server has; `_settle` compares that with what is wanted of one revision and
writes the difference. Whoever opens a fleet on the same cluster finds all of it there again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import orjson

from trimtab.autoscaler.warmroom import Start
from trimtab.core.clock import Clock
from trimtab.core.errors import Conflict, Failed, NotFound, TrimtabError, Unreachable
from trimtab.core.names import EndpointName
from trimtab.core.pod import Pod, PodPhase
from trimtab.core.revision import Revision, RevisionKey
from trimtab.core.spec import REQUEST_TIMEOUT_MAX_S
from trimtab.fleet.kubernetes import counts, template
from trimtab.fleet.kubernetes.attendants import Attendants, Callers
from trimtab.fleet.kubernetes.holds import Holds
from trimtab.fleet.kubernetes.lives import Lives
from trimtab.fleet.kubernetes.logs import Logs
from trimtab.fleet.kubernetes.looks import Looks
from trimtab.fleet.kubernetes.nodes import Nodes
from trimtab.fleet.kubernetes.seen import (
    NO_ACCOUNT,
    Known,
    SeenDeployment,
    SeenPod,
    cause_of,
    read_deployment,
    read_pod,
)
from trimtab.fleet.kubernetes.shown import Shown
from trimtab.fleet.kubernetes.template import (
    COST,
    COST_OF_LEAVING,
    ENDPOINT,
    GATE,
    HASH,
    REVISION,
    Images,
    Json,
    name_of,
)
from trimtab.fleet.kubernetes.upkeep import Upkeep
from trimtab.fleet.kubernetes.usage import Usage
from trimtab.fleet.protocol import Room
from trimtab.kube import Api, Key, Mirror, Resource, Selection, Work

DEPLOYMENTS = Resource("apps/v1", "deployments")
PODS = Resource("v1", "pods")
OPEN_WITHIN_S = 60.0
ANSWER_WITHIN_S = 5.0  # else whoever asks for pods, for all endpoints, does not wait any longer
WORKERS = 8  # revisions that are written at a time: the API server is not ours alone
PODS_AT_ONCE = 16  # of one revision: of a node that is dead none answers, and its count may not wait for each
ASK_AGAIN_EACH_S = 30.0  # of pods that are refused: left alone a ReplicaSet waits for up to 16 minutes
ASKED_AGAIN = "serving.trimtab.dev/asked-again"
BOUND_AGAIN_S, BOUND_WITHIN_S = 0.5, 20.0  # what stands around pods, to its Deployment: see `_may_wait`
NOT_BEGUN_GRACE_S = 1  # of a pod whose server was never started
_BACKGROUND = {"propagationPolicy": "Background"}
ASKED = "-asked-"  # in the id of a pod that the API server does not show yet


@dataclass
class Wanted:
    """What is wanted of one revision. `leaving` are names of pods that `pods` does not count."""

    pods: int = 0
    leaving: set[str] = field(default_factory=set)
    made: bool = False  # its Deployment was created, whether or not the mirror shows it yet
    provided: bool = False  # what its pods must not be without was made for it, and goes with no other one
    attended: bool = False  # all that stands around them is there, and goes with this one
    asked_at_s: float = 0.0  # wall clock, of the last pod asked for
    lowering: counts.Lowering = field(default_factory=counts.Lowering)
    replaced: set[str] = field(default_factory=set)  # of `leaving`: others are made in their place
    bound_by_s: float | None = None  # by when it is to be `attended` (monotonic), where that has had to wait


class KubernetesFleet:
    """Pods of Deployments. See `fleet.protocol.Fleet`.

    `images` are by the name of a runtime; `callers` are those who may reach the pods. With a `namespace`
    only what is in there is seen; otherwise the pods of all. `owner` gives a reference to what a Deployment
    has to go with. Without `node_metrics` no kubelet is asked what pods use; with `watch_nodes` pods are
    known whose node is about to go. `model_cache` is the URL by which pods reach that of their node;
    `pull_secrets` name Secrets of each namespace, for the registries of its pods. `pods` is a mirror of them
    that somebody follows already, see `mirror_of_pods`; without it the fleet follows one of its own.
    Pods are spread over the values of each of `topology_keys`, labels of nodes.
    `request_timeout_s` is how long callers of an endpoint wait: see `lives`. `changed` tells of pods.
    """

    def __init__(  # noqa: PLR0913  each of the last is a part that is asked for, or not
        self,
        api: Api,
        clock: Clock,
        images: Images,
        namespace: str = "",
        owner: Callable[[EndpointName], Json | None] = lambda _: None,
        callers: Callers | None = None,
        *,
        node_metrics: bool = True,
        request_timeout_s: Callable[[EndpointName], float] = lambda _: REQUEST_TIMEOUT_MAX_S,
        watch_nodes: bool = False,
        model_cache: str = "",
        pods: Mirror[SeenPod] | None = None,
        pull_secrets: Sequence[str] = (),
        topology_keys: Sequence[str] = (template.HOSTNAME,),
    ) -> None:
        self.changed = asyncio.Event()
        self._api = api
        self._clock = clock
        self._images = images
        self._owner = owner
        self._namespace = namespace
        self._logs = Logs(api)
        self._looks = Looks(self._pod_answered)
        self._holds = Holds(api)
        self._usage = Usage(api, clock, self._nodes_of_pods, self._touch_node)
        self._node_metrics = node_metrics
        self._lives = Lives(clock, self._not_failed, request_timeout_s, self._pod_hangs)
        self._nodes = Nodes(api, self._node_changed) if watch_nodes else None
        self._model_cache = model_cache
        self._topology_keys = topology_keys
        self._attendants = Attendants(api, callers or Callers(), pull_secrets)
        self._wanted: dict[RevisionKey, Wanted] = {}
        self._pods: dict[RevisionKey, dict[str, SeenPod]] = {}  # by name
        self._key_of: dict[Key, RevisionKey] = {}  # of pods
        self._made: dict[Key, RevisionKey] = {}  # Deployments,
        self._making = 0  # and those that are being made
        self._adopted = False  # all that was there at the start
        self._causes: dict[str, str] = {}  # of pods that failed, by id
        self._served: dict[str, float] = {}  # wall clock, by id: since when a pod has answered, or had
        self._answered: dict[str, float] = {}  # wall clock, by id of those that the kubelet calls unready yet
        self._shown = Shown(clock, self._of, self._asked, self._known)
        self._let_go: set[str] = set()  # ids of pods that are taken away and may end
        self._hurried: set[str] = set()  # ids of those that were given less time for it
        self._pod_mirror = mirror_of_pods(api, namespace) if pods is None else pods
        self._follows_pods = pods is None
        self._deployments = Mirror(
            api, _ours(DEPLOYMENTS, namespace), read_deployment, self._deployment_changed
        )
        self._upkeep = Upkeep(api, self._attendants, self._deployments, self._is_attended, namespace)
        self._work: Work[RevisionKey] = Work(self._settle, WORKERS)
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Adopt what is there and begin to watch it. Raises Unreachable."""
        self._looks.open()
        self._holds.open()
        self._pod_mirror.changed = self._pod_changed
        for place in self._pod_mirror.objects:
            self._pod_changed(place)
        mirrors = (self._pod_mirror, self._deployments)
        followed = mirrors if self._follows_pods else (self._deployments,)
        self._tasks = [asyncio.create_task(mirror.follow()) for mirror in followed]
        try:
            async with asyncio.timeout(OPEN_WITHIN_S):
                for mirror in mirrors:
                    await mirror.listed.wait()
                attended = await self._attendants.attended(self._namespace)
        except BaseException as error:
            await self.close()
            if not isinstance(error, TimeoutError):
                raise
            hint = "see whether the API server runs, and whether we may list pods and deployments"
            raise Unreachable("pods could not be listed", where="Kubernetes", hint=hint) from error
        for place, deployment in self._deployments.objects.items():
            self._adopt(deployment, attended=place in attended)
        self._adopted = True
        self._tasks.append(asyncio.create_task(self._work.run()))
        self._tasks.append(asyncio.create_task(self._lives.run()))
        self._tasks.append(asyncio.create_task(self._ask_again()))
        self._tasks.append(asyncio.create_task(self._upkeep.run()))
        if self._node_metrics:
            self._tasks.append(asyncio.create_task(self._usage.run()))
        if self._nodes is not None:
            self._tasks.append(asyncio.create_task(self._nodes.run()))

    async def ended(self) -> None:
        """Until a part of it breaks, which it raises: none ends by itself."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def close(self) -> None:
        """Stop watching; pods go on serving."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await self._looks.close()
        await self._holds.close()

    def pods(self) -> tuple[Pod, ...]:
        """Every pod that is there or that failed and was not yet forgotten, oldest first.

        A pod that was asked for and that the API server does not show yet is among them, as starting.
        The same tuple for as long as nothing has changed.
        """
        return self._shown.pods()

    def by_endpoint(self) -> Mapping[EndpointName, tuple[Pod, ...]]:
        """The same of each endpoint: the same mapping and tuples for as long as nothing has changed."""
        return self._shown.by_endpoint()

    def _touch_node(self, node: str) -> None:
        """Something is known anew of the pods there: what they use, say."""
        for key, pods in self._pods.items():
            if any(pod.node == node for pod in pods.values()):
                self._shown.touch(key)

    async def start_pod(self, revision: Revision) -> str:
        """Ask for one more pod of the revision; returns at once an id that stands for it until it is there.

        One that starts and was to leave stays instead: it waits for others that start anyhow.

        Raises Failed if there is no image for it or its Deployment's name is taken; what the API server
        refuses of the first one is raised as it says it.
        """
        key = revision.key
        wanted = self._wanted.setdefault(key, Wanted())
        back = next(filter(self._may_stay, self._of(key)), None)
        if back is not None:
            wanted.leaving.remove(back.name)
        wanted.pods += 1  # before it is made: the mirror may show it before we are answered
        number = wanted.pods
        wanted.asked_at_s = self._clock.wall_s()
        self._shown.touch(key)
        if not wanted.made:
            wanted.made = True
            self._making += 1
            try:
                async with _in_time(_place(key)):
                    await self._create(revision, wanted)
            except BaseException:
                wanted.made = False  # if it was made all the same, the mirror will tell
                wanted.pods = max(0, wanted.pods - 1)
                self._shown.touch(key)
                raise
            finally:
                self._making -= 1
        self._work.add(key)
        self.changed.set()
        return back.id if back else f"{key.endpoint.namespace}/{name_of(key)}{ASKED}{number}"

    def _may_stay(self, pod: SeenPod) -> bool:
        """Whether it is to leave, has not served yet, so that nobody has drained it, and may still serve."""
        starts = pod.starts and not pod.ended and pod.id not in self._causes
        return starts and pod.name in self._wanted[pod.key].leaving and pod.id not in self._answered

    async def stop_pod(self, pod_id: str, grace_s: float) -> None:  # noqa: ARG002
        """Have this pod end, and not another one; an unknown id is no error.

        It ends once none of its revision is starting. `grace_s` is the pod's own, `template.TERM_GRACE_S`.
        """
        namespace, _, name = pod_id.partition("/")
        key = self._key_of.get((namespace, name))
        if key is None:
            self._take_back(namespace, name)
            return
        seen, wanted = self._pods[key][name], self._wanted.get(key)
        if seen.finished:  # its ReplicaSet has replaced it already
            async with _in_time((namespace, name)):
                await self._api.delete(PODS.path(namespace, name))
        elif seen.deleting:  # another one comes in its place
            self._let_go.add(pod_id)
            self._shown.touch(key)
            self._work.add(key)
            self.changed.set()
        elif seen.active and wanted is not None and name not in wanted.leaving:
            wanted.leaving.add(name)
            wanted.pods = max(0, wanted.pods - 1)
            self._shown.touch(key)
            self._work.add(key)
            self.changed.set()

    async def forget_pod(self, pod_id: str) -> None:
        """Have a FAILED pod end."""
        await self.stop_pod(pod_id, 0.0)

    def room(self, revision: Revision) -> Room:
        """None fits while one cannot be scheduled, lacks its Secret or is refused, by a quota for example.

        Else it is unknown.
        """
        deployment, pods = self._deployments.objects.get(_place(revision.key)), self._of(revision.key)
        here = f"the namespace `{revision.key.endpoint.namespace}`"
        if deployment is not None and deployment.refused:
            return Room(0, f"{here}: {deployment.refused}")
        if unschedulable := next((pod.unschedulable for pod in pods if pod.unschedulable), ""):
            return Room(0, f"the cluster: {unschedulable}")
        if lacks := next((pod.lacks for pod in pods if pod.lacks), ""):
            return Room(0, f"{here}: {lacks}; make it there, or let secretRef name another one")
        return Room(None)

    def log_tail(self, pod_id: str, lines: int) -> tuple[str, ...]:
        """The last lines of a pod that failed; of another, or of one long gone, nothing is kept here."""
        return self._logs.kept(pod_id)[-lines:] if lines > 0 else ()

    def prune_logs(self, keep: frozenset[EndpointName], dry_run: bool) -> tuple[tuple[str, ...], int]:  # noqa: ARG002
        """Nothing: logs are the nodes'."""
        return (), 0

    def follow_log(self, revision: RevisionKey, lines: int, follow: bool) -> AsyncIterator[tuple[str, str]]:
        """(pod id, line) of each pod of a revision: its last `lines`, then new ones while `follow`."""
        return self._logs.follow(lambda: [pod.id for pod in self._of(revision)], lines, follow)

    def starts(self) -> Iterator[tuple[str, Start]]:
        """When each pod that is there was asked for, and what it takes; by id."""
        return ((seen.id, Start(seen.created_at_s, seen.takes)) for seen in self._seen())

    def _known(self, seen: SeenPod) -> Known:
        wanted = self._wanted.get(seen.key)
        stopped = seen.leaving if wanted is None else seen.name in wanted.leaving
        return Known(
            cause=self._causes.get(seen.id),
            stopped=stopped or seen.id in self._let_go,
            answered_at_s=self._answered.get(seen.id),
            used=self._usage.of(seen.node, seen.id),
            node_goes=self._nodes is not None and self._nodes.goes(seen.node),
            served_at_s=self._served.get(seen.id),
        )

    def _nodes_of_pods(self) -> set[str]:
        return {pod.node for pod in self._seen() if pod.node}

    def _seen(self) -> Iterator[SeenPod]:
        return (seen for pods in self._pods.values() for seen in pods.values())

    def _not_failed(self) -> Iterator[SeenPod]:
        return (seen for seen in self._seen() if seen.id not in self._causes)

    def _of(self, key: RevisionKey) -> tuple[SeenPod, ...]:
        return tuple(self._pods.get(key, {}).values())

    # what the mirrors tell

    def _pod_changed(self, place: Key) -> None:
        namespace, name = place
        seen = self._pod_mirror.objects.get(place)
        before = self._key_of.get(place)
        if before is not None and (seen is None or seen.key != before):
            del self._key_of[place], self._pods[before][name]
            if not self._pods[before]:
                del self._pods[before]
            self._forget(f"{namespace}/{name}")
            if before in self._wanted:
                self._wanted[before].leaving.discard(name)
                self._wanted[before].replaced.discard(name)
            self._shown.touch(before)
            self._work.add(before)
        if seen is not None:
            self._key_of[place] = seen.key
            self._pods.setdefault(seen.key, {})[name] = seen
            if seen.ready_at_s is not None:
                self._served.setdefault(seen.id, seen.ready_at_s)
            self._look_at(seen)
            self._shown.touch_pod(seen)
            self._work.add(seen.key)
        self.changed.set()

    def _forget(self, pod_id: str) -> None:
        self._causes.pop(pod_id, None)
        self._shown.forget(pod_id)
        self._answered.pop(pod_id, None)
        self._served.pop(pod_id, None)
        self._let_go.discard(pod_id)
        self._hurried.discard(pod_id)
        self._looks.leave(pod_id)
        self._holds.forget(pod_id)

    def _look_at(self, seen: SeenPod) -> None:
        """Ask it ourselves until it answers, or until the kubelet says that it does.

        Only for its start: whether one that served answers again is soon enough known from the kubelet.
        """
        if seen.answers or seen.ended:
            self._answered.pop(seen.id, None)
        waits = seen.runs and seen.active and not (seen.answers or seen.served or seen.ended or seen.leaving)
        if waits and seen.host and seen.ready_path and seen.id not in self._answered:
            self._looks.watch(seen.id, seen.host, seen.port, seen.ready_path)
        elif not waits:
            self._looks.leave(seen.id)

    def _pod_answered(self, pod_id: str) -> None:
        namespace, _, name = pod_id.partition("/")
        self._answered[pod_id] = self._clock.wall_s()
        self._served.setdefault(pod_id, self._answered[pod_id])
        key = self._key_of[namespace, name]
        self._shown.touch(key)
        self._work.add(key)
        self.changed.set()

    def _node_changed(self, node: str) -> None:
        """It is to go, or is not any more."""
        self._touch_node(node)
        self.changed.set()

    def _pod_hangs(self, pod_id: str, cause: str) -> None:
        """It lives, and does nothing: it is replaced as if it had failed. Unless it has gone meanwhile."""
        namespace, _, name = pod_id.partition("/")
        key = self._key_of.get((namespace, name))
        if key is not None:
            self._causes.setdefault(pod_id, cause)
            self._shown.touch(key)
            self.changed.set()

    def _deployment_changed(self, place: Key) -> None:
        deployment = self._deployments.objects.get(place)
        if deployment is None:  # we removed it, or somebody did: what is wanted now is asked for anew
            key = self._made.pop(place, None)
            if key is not None:
                self._wanted.pop(key, None)
                self._shown.touch(key)
        else:
            self._made[place] = deployment.key
            known = self._wanted.get(deployment.key)
            if self._adopted and not (known and known.made):
                self._adopt(deployment, attended=False)
            self._shown.touch(deployment.key)  # whether its pods are refused
            self._work.add(deployment.key)
        self.changed.set()

    def _adopt(self, deployment: SeenDeployment, *, attended: bool) -> None:
        """Know what an earlier control plane wanted: see `counts.wanted_before`."""
        pods = self._of(deployment.key)
        leaving = {pod.name for pod in pods if pod.active and pod.leaving}
        self._wanted[deployment.key] = Wanted(
            pods=counts.wanted_before(deployment.replicas, pods),
            leaving=leaving,
            made=True,
            attended=attended,
            asked_at_s=self._clock.wall_s(),
        )
        self._shown.touch(deployment.key)

    def _is_attended(self, key: RevisionKey) -> bool:
        return key in self._wanted and self._wanted[key].attended

    def _asked(self, key: RevisionKey, now_s: float) -> list[Pod]:
        """Those that the API server does not show yet, as of `now_s` (wall clock)."""
        wanted = self._wanted.get(key)
        if wanted is None:
            return []
        missing = counts.missing(wanted.pods, self._of(key), wanted.leaving)
        deployment = self._deployments.objects.get(_place(key))
        return [
            Pod(
                id=f"{key.endpoint.namespace}/{name_of(key)}{ASKED}{number}",
                revision=key,
                phase=PodPhase.STARTING,
                host="",
                port=template.PORT,
                process_id=0,
                started_at_s=wanted.asked_at_s,
                start_time_s=max(0.0, now_s - wanted.asked_at_s),
                blocked=deployment is not None and bool(deployment.refused),
            )
            for number in range(1, 1 + missing)
        ]

    def _take_back(self, namespace: str, name: str) -> None:
        """One pod less of those that were asked for and are not there yet."""
        deployment, asked, _ = name.partition(ASKED)
        key = self._made.get((namespace, deployment))
        if not asked or key is None:
            return
        wanted = self._wanted.get(key)
        if wanted is not None and counts.missing(wanted.pods, self._of(key), wanted.leaving):
            wanted.pods -= 1
            self._shown.touch(key)
            self._work.add(key)
            self.changed.set()

    # what is written

    async def _create(self, revision: Revision, wanted: Wanted) -> None:
        """Make the Deployment, once.

        Raises Failed if one of that name is not ours, Unreachable if it is of another life.
        """
        key = revision.key
        body = template.deployment(revision, self._images, 1, self._model_cache, self._topology_keys)
        owner = self._owner(key.endpoint)
        if owner is not None:
            body["metadata"]["ownerReferences"] = [owner]
        namespace = key.endpoint.namespace
        wanted.provided = await self._attendants.provide(key.endpoint)  # before the mirror shows it
        try:
            await self._api.create(DEPLOYMENTS.path(namespace), body)
        except Conflict as error:
            found = orjson.loads(await self._api.get(DEPLOYMENTS.path(*_place(key))))
            if ENDPOINT not in (found["metadata"].get("labels") or {}):
                where, hint = f"{namespace}/{name_of(key)}", "rename it, or the endpoint"
                told = "there is a Deployment of that name which is not ours"
                raise Failed(told, where=where, hint=hint) from error
            if (found["metadata"].get("annotations") or {}).get(HASH) != revision.hash:
                only = {"uid": found["metadata"]["uid"]}
                await self._api.delete(DEPLOYMENTS.path(*_place(key)), _BACKGROUND | {"preconditions": only})
                told, hint = "there is a Deployment of another revision; it is removed first", "wait"
                raise Unreachable(told, where=f"{namespace}/{name_of(key)}", hint=hint) from error
        self._made[_place(key)] = key

    async def _ask_again(self) -> None:
        """For pods that are refused: a ReplicaSet that changes is looked at anew; it gets this annotation.

        So what was refused for long, by a quota for example, comes soon after it no longer is. What somebody
        took away of what stands around them is made anew before.
        """
        while True:
            await asyncio.sleep(ASK_AGAIN_EACH_S)
            for place, deployment in list(self._deployments.objects.items()):
                if deployment.refused:
                    asked = {"annotations": {ASKED_AGAIN: f"{self._clock.wall_s():.0f}"}}
                    with contextlib.suppress(TrimtabError):  # in the next round, then
                        if NO_ACCOUNT in deployment.refused:
                            await self._attendants.bind(deployment.key, deployment.uid)
                        await self._api.merge(DEPLOYMENTS.path(*place), {"metadata": asked})

    async def _settle(self, key: RevisionKey) -> None:
        """Write what differs between what is wanted of a revision and what the API server has.

        Raises what went wrong first, Unheld for example, after all else was done.
        """
        pods, wanted = self._of(key), self._wanted.get(key)
        at_once = asyncio.Semaphore(PODS_AT_ONCE)

        async def settle(pod: SeenPod) -> None:
            async with at_once:
                await self._let_go_of(pod)
                if wanted is not None:
                    await self._settle_pod(pod, leaves=pod.name in wanted.leaving)

        work = [settle(pod) for pod in pods]
        if wanted is not None:
            work.append(self._settle_count(key, pods, wanted))
        for told in await asyncio.gather(*work, return_exceptions=True):
            if told is not None:
                raise told

    async def _settle_count(self, key: RevisionKey, pods: tuple[SeenPod, ...], wanted: Wanted) -> None:
        deployment = self._deployments.objects.get(_place(key))
        if deployment is None:
            return
        if not wanted.attended:
            if self._may_wait(wanted):
                self._work.add_after(key, BOUND_AGAIN_S)
            else:
                await self._attendants.bind(key, deployment.uid)
                wanted.attended = True
        pods = await self._without_failed(pods, wanted)
        now_s = self._clock.now_s()
        replicas, rest_s = wanted.lowering.replicas(wanted.pods, pods, wanted.leaving, deployment, now_s)
        if rest_s:
            self._work.add_after(key, rest_s if wanted.attended else min(rest_s, BOUND_AGAIN_S))
        with contextlib.suppress(Conflict):  # it is another one since; the mirror tells of that, and we look
            if replicas != deployment.replicas:
                await self._put_count(deployment, replicas)
            elif replicas == 0 and not pods and wanted.attended:  # else what stands around them would stay
                await self._api.delete(DEPLOYMENTS.path(*_place(key)), _background(deployment))

    def _may_wait(self, wanted: Wanted) -> bool:
        """Whether other Deployments come first: of many at once each has pods before any is bound.

        It takes three requests, and what its pods must not be without is there already, and stays.
        """
        now_s = self._clock.now_s()
        if wanted.bound_by_s is None:
            wanted.bound_by_s = now_s + BOUND_WITHIN_S
        others = self._making > 0 and now_s < wanted.bound_by_s
        return others and wanted.provided and wanted.pods > 0

    async def _without_failed(self, pods: tuple[SeenPod, ...], wanted: Wanted) -> tuple[SeenPod, ...]:
        """Of those that failed before they served as many end at once as others are wanted; the rest is left.

        Their ReplicaSet makes the others in their place. By the count they would stay until those have
        started, and keep the room from them.
        """
        left = tuple(pod for pod in pods if pod.name not in wanted.replaced)
        failed = [pod for pod in left if pod.id in self._causes and pod.active and not pod.served]
        failed = [pod for pod in failed if pod.name in wanted.leaving]
        for pod in failed[: counts.missing(wanted.pods, left, wanted.leaving)]:
            await self._hurry(pod)
            wanted.replaced.add(pod.name)
        return tuple(pod for pod in left if pod.name not in wanted.replaced)

    async def _put_count(self, seen: SeenDeployment, replicas: int) -> None:
        """Raises Conflict if it is another one since: while pods start its status is, all the time."""
        path = DEPLOYMENTS.path(*_place(seen.key))
        try:
            await self._api.apply(path, _count(seen, replicas))
        except Conflict:
            now = read_deployment(orjson.loads(await self._api.get(path)))
            if (now.uid, now.replicas) != (seen.uid, seen.replicas):
                raise
            await self._api.apply(path, _count(now, replicas))

    async def _let_go_of(self, pod: SeenPod) -> None:
        """A pod that is taken away serves on until it was told to end; no other need wait."""
        serves = not pod.leaving and (pod.answers or pod.gate or pod.id in self._answered)
        if pod.deleting and (not serves or pod.id in self._let_go):
            try:
                if pod.runs:
                    await self._holds.let_go(pod)
            finally:  # also where what holds it cannot be told, as when it has ended before the server
                await self._hurry(pod)

    async def _hurry(self, pod: SeenPod) -> None:
        """One that never served need not have as long as others have to get empty.

        Its server may have missed the signal to end: the first process of a container does, until it asks for
        it. Else it would keep its place for all the time for which a pod may be held. So it would where that
        has not begun: the kubelet ends the container beside it only then, and there is nobody to wait for.
        """
        if not pod.served and pod.id not in self._hurried:
            path = PODS.path(pod.key.endpoint.namespace, pod.name)
            grace_s = template.TERM_GRACE_S if pod.runs else NOT_BEGUN_GRACE_S
            await self._api.delete(path, {"gracePeriodSeconds": grace_s})
            self._hurried.add(pod.id)

    async def _settle_pod(self, pod: SeenPod, *, leaves: bool) -> None:
        path = PODS.path(pod.key.endpoint.namespace, pod.name)
        if pod.ended and pod.id not in self._causes and not pod.deleting:
            restarted = pod.restarts > 0 and pod.ended.container == template.CONTAINER
            lines = await self._logs.keep(pod.id, previous=restarted, container=pod.ended.container)
            self._causes[pod.id] = cause_of(pod.ended, lines)
            self._shown.touch(pod.key)
            self.changed.set()
        if not pod.active:
            return
        serves, version = not leaves and (pod.answers or pod.gate or pod.id in self._answered), pod.version
        # Another one since, or none: the mirror tells of that, and we look again.
        with contextlib.suppress(Conflict, NotFound):
            if leaves != pod.leaving:
                annotations = {COST: COST_OF_LEAVING if leaves else None}
                marked = {"metadata": {"resourceVersion": version, "annotations": annotations}}
                version = orjson.loads(await self._api.merge(path, marked))["metadata"]["resourceVersion"]
            if pod.gate != serves:
                if serves:
                    await self._holds.serves(pod)
                gate = _gate(version, self._clock.wall_s(), serves=serves)
                await self._api.merge(f"{path}/status", gate)


def mirror_of_pods(api: Api, namespace: str) -> Mirror[SeenPod]:
    """Those of all endpoints there; of all namespaces if empty. Nothing is done about them by itself.

    Followed ahead, by who waits for its turn to lead, it saves the seconds that listing thousands takes.
    """
    return Mirror(api, _ours(PODS, namespace), read_pod)


def _ours(resource: Resource, namespace: str) -> Selection:
    return Selection(resource, f"{ENDPOINT},{REVISION}", namespace)


@contextlib.asynccontextmanager
async def _in_time(place: Key) -> AsyncIterator[None]:
    """Raises Unreachable if that takes longer than ANSWER_WITHIN_S."""
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            yield
    except TimeoutError as error:
        told = f"the API server has not answered within {ANSWER_WITHIN_S:g} s"
        hint = "see whether it runs: `kubectl get --raw /readyz`; it is asked again by itself"
        raise Unreachable(told, where="/".join(place), hint=hint) from error


def _place(key: RevisionKey) -> Key:
    return key.endpoint.namespace, name_of(key)


def _count(deployment: SeenDeployment, replicas: int) -> Json:
    """Only of this very object as it was seen.

    One that was deleted meanwhile is not made again from its count alone, and who decided long ago, stopped
    since by whatever, takes back nothing of what another control plane wrote.
    """
    namespace, name = _place(deployment.key)
    return {
        "apiVersion": DEPLOYMENTS.version,
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, **_precondition(deployment)},
        "spec": {"replicas": replicas},
    }


def _background(deployment: SeenDeployment) -> Json:
    return _BACKGROUND | {"preconditions": _precondition(deployment)}


def _precondition(deployment: SeenDeployment) -> Json:
    return {"uid": deployment.uid, "resourceVersion": deployment.version}


def _gate(version: str, now_s: float, *, serves: bool) -> Json:
    condition = {
        "type": GATE,
        "status": "True" if serves else "False",
        "reason": "Serving" if serves else "Drained",
        "lastTransitionTime": datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return {"metadata": {"resourceVersion": version}, "status": {"conditions": [condition]}}
