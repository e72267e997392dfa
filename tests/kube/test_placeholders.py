"""Warm room: a node that is full of placeholders and of other people's pods, and a model's pod that comes."""

from __future__ import annotations

from collections.abc import Iterator

import orjson
import pytest

from tests.kube.release import DEPLOYMENTS, Installed, have_ended, installation, is_ready, leader
from tests.kube.words import ENDPOINTS, PODS, endpoint, until
from trimtab.fleet.kubernetes.template import ENDPOINT
from trimtab.kube import Api, Json, Resource
from trimtab.kube.quantity import quantity

pytestmark = pytest.mark.kube

NODES = Resource("v1", "nodes")
REVIEWS = Resource("authorization.k8s.io/v1", "subjectaccessreviews")
WITHIN_S = 180.0
NODE = {"kubernetes.io/hostname": "node"}
HERE = "placeholders.shapes[0].nodeSelector.kubernetes\\.io/hostname"
MAX = 3  # placeholders


@pytest.fixture
def installed(our_images: dict[str, str], api: Api) -> Iterator[Installed]:
    more = {
        "placeholders.shapes[0].name": "small",
        "placeholders.shapes[0].cpu": "200m",
        "placeholders.shapes[0].memory": "64Mi",
        "placeholders.shapes[0].max": str(MAX),
        HERE: "node",
        "placeholders.leadSeconds": "1800",  # all of it is one growth, on however busy a machine
    }
    have_ended()  # the room of the others is free
    with installation(our_images, **more) as namespace:
        yield Installed(api, namespace, our_images)


def spec(image: str, pods: int) -> Json:
    model = {
        "uri": "own",
        "runtime": "custom",
        "custom": {"image": image},
        "resources": {"cpu": "150m", "memory": "32Mi"},
        "concurrency": {"min": pods, "max": 64},
        "nodeSelector": NODE,
    }
    return {"models": [model], "maxPods": pods}


def filler(namespace: str, image: str, millicores: int) -> Json:
    """Somebody else's pod, at the usual priority."""
    limits = {"cpu": f"{millicores}m"}
    locked = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container = {"name": "own", "image": image, "resources": {"requests": limits}, "securityContext": locked}
    secure = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    container |= {"env": [{"name": "PORT", "value": "9000"}]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "other", "namespace": namespace},
        "spec": {"nodeSelector": NODE, "securityContext": secure, "containers": [container]},
    }


@pytest.mark.timeout(1200)
async def test_a_models_pod_takes_a_placeholders_place_at_once(installed: Installed, image: str) -> None:
    """The control plane sets how many there are, and nothing else of them."""
    release, path = installed, ENDPOINTS.path(installed.namespace, "iris")
    await leader(release)
    assert [await may_scale(release, name) for name in ("t-room-small", "t-control")] == [True, False]
    await until(lambda: placeholders(release, 0), WITHIN_S)
    made = endpoint(release.namespace, "iris", spec(image, 2))
    await release.api.create(ENDPOINTS.path(release.namespace), made)
    await until(lambda: models(release, 2), WITHIN_S)
    await until(lambda: placeholders(release, 2), WITHIN_S)

    free = await free_cpu(release.api)
    await release.api.create(
        PODS.path(release.namespace), filler(release.namespace, image, int(free * 1000) - 20)
    )
    await until(lambda: other_runs(release), WITHIN_S)
    assert await free_cpu(release.api) < 0.1, "the node is full, of placeholders too"

    await release.api.apply(path, endpoint(release.namespace, "iris", spec(image, 3)))
    await until(lambda: models(release, 3), WITHIN_S)
    await until(lambda: pending(release), WITHIN_S)
    assert await other_runs(release), "nobody else's pod had to go"
    events = orjson.loads(await release.api.get(f"/api/v1/namespaces/{release.namespace}/events"))["items"]
    preempted = {each["involvedObject"]["name"] for each in events if each["reason"] == "Preempted"}
    assert preempted
    assert all(name.startswith("t-room-small-") for name in preempted)

    await release.api.apply(path, endpoint(release.namespace, "iris", spec(image, 5)))
    await until(lambda: models(release, 4), WITHIN_S)  # in the place of the other one that ran
    await until(lambda: counted(release, MAX), WITHIN_S)
    assert await other_runs(release), "and for the fifth there is no place to take"
    assert await models(release, 4)


async def may_scale(release: Installed, deployment: str) -> bool:
    attributes = {
        "verb": "patch",
        "group": "apps",
        "resource": "deployments",
        "subresource": "scale",
        "name": deployment,
        "namespace": release.namespace,
    }
    who = f"system:serviceaccount:{release.namespace}:t-control"
    review = {"kind": "SubjectAccessReview", "spec": {"user": who, "resourceAttributes": attributes}}
    answer = orjson.loads(await release.api.create(REVIEWS.path(), review))
    return bool(answer["status"]["allowed"])


async def models(release: Installed, wanted: int) -> bool:
    pods = await release.pods(f"{ENDPOINT}=iris")
    return sum(map(is_ready, pods)) == wanted


async def placeholders(release: Installed, wanted: int) -> bool:
    """So many run, and there is no other one."""
    pods = await release.pods("app.kubernetes.io/component=placeholder")
    return [pod["status"]["phase"] for pod in pods] == ["Running"] * wanted


async def pending(release: Installed) -> bool:
    """One waits for room, in the place of the one that went."""
    pods = await release.pods("app.kubernetes.io/component=placeholder")
    return "Pending" in {pod["status"]["phase"] for pod in pods}


async def count(release: Installed) -> int:
    found = orjson.loads(await release.api.get(DEPLOYMENTS.path(release.namespace, "t-room-small")))
    return int(found["spec"]["replicas"])


async def counted(release: Installed, wanted: int) -> bool:
    return await count(release) == wanted


async def other_runs(release: Installed) -> bool:
    status = orjson.loads(await release.api.get(PODS.path(release.namespace, "other")))["status"]
    return bool(status["phase"] == "Running")


async def free_cpu(api: Api) -> float:
    """Cores of the first node that nobody has asked for."""
    node = orjson.loads(await api.get(NODES.path(name="node")))
    free = quantity(node["status"]["allocatable"]["cpu"])
    for pod in orjson.loads(await api.get(PODS.path(), {"fieldSelector": "spec.nodeName=node"}))["items"]:
        if pod["status"]["phase"] in ("Succeeded", "Failed"):
            continue
        for each in (*pod["spec"]["containers"], *pod["spec"].get("initContainers", ())):
            free -= quantity(each.get("resources", {}).get("requests", {}).get("cpu", "0"))
    return float(free)
