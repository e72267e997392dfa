"""The whole of it on a real Kubernetes: ServingEndpoints in, pods and traffic through a real Envoy out."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from pathlib import Path

import orjson
import pytest

from tests.kube.killing import stopped
from tests.kube.plane import Plane
from tests.kube.release import one_by_one
from tests.kube.words import (
    DEADLINE_S,
    ENDPOINTS,
    NAMESPACES,
    applied,
    becomes,
    condition,
    endpoint,
    until,
)
from trimtab.core.errors import InvalidInput, NotFound
from trimtab.host.ports import free_port
from trimtab.kube import Api, Json, Resource
from trimtab.kube.lease import LEASE_S

pytestmark = [pytest.mark.kube, pytest.mark.usefixtures("crd")]

DEPLOYMENTS = Resource("apps/v1", "deployments")
PODS = Resource("v1", "pods")
EVENTS = Resource("events.k8s.io/v1", "events")


def spec(image: str, low: int = 1, high: int = 8, **env: str) -> Json:
    return {
        "models": [
            {
                "uri": "own",
                "custom": {"image": image},
                "resources": {"cpu": "10m", "memory": "32Mi"},
                "concurrency": {"min": low, "max": high},
                "env": env,
            }
        ]
    }


async def found(api: Api, path: str) -> Json:
    read: Json = orjson.loads(await api.get(path))
    return read


async def names(api: Api, resource: Resource, namespace: str) -> list[str]:
    items = (await found(api, resource.path(namespace)))["items"]
    return sorted(each["metadata"]["name"] for each in items)


async def test_from_apply_to_traffic_to_nothing(api: Api, plane: Plane, namespace: str, image: str) -> None:
    await applied(api, namespace, "iris", spec(image))
    await becomes(api, namespace, "iris", "Ready")
    seen = await found(api, ENDPOINTS.path(namespace, "iris"))
    assert seen["status"]["observedGeneration"] == seen["metadata"]["generation"]
    assert seen["status"]["pods"] == "1/1"
    deployment = await found(api, DEPLOYMENTS.path(namespace, "iris-r1"))
    assert [each["uid"] for each in deployment["metadata"]["ownerReferences"]] == [seen["metadata"]["uid"]]

    with plane.calling("iris", 4) as told:
        await applied(api, namespace, "iris", spec(image, 3, 8))

        async def has_three() -> bool:
            return len(await names(api, PODS, namespace)) >= 3

        await until(has_three)
        plane.kill()
        plane.start()
        await applied(api, namespace, "iris", spec(image, 3, 8, GREETING="hello"))

        async def is_updated() -> bool:
            status = (await found(api, ENDPOINTS.path(namespace, "iris")))["status"]
            return status["servingRevision"] == 2 and status["state"] == "READY"

        await until(is_updated)
    assert set(told["statuses"]) == {"200"}, told
    assert sum(told["statuses"].values()) > 100, told
    assert any(pod.startswith("iris-r2-") for pod in told["pods"]), told

    await api.delete(ENDPOINTS.path(namespace, "iris"))
    await until(lambda: is_gone(api, namespace, "iris"))


async def is_gone(api: Api, namespace: str, name: str) -> bool:
    """The object, its Deployments and its pods."""
    try:
        await api.get(ENDPOINTS.path(namespace, name))
    except NotFound:
        left = [*await names(api, DEPLOYMENTS, namespace), *await names(api, PODS, namespace)]
        return not [each for each in left if each.startswith(f"{name}-")]
    return False


async def test_a_spec_that_cannot_be_served_is_told_and_disturbs_nobody(
    api: Api, plane: Plane, namespace: str, image: str
) -> None:
    without_image = {"models": [{"uri": "models:/iris/3"}]}  # and this control plane has none for mlflow
    await applied(api, namespace, "bad", without_image)
    told = await becomes(api, namespace, "bad", "Degraded")
    assert told["reason"] == "InvalidSpec"
    assert "models[0].runtime: there is no image for `mlflow`" in told["message"]
    assert "bring an image of your own by custom.image" in told["message"]
    assert (await condition(api, namespace, "bad", "Ready"))["status"] == "False"
    await applied(api, namespace, "iris", spec(image))
    await becomes(api, namespace, "iris", "Ready")

    await applied(api, namespace, "iris", without_image)  # an update: what serves, serves on
    told = await becomes(api, namespace, "iris", "Degraded")
    assert told["observedGeneration"] == 2
    assert (await condition(api, namespace, "iris", "Ready"))["status"] == "True"
    assert await names(api, DEPLOYMENTS, namespace) == ["iris-r1"]

    await applied(api, namespace, "iris", spec(image))
    await becomes(api, namespace, "iris", "Degraded", "False")
    wanted = {("bad", "InvalidSpec"), ("iris", "Serving"), ("iris", "InvalidSpec")}

    async def is_told() -> bool:
        events = (await found(api, EVENTS.path(namespace)))["items"]
        return wanted <= {(each["regarding"]["name"], each["reason"]) for each in events}

    await until(is_told)
    version = (await found(api, ENDPOINTS.path(namespace, "iris")))["metadata"]["resourceVersion"]
    await asyncio.sleep(8.0)  # more than a round of looks: at rest nothing is written
    assert (await found(api, ENDPOINTS.path(namespace, "iris")))["metadata"]["resourceVersion"] == version
    await api.delete(ENDPOINTS.path(namespace, "bad"))  # what never served goes as well
    await until(lambda: is_gone(api, namespace, "bad"))


async def freed(api: Api, namespace: str, name: str) -> None:
    """As somebody does who has lost patience: our finalizer goes, and the object with it."""
    body = endpoint(namespace, name, {})
    del body["spec"]
    await api.apply(ENDPOINTS.path(namespace, name), body, "trimtab")


async def test_objects_go_and_come_while_nobody_looks(
    api: Api, plane: Plane, namespace: str, image: str
) -> None:
    for name in ("away", "forced", "again"):
        await applied(api, namespace, name, spec(image))
    for name in ("away", "forced", "again"):
        await becomes(api, namespace, name, "Ready")
    plane.kill()
    for name in ("away", "forced", "again"):
        await api.delete(ENDPOINTS.path(namespace, name))
    seen = await found(api, ENDPOINTS.path(namespace, "away"))
    assert "deletionTimestamp" in seen["metadata"], "it waits for us to drain it"
    for name in ("forced", "again"):
        await freed(api, namespace, name)
    await applied(api, namespace, "again", spec(image, NEW="life"))  # with the old one's pods there
    plane.start()
    await until(lambda: is_gone(api, namespace, "away"))
    await until(lambda: is_gone(api, namespace, "forced"))
    await becomes(api, namespace, "again", "Ready")

    async def serves_anew() -> bool:
        deployment = await found(api, DEPLOYMENTS.path(namespace, "again-r1"))
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        ready = deployment["status"].get("readyReplicas") == 1
        return ready and {"name": "NEW", "value": "life"} in container["env"]

    await until(serves_anew)
    await api.delete(ENDPOINTS.path(namespace, "again"))
    with contextlib.suppress(InvalidInput):  # it has gone already, and would be made without a spec
        await freed(api, namespace, "again")  # while we look
    await until(lambda: is_gone(api, namespace, "again"))


async def only_has(api: Api, namespace: str, deployment: str) -> bool:
    return await names(api, DEPLOYMENTS, namespace) == [deployment]


async def test_of_two_only_the_holder_of_the_lease_writes(
    api: Api, namespace: str, image: str, tmp_path: Path, plane: Plane
) -> None:
    plane.kill()
    other = Plane(tmp_path / "other" / "home", namespace)
    other.home.mkdir(parents=True)
    plane.lease = other.lease = f"{namespace}/control-plane"
    plane.start()
    try:
        other.begin()
        await applied(api, namespace, "iris", spec(image))
        await becomes(api, namespace, "iris", "Ready")
        assert not other.announced.exists(), "it waits"

        first = plane.process
        assert first is not None
        first.send_signal(signal.SIGSTOP)
        await asyncio.to_thread(other.wait)
        other.start_envoy()
        await applied(api, namespace, "iris", spec(image, 2, 9, NEXT="1"))

        async def serves_anew() -> bool:
            status = (await found(api, ENDPOINTS.path(namespace, "iris")))["status"]
            return status["servingRevision"] == 2 and status["state"] == "READY"

        await until(serves_anew)
        await until(lambda: only_has(api, namespace, "iris-r2"))
        before = await found(api, ENDPOINTS.path(namespace, "iris"))
        first.send_signal(signal.SIGCONT)
        status = await asyncio.to_thread(first.wait, 60)
        assert status == 1, "it ends by itself"
        assert "is held by" in plane.log.read_text()
        after = await found(api, ENDPOINTS.path(namespace, "iris"))
        assert after["metadata"]["generation"] == before["metadata"]["generation"]
        assert after["status"]["servingRevision"] == 2
        assert await only_has(api, namespace, "iris-r2")

        plane.begin()
        other.end()  # gives the lease back: nobody waits for its end
        await asyncio.to_thread(plane.wait)
        assert await only_has(api, namespace, "iris-r2")
    finally:
        other.end()


async def test_an_envoy_of_one_that_follows_is_served_whoever_leads(
    api: Api, plane: Plane, namespace: str, image: str, tmp_path: Path
) -> None:
    """What its Envoy has acknowledged counts; the leader is killed; no call fails, and decisions go on."""
    plane.end()
    other = Plane(
        tmp_path / "other" / "home", namespace, port=plane.port
    )  # an Envoy listens where it is told
    other.home.mkdir(parents=True)
    for each in (plane, other):
        each.lease, each.xds_port = f"{namespace}/control-plane", free_port("127.0.0.1")
    plane.start()
    try:
        other.begin()
        await until(other.xds_socket.exists)
        other.start_envoy()
        await applied(api, namespace, "iris", spec(image, 2, 8))
        await becomes(api, namespace, "iris", "Ready")
        assert not other.announced.exists(), "it follows"
        with other.calling("iris", 2) as told:  # they need no more than three pods
            await applied(api, namespace, "iris", spec(image, 4, 8))
            await until(lambda: has_pods(api, namespace, 4))
            plane.kill()
            began_s = time.monotonic()
            await applied(api, namespace, "iris", spec(image, 5, 8))
            await until(lambda: wants_pods(api, namespace, 5))
            print(f"\ndecisions went on {time.monotonic() - began_s:.1f} s after the leader was killed")  # noqa: T201
            await until(lambda: has_pods(api, namespace, 5))
            await applied(api, namespace, "iris", spec(image, 1, 8))
            await until(lambda: has_pods(api, namespace, 4, most=True))
        assert set(told["statuses"]) == {"200"}, told
        assert sum(told["statuses"].values()) > 100, told
        assert other.announced.exists(), "it leads"
    finally:
        other.end()


async def wants_pods(api: Api, namespace: str, count: int) -> bool:
    return bool((await found(api, DEPLOYMENTS.path(namespace, "iris-r1")))["spec"]["replicas"] >= count)


async def has_pods(api: Api, namespace: str, count: int, *, most: bool = False) -> bool:
    """At least so many, or at most."""
    found = len(await names(api, PODS, namespace))
    return found <= count if most else found >= count


async def test_while_the_api_server_is_away_what_runs_serves_on(
    api: Api, namespace: str, image: str, plane: Plane
) -> None:
    plane.kill()
    plane.lease = f"{namespace}/control-plane"
    plane.start()
    await applied(api, namespace, "iris", spec(image))
    await becomes(api, namespace, "iris", "Ready")
    with plane.calling("iris", 2) as told:
        with stopped("kube-apiserver", for_s=60.0):
            await asyncio.sleep(LEASE_S + 5.0)  # longer than we may write without having renewed the lease
            assert plane.cli("status", "iris", "-n", namespace).returncode == 0
        await applied(api, namespace, "iris", spec(image, 2, 8))

        async def follows() -> bool:
            return len(await names(api, PODS, namespace)) >= 2

        await until(follows)
    assert set(told["statuses"]) == {"200"}, told
    assert sum(told["statuses"].values()) > 100, told
    assert plane.process is not None
    assert plane.process.poll() is None, "nobody could take the lease meanwhile: it goes on"
    assert (await condition(api, namespace, "iris", "Ready"))["status"] == "True"


async def test_a_deployment_that_somebody_scales_or_deletes_heals_and_no_call_fails(
    api: Api, plane: Plane, namespace: str, image: str
) -> None:
    """By kubectl, say. There are as many pods as before, and those that were taken away served until then."""
    await applied(api, namespace, "iris", one_by_one(image, 64, 64, 3))  # whatever limit is learned
    await until(lambda: serves(api, namespace, 3))
    path = DEPLOYMENTS.path(namespace, "iris-r1")
    with plane.calling("iris", 2) as told:
        for count in (1, 5):
            before = (await found(api, path))["metadata"]["generation"]
            await api.merge(f"{path}/scale", {"spec": {"replicas": count}})
            await until(lambda before=before: was_written_twice(api, path, before))  # type: ignore[misc]
            await until(lambda: serves(api, namespace, 3), 2 * DEADLINE_S)
        before = (await found(api, path))["metadata"]["uid"]
        await api.delete(path)
        await until(lambda: is_another(api, path, before), 2 * DEADLINE_S)
        await until(lambda: serves(api, namespace, 3), 2 * DEADLINE_S)
    assert set(told["statuses"]) == {"200"}, told
    assert sum(told["statuses"].values()) > 100, told


async def serves(api: Api, namespace: str, count: int) -> bool:
    """The Deployment has so many pods, ready, and no other pod is there."""
    try:
        deployment = await found(api, DEPLOYMENTS.path(namespace, "iris-r1"))
    except NotFound:
        return False
    ready = deployment["status"].get("readyReplicas", 0)
    return deployment["spec"]["replicas"] == ready == len(await names(api, PODS, namespace)) == count


async def was_written_twice(api: Api, path: str, generation: int) -> bool:
    """By somebody, and by us."""
    return bool((await found(api, path))["metadata"]["generation"] >= generation + 2)


async def is_another(api: Api, path: str, uid: str) -> bool:
    try:
        return bool((await found(api, path))["metadata"]["uid"] != uid)
    except NotFound:
        return False


async def test_what_never_starts_is_told_with_its_remedy_and_disturbs_nobody(
    api: Api, plane: Plane, namespace: str, image: str
) -> None:
    """An image that does not exist, and a model that does not load; beside one that serves."""
    await applied(api, namespace, "iris", spec(image))
    await becomes(api, namespace, "iris", "Ready")
    with plane.calling("iris", 2) as calls:
        await applied(api, namespace, "no-image", spec("localhost/none:1"))
        await applied(api, namespace, "no-load", spec(image, EXIT_AFTER="100ms", READY_AFTER="1h"))
        for name, *words in (
            ("no-load", "exit status 3", "trimtab logs no-load"),
            ("no-image", "its image cannot be had", "localhost/none:1", "pull secrets"),
        ):
            told = await becomes(api, namespace, name, "Degraded")
            for each in words:
                assert each in told["message"], told
            assert (await condition(api, namespace, name, "Ready"))["status"] == "False"
        status = (await found(api, ENDPOINTS.path(namespace, "no-load")))["status"]
        assert "the model cannot be loaded: no such file" in status["logTail"]

        async def is_given_up() -> bool:
            return bool((await condition(api, namespace, "no-load", "Degraded"))["reason"] == "Failed")

        await until(is_given_up)  # and not tried for ever
        for name in ("no-image", "no-load"):
            await api.delete(ENDPOINTS.path(namespace, name))
            await until(lambda name=name: is_gone(api, namespace, name))  # type: ignore[misc]
    assert set(calls["statuses"]) == {"200"}, calls
    assert "logTail" not in (await found(api, ENDPOINTS.path(namespace, "iris")))["status"]


async def test_a_namespace_that_is_deleted_takes_its_endpoints_along(
    api: Api, plane: Plane, namespace: str, image: str
) -> None:
    """Our finalizer keeps no namespace: nobody has to take it off by hand.

    The API server's controller ends the pods, and looks again after half the time that they may take.
    """
    wanted = spec(image, 2, 8)
    wanted["models"][0]["startTimeoutSeconds"] = 20
    await applied(api, namespace, "iris", wanted)
    await becomes(api, namespace, "iris", "Ready")
    await api.delete(NAMESPACES.path(name=namespace))

    async def is_no_more() -> bool:
        try:
            await api.get(NAMESPACES.path(name=namespace))
        except NotFound:
            return True
        return False

    await until(is_no_more, 2 * DEADLINE_S)
    assert plane.process is not None
    assert plane.process.poll() is None, "it goes on for others"
