"""Pods on a real Kubernetes, with a small real server in them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from deploy.cluster.place import here
from tests.kube.killing import stopped
from tests.kube.words import DEADLINE_S, HOLD, NAMESPACES, PODS, Make, evict, is_there, read, until
from trimtab.core.clock import SystemClock
from trimtab.core.errors import Failed, InvalidInput, NotFound
from trimtab.core.pod import Pod, PodPhase
from trimtab.core.revision import Revision
from trimtab.core.spec import Resources
from trimtab.fleet.kubernetes import KubernetesFleet, upkeep
from trimtab.fleet.kubernetes import fleet as fleets
from trimtab.fleet.kubernetes.attendants import ACCOUNTS, BUDGETS, POLICIES
from trimtab.fleet.kubernetes.seen import SeenPod
from trimtab.fleet.kubernetes.template import CONTAINER, ENDPOINT, GATE, HOLD_IMAGE
from trimtab.kube import Api, Json, Resource

pytestmark = pytest.mark.kube

DEPLOYMENTS = Resource("apps/v1", "deployments")
MAPS = Resource("v1", "configmaps")
QUOTAS = Resource("v1", "resourcequotas")
CANNOT_LOAD = {"EXIT_AFTER": "100ms", "READY_AFTER": "1h"}  # else it might be seen to serve before it ends


@asynccontextmanager
async def opened(api: Api, namespace: str) -> AsyncIterator[KubernetesFleet]:
    fleet = KubernetesFleet(api, SystemClock(), {HOLD_IMAGE: HOLD}, namespace)
    await fleet.open()
    try:
        yield fleet
    finally:
        await fleet.close()


@pytest.fixture
async def fleet(api: Api, namespace: str) -> AsyncIterator[KubernetesFleet]:
    async with opened(api, namespace) as found:
        yield found


def phases(fleet: KubernetesFleet) -> list[str]:
    return sorted(pod.phase.value for pod in fleet.pods())


async def ready(fleet: KubernetesFleet, count: int) -> list[Pod]:
    """Wait for so many ready pods, and nothing else; oldest first."""
    await until(lambda: phases(fleet) == ["ready"] * count)
    return list(fleet.pods())


async def start(fleet: KubernetesFleet, revision: Revision, count: int) -> list[Pod]:
    for _ in range(count):
        await fleet.start_pod(revision)
    return await ready(fleet, count)


async def test_pods_start_serve_and_end(
    fleet: KubernetesFleet, api: Api, revision: Make, namespace: str
) -> None:
    asked = await fleet.start_pod(revision())
    assert [(pod.id, pod.phase) for pod in fleet.pods()] == [(asked, PodPhase.STARTING)]
    (pod,) = await ready(fleet, 1)
    assert pod.revision == revision().key
    assert pod.host
    assert pod.address == f"{pod.host}:8080"
    assert pod.ready_at_s is not None
    answer = await api.get(PODS.path(namespace, f"{pod.id.partition('/')[2]}:8080", "proxy/invocations"))
    assert answer.decode().strip() == pod.id.partition("/")[2]

    await fleet.stop_pod(pod.id, 5.0)
    assert phases(fleet) == ["stopping"]
    await until(lambda: not fleet.pods())
    await until(lambda: _has_none(api, namespace))


async def test_an_answer_that_comes_after_the_news_ends_no_pod(
    fleet: KubernetesFleet, api: Api, revision: Make, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watch may show a Deployment before we are told that it was made: it is wanted all the same."""
    create, apply = api.create, api.apply
    counts: list[int] = []

    async def late(path: str, body: Json, query: Mapping[str, str] | None = None) -> bytes:
        answer = await create(path, body, query)
        if path == DEPLOYMENTS.path(namespace):
            await until(lambda: fleet._deployments.objects)
            await until(lambda: not fleet._work._queued and not fleet._work._busy)
        return answer

    async def noted(path: str, body: Json) -> bytes:
        counts.append(body["spec"]["replicas"])
        return await apply(path, body)

    monkeypatch.setattr(api, "create", late)
    monkeypatch.setattr(api, "apply", noted)
    await fleet.start_pod(revision())
    await ready(fleet, 1)
    assert counts == [], "it was made with one pod, and that is what is wanted"


async def _has_none(api: Api, namespace: str) -> bool:
    return not (await read(api, DEPLOYMENTS.path(namespace)))["items"]


async def test_the_pod_that_ends_is_the_one_that_was_told_to(fleet: KubernetesFleet, revision: Make) -> None:
    """The oldest: left to itself, a ReplicaSet takes the youngest."""
    first, second, third = await start(fleet, revision(), 3)
    await fleet.stop_pod(first.id, 5.0)
    await until(lambda: len(fleet.pods()) == 2)
    assert {pod.id for pod in fleet.pods()} == {second.id, third.id}
    assert phases(fleet) == ["ready", "ready"]


async def test_a_count_is_not_lowered_before_the_replica_set_has_heard_which_pod_leaves(
    fleet: KubernetesFleet, api: Api, revision: Make, namespace: str
) -> None:
    """Its controller is behind, as on a cluster that lacks processors: it would take one that serves."""
    if os.environ["KUBECONFIG"] != str(here().kubeconfig):
        pytest.skip("the cluster is not ours to break")
    first, second, third = await start(fleet, revision(), 3)
    with stopped("kube-controller-manager", for_s=DEADLINE_S):
        await fleet.stop_pod(first.id, 5.0)
        await until(lambda: _is_unready(api, first))
        await until(lambda: not _seen(fleet, first).ready)
        await until(lambda: not fleet._work._queued and not fleet._work._busy)
        assert (await read(api, DEPLOYMENTS.path(namespace, "iris-r1")))["spec"]["replicas"] == 3
    await until(lambda: len(fleet.pods()) == 2)
    assert {pod.id for pod in fleet.pods()} == {second.id, third.id}
    assert phases(fleet) == ["ready", "ready"]


async def _is_unready(api: Api, pod: Pod) -> bool:
    namespace, _, name = pod.id.partition("/")
    conditions = (await read(api, PODS.path(namespace, name)))["status"]["conditions"]
    return any(each["type"] == "Ready" and each["status"] == "False" for each in conditions)


def _seen(fleet: KubernetesFleet, pod: Pod) -> SeenPod:
    return next(seen for seen in fleet._seen() if seen.id == pod.id)


async def test_no_pod_ends_while_another_one_starts(
    fleet: KubernetesFleet, api: Api, revision: Make, namespace: str
) -> None:
    """A ReplicaSet that has too many takes what is still starting."""
    slow = revision(READY_AFTER="4s")
    (first,) = await start(fleet, slow, 1)
    await fleet.start_pod(slow)
    await until(lambda: len([pod for pod in fleet.pods() if pod.host]) == 2)
    (second,) = [pod for pod in fleet.pods() if pod.id != first.id]
    await fleet.stop_pod(first.id, 5.0)
    await until(lambda: _is_marked(api, first))
    assert (await read(api, DEPLOYMENTS.path(namespace, "iris-r1")))["spec"]["replicas"] == 2
    await until(lambda: [pod.id for pod in fleet.pods()] == [second.id])
    (left,) = await ready(fleet, 1)
    assert left.id == second.id


async def _is_marked(api: Api, pod: Pod) -> bool:
    namespace, _, name = pod.id.partition("/")
    status = (await read(api, PODS.path(namespace, name)))["status"]
    gate = next(each for each in status["conditions"] if each["type"] == GATE)
    return bool(gate["status"] == "False")


async def test_a_pod_that_is_still_starting_can_be_taken_back(
    fleet: KubernetesFleet, api: Api, revision: Make
) -> None:
    never = revision(READY_AFTER="1h")
    await fleet.start_pod(never)
    asked = await fleet.start_pod(never)
    await fleet.stop_pod(asked, 5.0)
    await until(lambda: [pod.host != "" for pod in fleet.pods()] == [True])
    (pod,) = fleet.pods()
    await until(lambda: _listens(api, pod))  # one that has just been made, as process 1, misses a SIGTERM
    await fleet.stop_pod(pod.id, 5.0)
    await until(lambda: not fleet.pods())


async def _listens(api: Api, pod: Pod) -> bool:
    namespace, _, name = pod.id.partition("/")
    try:
        said = await api.get(PODS.path(namespace, name, "log"), {"container": CONTAINER}, "text/plain, */*")
    except InvalidInput:  # its container is not there yet
        return False
    return b"listening" in said


async def test_a_pod_that_starts_and_was_to_leave_stays_if_one_is_wanted_again(
    fleet: KubernetesFleet, revision: Make
) -> None:
    """Else there would be one more each time that the number goes down and up while pods start."""
    model = revision(READY_AFTER="6s")
    await fleet.start_pod(model)
    await fleet.start_pod(model)
    await until(lambda: sum(bool(pod.host) for pod in fleet.pods()) == 2)
    names = {pod.id for pod in fleet.pods()}
    for _ in range(3):
        *_, last = fleet.pods()
        await fleet.stop_pod(last.id, 0.0)
        await until(lambda: phases(fleet) == ["starting", "stopping"])
        assert await fleet.start_pod(model) == last.id
        assert phases(fleet) == ["starting", "starting"]
    assert {pod.id for pod in await ready(fleet, 2)} == names


async def test_whoever_opens_a_fleet_later_finds_all_of_it(api: Api, revision: Make, namespace: str) -> None:
    async with opened(api, namespace) as earlier:
        before = await start(earlier, revision(), 2)
        await earlier.start_pod(revision(2))
        await until(lambda: len(earlier.pods()) == 3)
    async with opened(api, namespace) as fleet:
        pods = await ready(fleet, 3)
        assert {pod.id for pod in before} < {pod.id for pod in pods}
        assert pods[0].id == before[0].id
        await fleet.stop_pod(before[0].id, 5.0)
        await until(lambda: before[0].id not in {pod.id for pod in fleet.pods()})
        assert {pod.id for pod in fleet.pods()} == {pod.id for pod in pods[1:]}
        assert phases(fleet) == ["ready"] * 2


async def test_what_was_leaving_when_a_control_plane_was_killed_leaves(
    api: Api, revision: Make, namespace: str
) -> None:
    slow = revision(READY_AFTER="4s")
    async with opened(api, namespace) as earlier:
        (first,) = await start(earlier, slow, 1)
        await earlier.start_pod(slow)
        await until(lambda: len([pod for pod in earlier.pods() if pod.host]) == 2)
        await earlier.stop_pod(first.id, 5.0)
        await until(lambda: _is_marked(api, first))
    async with opened(api, namespace) as fleet:
        assert {pod.id: pod.phase for pod in fleet.pods()}[first.id] is PodPhase.STOPPING
        (left,) = await ready(fleet, 1)
        assert left.id != first.id


async def test_a_pod_that_ends_by_itself_tells_why(fleet: KubernetesFleet, revision: Make) -> None:
    await fleet.start_pod(revision(**CANNOT_LOAD))
    await until(lambda: phases(fleet) == ["failed"])
    (pod,) = fleet.pods()
    assert pod.exit_status == 3
    assert "exit status 3" in pod.cause
    assert "the model cannot be loaded: no such file" in pod.cause
    assert fleet.log_tail(pod.id, 1) == ("the model cannot be loaded: no such file",)
    await fleet.forget_pod(pod.id)
    await until(lambda: not fleet.pods())


@pytest.mark.parametrize("wrong", [CANNOT_LOAD, {"image": "localhost/none:1"}])
async def test_a_pod_that_failed_is_not_the_next_one(
    fleet: KubernetesFleet, revision: Make, wrong: dict[str, str]
) -> None:
    """Though it is to leave and has never served, as one that may be called back: it has failed."""
    await fleet.start_pod(revision(**wrong))
    await until(lambda: phases(fleet) == ["failed"], within_s=2 * DEADLINE_S)
    (first,) = fleet.pods()
    await fleet.forget_pod(first.id)
    assert await fleet.start_pod(revision(**wrong)) != first.id
    await until(lambda: any(pod.host and pod.id != first.id for pod in fleet.pods()))
    await until(
        lambda: first.id not in {pod.id for pod in fleet.pods()}
    )  # it keeps no room from the next one


async def test_an_image_that_cannot_be_had_is_told(fleet: KubernetesFleet, revision: Make) -> None:
    await fleet.start_pod(revision(image="localhost/none:1"))
    await until(lambda: phases(fleet) == ["failed"], within_s=2 * DEADLINE_S)
    (pod,) = fleet.pods()
    assert "its image cannot be had" in pod.cause
    assert "localhost/none:1" in pod.cause


async def test_no_room_says_why(fleet: KubernetesFleet, revision: Make) -> None:
    large = revision()
    large = replace(large, model=replace(large.model, resources=Resources(cpu=1000)))
    assert fleet.room(large).pods is None
    await fleet.start_pod(large)
    await until(lambda: fleet.room(large).pods == 0)
    assert "nsufficient cpu" in fleet.room(large).why


async def test_a_quota_says_why(fleet: KubernetesFleet, api: Api, revision: Make, namespace: str) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "pods"}}
    await api.create(QUOTAS.path(namespace), quota | {"spec": {"hard": {"pods": "1"}}})
    await until(lambda: _quota_is_known(api, namespace))
    await start(fleet, revision(), 1)
    await fleet.start_pod(revision())
    await until(lambda: fleet.room(revision()).pods == 0)
    assert "exceeded quota" in fleet.room(revision()).why
    assert "raise the ResourceQuota `pods`" in fleet.room(revision()).why
    assert phases(fleet) == ["ready", "starting"]


async def test_a_quota_that_wants_limits_says_which(
    fleet: KubernetesFleet, api: Api, revision: Make, namespace: str
) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "pods"}}
    await api.create(QUOTAS.path(namespace), quota | {"spec": {"hard": {"limits.memory": "1Gi"}}})
    await until(lambda: _quota_is_known(api, namespace))
    unlimited = revision()
    unlimited = replace(unlimited, model=replace(unlimited.model, resources=Resources(cpu=0.1)))
    await fleet.start_pod(unlimited)
    await until(lambda: fleet.room(unlimited).pods == 0)
    assert "must specify limits.memory" in fleet.room(unlimited).why
    assert "set resources.memory" in fleet.room(unlimited).why


async def test_a_namespace_that_is_being_deleted_is_told(
    fleet: KubernetesFleet, api: Api, revision: Make, namespace: str
) -> None:
    held = {"apiVersion": "v1", "kind": "ConfigMap"}
    await api.create(
        MAPS.path(namespace), held | {"metadata": {"name": "m", "finalizers": ["test.dev/held"]}}
    )
    await api.delete(NAMESPACES.path(name=namespace))
    with pytest.raises(Failed, match="is being terminated") as told:
        await fleet.start_pod(revision())
    assert "use another one" in told.value.hint
    await api.merge(MAPS.path(namespace, "m"), {"metadata": {"finalizers": None}})


async def _quota_is_known(api: Api, namespace: str) -> bool:
    return "used" in (await read(api, QUOTAS.path(namespace, "pods"))).get("status", {})


async def test_a_count_that_somebody_set_is_set_back(
    fleet: KubernetesFleet, api: Api, revision: Make, namespace: str
) -> None:
    await start(fleet, revision(), 1)
    path = DEPLOYMENTS.path(namespace, "iris-r1")
    await api.merge(path, {"spec": {"replicas": 3}})
    await until(lambda: _has_replicas(api, path, 1))
    await ready(fleet, 1)


async def _has_replicas(api: Api, path: str, count: int) -> bool:
    body = await read(api, path)
    return bool(body["spec"]["replicas"] == count and body["metadata"]["generation"] >= 3)


async def test_a_deployment_that_somebody_deleted_can_be_made_again(
    fleet: KubernetesFleet, api: Api, revision: Make, namespace: str
) -> None:
    await start(fleet, revision(), 1)
    await api.delete(DEPLOYMENTS.path(namespace, "iris-r1"))
    await until(
        lambda: [pod.evicted for pod in fleet.pods()] == [True]
    )  # it serves on until it is told to end
    await fleet.stop_pod(fleet.pods()[0].id, 5.0)
    await until(lambda: not fleet.pods())
    await start(fleet, revision(), 1)


async def test_a_deployment_of_somebody_else_is_left_alone(
    fleet: KubernetesFleet, api: Api, revision: Make, namespace: str
) -> None:
    labels = {"app": "theirs"}
    theirs = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "iris-r1"},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "a", "image": "a"}]},
            },
        },
    }
    await api.create(DEPLOYMENTS.path(namespace), theirs)
    with pytest.raises(Failed, match="not ours"):
        await fleet.start_pod(revision())
    assert fleet.pods() == ()
    assert (await read(api, DEPLOYMENTS.path(namespace, "iris-r1")))["spec"]["replicas"] == 0


async def test_a_template_stays_as_it_was_made(
    fleet: KubernetesFleet, api: Api, revision: Make, namespace: str
) -> None:
    """What others have set of a Deployment stays, and a count that is written rolls no pod."""
    (first,) = await start(fleet, revision(), 1)
    path = DEPLOYMENTS.path(namespace, "iris-r1")
    await api.merge(path, {"metadata": {"labels": {"team": "a"}}})
    pods = await start_more(fleet, revision(READY_AFTER="1s"))
    assert first.id in {pod.id for pod in pods}
    body = await read(api, path)
    assert body["metadata"]["labels"]["team"] == "a"
    assert (
        body["spec"]["template"]["spec"]["containers"][0]["env"]
        == (await read(api, PODS.path(namespace, first.id.partition("/")[2])))["spec"]["containers"][0]["env"]
    )


async def start_more(fleet: KubernetesFleet, revision: Revision) -> list[Pod]:
    await fleet.start_pod(revision)
    return await ready(fleet, 2)


async def test_a_pod_is_ready_for_us_before_the_kubelet_has_said_so(
    inside: Api, revision: Make, namespace: str
) -> None:
    async with opened(inside, namespace) as fleet:
        for _ in range(3):
            await fleet.start_pod(revision(READY_AFTER="1500ms"))
        earlier: set[str] = set()

        def all_ready() -> bool:
            earlier.update(pod.id for pod in fleet._seen() if pod.id in fleet._answered and not pod.answers)
            return phases(fleet) == ["ready"] * 3

        await until(all_ready)
        assert earlier, "for at least one of three"
        await until(lambda: all(pod.answers and pod.gate for pod in fleet._seen()))
        assert phases(fleet) == ["ready"] * 3
        assert not fleet._answered, "from then on the kubelet's word counts"


async def test_what_stands_around_pods_comes_with_them_and_goes_with_the_last(
    fleet: KubernetesFleet, api: Api, revision: Make, namespace: str
) -> None:
    first, _ = await start(fleet, revision(), 2)
    newer = await start_of(fleet, revision(2))
    account = await read(api, ACCOUNTS.path(namespace, "trimtab-iris"))
    assert account["automountServiceAccountToken"] is False
    assert len(account["metadata"]["ownerReferences"]) == 2
    policy = (await read(api, POLICIES.path(namespace, "trimtab-iris")))["spec"]
    assert policy["podSelector"]["matchLabels"] == {ENDPOINT: "iris"}
    ((who,), ports) = (policy["ingress"][0][part] for part in ("from", "ports"))
    assert who["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "trimtab"}
    assert [each["port"] for each in ports] == [8080, 8081, 8082, 8083, "http"]
    await until(lambda: _allows(api, namespace, "iris-r1", 1))
    await evict(api, first.id)
    await until(lambda: _allows(api, namespace, "iris-r1", 0))

    await fleet.stop_pod(first.id, 5.0)
    await until(lambda: len(fleet.pods()) == 3)
    for pod in fleet.pods():
        if pod.id != newer.id:
            await fleet.stop_pod(pod.id, 5.0)
    await until(lambda: [pod.id for pod in fleet.pods()] == [newer.id])
    await until(lambda: _is_gone(api, BUDGETS.path(namespace, "iris-r1")))
    assert not await _is_gone(api, POLICIES.path(namespace, "trimtab-iris")), (
        "the other revision has it still"
    )
    await fleet.stop_pod(newer.id, 5.0)
    await until(lambda: _is_gone(api, BUDGETS.path(namespace, "iris-r2")))
    await until(lambda: _is_gone(api, POLICIES.path(namespace, "trimtab-iris")))
    await until(lambda: _is_gone(api, ACCOUNTS.path(namespace, "trimtab-iris")))


async def test_a_service_account_or_policy_that_somebody_deleted_is_there_again_once_a_pod_needs_it(
    fleet: KubernetesFleet,
    api: Api,
    revision: Make,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fleets, "ASK_AGAIN_EACH_S", 1.0)
    await start(fleet, revision(), 1)
    await until(lambda: _owners(api, POLICIES.path(namespace, "trimtab-iris")))
    for resource in (ACCOUNTS, POLICIES):
        await api.delete(resource.path(namespace, "trimtab-iris"))
    await fleet.start_pod(revision())
    await until(lambda: fleet.room(revision()).pods == 0)
    assert 'serviceaccount "trimtab-iris" not found; somebody took it away' in fleet.room(revision()).why
    await ready(fleet, 2)
    for resource in (ACCOUNTS, POLICIES):
        assert await _owners(api, resource.path(namespace, "trimtab-iris")) == 1


async def test_what_somebody_changes_or_takes_away_around_pods_is_there_again_by_itself(
    api: Api, revision: Make, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No pod is refused, started or replaced meanwhile. What people add stays."""
    monkeypatch.setattr(upkeep, "LOOK_EACH_S", 0.5)
    around = [(ACCOUNTS, "trimtab-iris"), (POLICIES, "trimtab-iris"), (BUDGETS, "iris-r1")]
    paths = [resource.path(namespace, name) for resource, name in around]
    async with opened(api, namespace) as fleet:
        (pod,) = await start(fleet, revision(), 1)
        await until(lambda: _owned(api, paths))
        account, policy, budget = paths
        meant = [(await read(api, path)).get("spec") for path in paths]

        theirs = {
            "metadata": {"annotations": {"team/owner": "ann"}, "ownerReferences": [{"$patch": "replace"}]}
        }
        anybody = {"podSelector": {"matchLabels": {"no": "pod"}}, "ingress": [{}], "egress": [{}]}
        await api.merge(account, theirs)
        await api.merge(policy, theirs | {"spec": anybody})
        await api.merge(budget, theirs | {"spec": {"maxUnavailable": None, "minAvailable": 1}})

        async def as_before() -> bool:
            return [(await read(api, path)).get("spec") for path in paths] == meant

        await until(as_before)
        await until(lambda: _owned(api, paths))
        for path in paths:
            assert (await read(api, path))["metadata"]["annotations"]["team/owner"] == "ann"

        for path in paths:
            await api.delete(path)
        await until(lambda: _owned(api, paths))
        assert await as_before()
        versions = [(await read(api, path))["metadata"]["resourceVersion"] for path in (account, policy)]
        looks = fleet._upkeep._looks
        await until(lambda: fleet._upkeep._looks >= looks + 3)
        again = [(await read(api, path))["metadata"]["resourceVersion"] for path in (account, policy)]
        assert again == versions, "what is as it should be is not written"
        assert [each.id for each in fleet.pods()] == [pod.id]


async def _owned(api: Api, paths: list[str]) -> bool:
    try:
        return all([await _owners(api, path) == 1 for path in paths])
    except NotFound:
        return False


async def _owners(api: Api, path: str) -> int:
    return len((await read(api, path))["metadata"].get("ownerReferences") or ())


async def start_of(fleet: KubernetesFleet, revision: Revision) -> Pod:
    await fleet.start_pod(revision)

    def found() -> list[Pod]:
        return [pod for pod in fleet.pods() if pod.revision == revision.key and pod.phase is PodPhase.READY]

    await until(found)
    return found()[0]


async def _allows(api: Api, namespace: str, budget: str, pods: int) -> bool:
    status = (await read(api, BUDGETS.path(namespace, budget))).get("status", {})
    return bool(status.get("disruptionsAllowed") == pods and status.get("expectedPods") == 2)


async def _is_gone(api: Api, path: str) -> bool:
    return not await is_there(api, path)


async def test_images_are_pulled_by_secrets_of_the_pods_own_namespace(
    api: Api, revision: Make, namespace: str
) -> None:
    """Those that are named; one that is not there is no error."""
    images = {HOLD_IMAGE: HOLD}
    fleet = KubernetesFleet(api, SystemClock(), images, namespace, pull_secrets=("registry", "another"))
    await fleet.open()
    try:
        (pod,) = await start(fleet, revision(), 1)
        spec = (await read(api, PODS.path(namespace, pod.id.partition("/")[2])))["spec"]
        assert spec["imagePullSecrets"] == [{"name": "registry"}, {"name": "another"}]
    finally:
        await fleet.close()


async def test_a_budget_that_somebody_deleted_is_there_again_with_the_next_control_plane(
    api: Api, revision: Make, namespace: str
) -> None:
    """As after one that was killed before it had made all of it."""
    path = BUDGETS.path(namespace, "iris-r1")
    async with opened(api, namespace) as earlier:
        await start(earlier, revision(), 1)
        await until(lambda: _allows_any(api, path))
        await api.delete(path)
    async with opened(api, namespace):
        await until(lambda: _allows_any(api, path))


async def _allows_any(api: Api, path: str) -> bool:
    return not await _is_gone(api, path)


async def test_cpu_and_memory_come_from_the_kubelet(fleet: KubernetesFleet, revision: Make) -> None:
    await start(fleet, revision(), 1)
    await until(lambda: fleet.pods()[0].cpu_seconds is not None, within_s=2 * DEADLINE_S)
    (pod,) = fleet.pods()
    assert 0 < (pod.cpu_seconds or 0) < 10
    assert 100_000 < (pod.memory_bytes or 0) <= 32 << 20
    assert abs((pod.measured_at_s or 0) - SystemClock().now_s()) < DEADLINE_S


async def test_lines_of_all_pods_and_of_those_that_join(fleet: KubernetesFleet, revision: Make) -> None:
    await start(fleet, revision(), 2)
    told = {pod_id: line async for pod_id, line in fleet.follow_log(revision().key, 10, follow=False)}
    assert told == {pod.id: "listening on :8080" for pod in fleet.pods()}

    followed = fleet.follow_log(revision().key, 10, follow=True)
    seen = [(await anext(followed))[0] for _ in range(2)]
    await fleet.start_pod(revision())
    async with asyncio.timeout(DEADLINE_S):
        joined, line = await anext(followed)
    assert joined not in seen
    assert line == "listening on :8080"
    await followed.aclose()  # type: ignore[attr-defined]
