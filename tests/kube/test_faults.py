"""What goes wrong in a cluster, under calls through the Envoys of the chart: one release, three pods."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from deploy.cluster import lifecycle
from deploy.cluster.place import here
from tests.kube.killing import kill_container, killed, paused, processes_of
from tests.kube.release import (
    DEPLOYMENTS,
    ENOUGH,
    WITHIN_S,
    Installed,
    ask,
    calling,
    control_planes,
    envoys,
    holder,
    installation,
    leader,
    left,
    names,
    one_by_one,
    pods_of,
    serves,
)
from tests.kube.words import ENDPOINTS, PODS, condition, endpoint, evict, read, until
from trimtab.core.errors import NotFound, Unreachable
from trimtab.fleet.kubernetes.template import COST, COST_OF_LEAVING, ENDPOINT, GATE
from trimtab.kube import Api, Json
from trimtab.kube.lease import LEASE_S
from trimtab.xds.routes import RETRIES_MAX

pytestmark = [pytest.mark.kube, pytest.mark.timeout(900)]

AT_ONCE = 4
AWAY_S = 120.0
DRAIN = (
    "--pod-selector=!app",
    "--force",
    "--ignore-daemonsets",
    "--delete-emptydir-data",
    "--timeout=170s",
)  # other tests' servers stay

MOST = 64
EVERYTHING = "everything"  # what a request asks for that takes more memory than there is


@dataclass(frozen=True)
class Served:
    """`iris`, of three pods, behind the Envoys of a release."""

    release: Installed
    url: str
    image: str

    async def apply(self, pods: int, least: int = MOST) -> None:
        """With `least` of MOST all `pods` are needed at all times, whatever limit is learned of one."""
        body = endpoint(self.release.namespace, "iris", one_by_one(self.image, least, MOST, pods))
        await self.release.api.apply(ENDPOINTS.path(self.release.namespace, "iris"), body, "kubectl")

    async def has(self, pods: int) -> None:
        """Wait until so many are ready, and none leaves."""
        await until(lambda: serves(self.release, "iris", pods), WITHIN_S)

    async def kill(self, pod: str, container: str) -> None:
        """SIGKILL. The pod stays, and the kubelet starts its container again."""
        await kill_container(self.release.api, self.release.namespace, pod, container)


@pytest.fixture(scope="module")
def namespace_of_release(our_images: dict[str, str]) -> Iterator[str]:
    with installation(our_images, controlPlane__env__TRIMTAB_DOWN_WINDOW_S="3.0") as namespace:
        yield namespace


@pytest.fixture
async def served(namespace_of_release: str, our_images: dict[str, str], image: str, api: Api) -> Served:
    """As it should be, whatever the test before left behind."""
    release = Installed(api, namespace_of_release, our_images)
    await leader(release)
    await until(lambda: two_envoys(release), WITHIN_S)
    found = Served(release, await release.url("iris"), image)
    await found.apply(pods=3)
    await found.has(pods=3)
    return found


async def two_envoys(release: Installed) -> bool:
    return len(await envoys(release, ready=True)) == 2


async def test_scaling_goes_on_after_the_leading_control_plane_was_killed(served: Served) -> None:
    before = await everything_that_runs(served.release)
    with calling(served.url, AT_ONCE) as told:
        led = await leader(served.release)
        await served.kill(led, "control-plane")
        began_s = time.monotonic()
        await served.apply(pods=4)
        await until(lambda: has_at_least(served.release, 4), WITHIN_S)
        print(f"\ndecisions went on {time.monotonic() - began_s:.1f} s after the leader was killed")  # noqa: T201
        await served.has(pods=4)
        assert await leader(served.release) != led
    assert told.statuses.keys() == {"200"}, told.statuses
    del before[led]
    assert not await restarts(served.release, before), "nothing else was restarted"


async def test_scaling_goes_on_after_all_control_planes_were_killed(served: Served) -> None:
    before = await everything_that_runs(served.release)
    planes = await control_planes(served.release)
    with calling(served.url, AT_ONCE) as told:
        for each in planes:
            await served.kill(each, "control-plane")
        await served.apply(pods=4)
        await served.has(pods=4)
        await leader(served.release)
    assert told.statuses.keys() == {"200"}, told.statuses
    others = {name: ends for name, ends in before.items() if name not in planes}
    assert not await restarts(served.release, others), "nothing else was restarted"


async def test_of_an_envoy_that_is_killed_only_its_own_requests_fail(served: Served) -> None:
    before = await pods_of(served.release, "iris")
    with calling(served.url, AT_ONCE) as told:
        (gone_at_once, *_) = sorted(await envoys(served.release))
        await served.kill(gone_at_once, "envoy")
        await until(lambda: restarted(served.release, gone_at_once), WITHIN_S)
        await until(lambda: two_envoys(served.release), WITHIN_S)
    told.statuses.pop("ClientConnectorError", None)  # no request was sent: the Service did not know yet
    assert told.failed <= AT_ONCE, told.statuses
    assert told.statuses["200"] >= ENOUGH
    assert await pods_of(served.release, "iris") == before


async def test_a_model_pod_that_is_killed_fails_no_request(served: Served) -> None:
    (gone_at_once, *others) = sorted(await pods_of(served.release, "iris"))
    with calling(served.url, AT_ONCE) as told:
        await served.kill(gone_at_once, "model")
        await until(lambda: restarted(served.release, gone_at_once), WITHIN_S)
        await served.has(pods=3)
    assert told.statuses.keys() == {"200"}, told.statuses
    assert set(others) <= await pods_of(served.release, "iris")


async def test_of_a_pod_that_is_killed_for_its_memory_only_its_own_requests_fail(served: Served) -> None:
    """One request takes more memory than a pod has, wherever it is tried: of eight at most four die of it."""
    release, spec = served.release, one_by_one(served.image, MOST, MOST, 8, ALLOCATE_ON=EVERYTHING)
    path = ENDPOINTS.path(release.namespace, "hungry")
    await release.api.apply(path, endpoint(release.namespace, "hungry", spec), "kubectl")
    await until(lambda: serves(release, "hungry", 8), WITHIN_S)
    url, before = await release.url("hungry"), await pods_of(release, "hungry")
    with calling(url, AT_ONCE) as told, calling(served.url, AT_ONCE) as others:
        status, _ = await asyncio.to_thread(ask, url, f'{{"inputs": "{EVERYTHING}"}}')
        assert status == "503"
        await until(lambda: says(release, "hungry", "raise resources.memory"))
        await until(lambda: serves(release, "hungry", 8), WITHIN_S)
        killed = before - await pods_of(release, "hungry")
    print(f"\n{len(killed)} of {len(before)} pods were killed; {told.statuses}")  # noqa: T201
    assert 1 <= len(killed) <= 1 + RETRIES_MAX, killed
    assert told.failed <= AT_ONCE, told.statuses
    assert told.statuses["200"] >= ENOUGH
    assert others.statuses.keys() == {"200"}, others.statuses
    await release.api.delete(path)
    await until(lambda: left(release, ("iris",)), WITHIN_S)


async def says(release: Installed, name: str, words: str) -> bool:
    """Its status tells that something is amiss, and these words."""
    told = await condition(release.api, release.namespace, name, "Degraded")
    return told["status"] == "True" and words in told["message"]


async def restarted(release: Installed, pod: str) -> bool:
    """A container of it has ended once, or the pod has gone for it."""
    return all(
        any(container["restartCount"] for container in each["status"].get("containerStatuses") or ())
        for each in await release.pods("")
        if each["metadata"]["name"] == pod
    )


async def test_while_the_api_server_is_away_for_two_minutes_nothing_changes_and_then_scaling_goes_on(
    served: Served,
) -> None:
    before = await everything_that_runs(served.release)
    with calling(served.url, AT_ONCE) as told:
        # what loses its own lease ends, and counts from its return how long nodes have been silent
        with killed("kube-apiserver", 2 * AWAY_S), killed("kube-controller-manager", 2 * AWAY_S):
            await asyncio.sleep(AWAY_S)
        await until(lambda: answers(served.release), WITHIN_S)
        await served.apply(pods=4)
        await served.has(pods=4)
    assert told.statuses.keys() == {"200"}, told.statuses
    assert not await restarts(served.release, before), "nothing was restarted"


async def answers(release: Installed) -> bool:
    """Whether the API server is there with all that we ask it for: it answers before it is."""
    with contextlib.suppress(NotFound, Unreachable):
        await release.api.get("/readyz")
        await release.has_no_endpoint()
        return bool(await release.pods(""))
    return False


async def restarts(release: Installed, before: dict[str, int]) -> dict[str, str]:
    """Of pods that are not as they were: how often containers have ended by now, and what they said then."""
    after = await everything_that_runs(release)
    found = {}
    for pod, ends in before.items():
        if after.get(pod) != ends:
            found[pod] = f"ended {after.get(pod)} times, before {ends}: {await last_words(release, pod)}"
    return found


async def last_words(release: Installed, pod: str) -> str:
    """Of each container of it that has ended."""
    said = []
    path = PODS.path(release.namespace, pod)
    with contextlib.suppress(NotFound):
        for each in (await read(release.api, path))["status"]["containerStatuses"]:
            if each["restartCount"]:
                asked = {"container": each["name"], "previous": "true", "tailLines": "20"}
                log = await release.api.get(f"{path}/log", asked, accept="text/plain, */*")
                said.append(f"{each['name']}: {each['lastState']}\n{log.decode()}")
    return "\n".join(said) or "it has gone"


async def everything_that_runs(release: Installed) -> dict[str, int]:
    """Each pod, and how often its containers ended."""
    return {
        pod["metadata"]["name"]: sum(each["restartCount"] for each in pod["status"]["containerStatuses"])
        for pod in await release.pods("")
    }


async def test_nothing_that_a_paused_leader_has_under_way_takes_effect_after_it_wakes(
    served: Served,
) -> None:
    """It is stopped for longer than its lease lasts, about to lower a count; another leads and raises it.

    The kubelet does not end it meanwhile: it is asked for nothing but whether it takes connections.
    """
    release = served.release
    led, before = await leader(release), await everything_that_runs(release)
    models = await pods_of(release, "iris")
    processes = await processes_of(release.api, release.namespace, led, "control-plane")
    with calling(served.url, AT_ONCE) as told:
        await served.apply(pods=2)
        await until(lambda: one_is_marked(release))  # the count follows a second later at the soonest
        with paused(processes, 2 * WITHIN_S):
            began_s = time.monotonic()
            assert await asked_for(release) == 3, "or nothing is under way"
            await served.apply(pods=5)
            await until(lambda: another_leads(release, led), WITHIN_S)
            await served.has(pods=5)
            assert time.monotonic() - began_s > LEASE_S
            there = await decided(release)
        await until(lambda: ended_again(release, led, before[led], there), WITHIN_S)
        assert await leader(release) != led
        assert await decided(release) == there
    assert told.statuses.keys() == {"200"}, told.statuses
    ended = await restarts(release, before)
    assert "is held by" in ended.pop(led, ""), "it is told of the other one, and ends by itself"
    assert ended.keys() <= models, "nothing else was restarted"
    assert len(ended) <= 1, "nor did more than the one model go that was to"


async def one_is_marked(release: Installed) -> bool:
    """As the first to go, and unready by our gate: all but the lower count that ends it is done."""
    return any(
        (pod["metadata"].get("annotations") or {}).get(COST) == COST_OF_LEAVING
        and [each["status"] for each in gates(pod)] == ["False"]
        for pod in await release.pods(f"{ENDPOINT}=iris")
    )


def gates(pod: Json) -> list[Json]:
    return [each for each in pod["status"].get("conditions") or () if each["type"] == GATE]


async def asked_for(release: Installed) -> int:
    path = DEPLOYMENTS.path(release.namespace, (await deployments(release))[0])
    return int((await read(release.api, path))["spec"]["replicas"])


async def another_leads(release: Installed, led: str) -> bool:
    return await holder(release) not in ("", led)


async def ended_again(release: Installed, pod: str, ends: int, there: dict[str, Json]) -> bool:
    """Until then, whenever it is looked at, all is as it was there."""
    assert await decided(release) == there
    return (await everything_that_runs(release))[pod] > ends


async def decided(release: Installed) -> dict[str, Json]:
    """What a control plane has written, by what it is of: a Deployment's generation tells how often."""
    found: dict[str, Json] = {}
    for each in (await read(release.api, DEPLOYMENTS.path(release.namespace)))["items"]:
        metadata = each["metadata"]
        found[metadata["name"]] = {"uid": metadata["uid"], "generation": metadata["generation"]}
    for pod in await release.pods(ENDPOINT):
        metadata = pod["metadata"]
        leaves = metadata.get("deletionTimestamp")
        found[metadata["name"]] = {"of": metadata.get("annotations"), "gates": gates(pod), "leaves": leaves}
    return found


async def test_every_model_pod_is_evicted_in_turn_and_no_request_fails(served: Served) -> None:
    before = await pods_of(served.release, "iris")
    with calling(served.url, AT_ONCE) as told:
        for pod in sorted(before):
            await until(lambda pod=pod: evicted(served.release, pod), WITHIN_S)  # type: ignore[misc]
            await until(lambda pod=pod: gone(served.release, pod), WITHIN_S)  # type: ignore[misc]
        await served.has(pods=3)
    assert told.statuses.keys() == {"200"}, told.statuses
    assert not before & await pods_of(served.release, "iris")


async def test_a_real_node_of_two_is_drained_with_all_that_is_on_it_and_no_request_fails(
    served: Served,
) -> None:
    """The control plane that leads, an Envoy and models; scaling goes on."""
    if len(lifecycle.real_nodes(here())) < 2:
        pytest.skip("the cluster has one node: make kube-down, then kube-up with NODES=2")
    release = served.release
    led = await leader(release)
    nodes = await nodes_of(release)
    drained = nodes[led]
    there = {name for name, node in nodes.items() if node == drained}
    assert there & await envoys(release), nodes
    assert there & await pods_of(release, "iris"), nodes
    with calling(served.url, AT_ONCE) as told:
        try:
            await kubectl("drain", drained, *DRAIN)
            await served.has(pods=3)
            assert not there & (await nodes_of(release)).keys()
            assert await leader(release) != led
            await until(lambda: two_envoys(release), WITHIN_S)
            await served.apply(pods=4)
            await served.has(pods=4)
        finally:
            await kubectl("uncordon", drained)
    assert told.statuses.keys() == {"200"}, told.statuses


async def nodes_of(release: Installed) -> dict[str, str]:
    """The node of each pod."""
    return {pod["metadata"]["name"]: pod["spec"].get("nodeName", "") for pod in await release.pods("")}


async def kubectl(*arguments: str) -> None:
    command = ("kubectl", "--kubeconfig", os.environ["KUBECONFIG"], *arguments)
    running = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=STDOUT)
    said, _ = await running.communicate()
    assert running.returncode == 0, said.decode()


async def test_a_deployment_whose_template_somebody_changes_rolls_and_no_request_fails(
    served: Served,
) -> None:
    """As `kubectl rollout restart` does: what they wrote stays, and what we write leaves it alone."""
    release = served.release
    path = DEPLOYMENTS.path(release.namespace, (await deployments(release))[0])
    before = await pods_of(release, "iris")
    marked = {"metadata": {"annotations": {"team/owner": "ann"}}}
    with calling(served.url, AT_ONCE) as told:
        await release.api.merge(path, marked | {"spec": {"template": marked}})
        await until(lambda: all_are_others(release, before), WITHIN_S)
        await served.has(pods=3)
        await served.apply(pods=4)
        await served.has(pods=4)
    assert told.statuses.keys() == {"200"}, told.statuses
    body = await read(release.api, path)
    for each in (body, body["spec"]["template"], *await release.pods(f"{ENDPOINT}=iris")):
        assert each["metadata"]["annotations"]["team/owner"] == "ann"


async def deployments(release: Installed) -> list[str]:
    listed = await release.api.get(DEPLOYMENTS.path(release.namespace), {"labelSelector": ENDPOINT})
    return names(listed)


async def all_are_others(release: Installed, before: set[str]) -> bool:
    return not before & await pods_of(release, "iris")


async def evicted(release: Installed, pod: str) -> bool:
    """Its budget allows it only once all others serve."""
    with contextlib.suppress(Unreachable):
        await evict(release.api, f"{release.namespace}/{pod}")
        return True
    return False


async def gone(release: Installed, pod: str) -> bool:
    return pod not in await pods_of(release, "iris")


async def test_ten_times_the_traffic_and_back_and_then_nothing_is_left(served: Served) -> None:
    """Pods follow. The deletion takes no longer than the draining: nobody waits for what `hold` may wait."""
    await served.apply(pods=6, least=1)
    await served.has(pods=1)
    with calling(served.url, 2) as few:
        with calling(served.url, 18) as many:
            await until(lambda: has_at_least(served.release, 3), WITHIN_S)
        await until(lambda: has_at_most(served.release, 2), WITHIN_S)  # one may be spare, for the next surge
    assert few.statuses.keys() == many.statuses.keys() == {"200"}, (few.statuses, many.statuses)
    began_s = time.monotonic()
    await served.release.api.delete(ENDPOINTS.path(served.release.namespace, "iris"))
    await until(served.release.has_no_endpoint, WITHIN_S)
    await until(lambda: left(served.release, ()), WITHIN_S)
    assert time.monotonic() - began_s < 50.0


async def has_at_least(release: Installed, pods: int) -> bool:
    return len(await pods_of(release, "iris")) >= pods


async def has_at_most(release: Installed, pods: int) -> bool:
    return len(await pods_of(release, "iris")) <= pods
