"""What is left of a release that was uninstalled under a running endpoint: what people wrote, and no more."""

from __future__ import annotations

import asyncio
import subprocess
import uuid
from collections.abc import AsyncIterator

import orjson
import pytest

from tests.kube.plane import on_node
from tests.kube.release import CHART, DEPLOYMENTS, WITHIN_S, Installed, control_planes, in_our_cluster
from tests.kube.words import ENDPOINTS, NAMESPACES, define, endpoint, is_there, namespace_of, own, read, until
from trimtab.core.errors import NotFound, Unreachable
from trimtab.kube import Api, Resource

pytestmark = [pytest.mark.kube, pytest.mark.timeout(900)]

ANSWERS_AFTER_S = 12  # longer than it takes until Envoys are asked to drain
ONLY_NAMES = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
OF_ITSELF = {"events", "componentstatuses"}  # events go by themselves, an hour later
CONFIGMAPS, ACCOUNTS = Resource("v1", "configmaps"), Resource("v1", "serviceaccounts")

Found = set[tuple[str, str, str]]  # kind, namespace and name


@pytest.fixture
async def release(our_images: dict[str, str], api: Api) -> AsyncIterator[Installed]:
    """Not installed yet, in a namespace that has all that each namespace has."""
    in_our_cluster()
    await define(api)
    name = f"test-{uuid.uuid4().hex[:8]}"
    await api.create(NAMESPACES.path(), namespace_of(name))
    for path in (CONFIGMAPS.path(name, "kube-root-ca.crt"), ACCOUNTS.path(name, "default")):
        await until(lambda path=path: is_there(api, path))  # type: ignore[misc]
    yield Installed(api, name, our_images)
    await api.delete(NAMESPACES.path(name=name))


async def test_nothing_is_left_but_the_endpoint_which_is_served_again_by_the_next_release(
    release: Installed, image: str
) -> None:
    """Under a request that is answered; and again where no control plane runs that could drain anything."""
    api, namespace = release.api, release.namespace
    before = await everything(api)
    ours = {("servingendpoints", namespace, "iris")}
    path = ENDPOINTS.path(namespace, "iris")

    release.helm("install", str(CHART), *release.values())
    spec = own(image, ANSWER_AFTER=f"{ANSWERS_AFTER_S}s")
    await api.create(ENDPOINTS.path(namespace), endpoint(namespace, "iris", spec))
    await until(lambda: is_ready(release), WITHIN_S)
    served = await everything(api) - before
    kinds = {"deployments", "serviceaccounts", "networkpolicies", "poddisruptionbudgets", "leases", "secrets"}
    assert kinds <= {kind for kind, _, _ in served}, "or this shows nothing"
    asked = begun(await release.url("iris"))
    release.helm("uninstall")
    assert asked.communicate(timeout=60)[0].endswith(b"200"), (
        "it was answered by a model that was still there"
    )
    await until(lambda: left(api, before, ours), WITHIN_S)
    seen = await read(api, path)
    assert not seen["metadata"].get("finalizers")
    (ready,) = (each for each in seen["status"]["conditions"] if each["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "Uninstalled")

    release.helm("install", str(CHART), *release.values())
    await until(lambda: is_ready(release), WITHIN_S)
    assert (await read(api, path))["status"]["servingRevision"] == 1, "it is the one that it was"
    scale = DEPLOYMENTS.path(namespace, "t-control", "scale")
    await api.merge(scale, {"spec": {"replicas": 0}})
    await until(lambda: no_control_plane(release), WITHIN_S)
    release.helm("uninstall")
    await until(lambda: left(api, before, ours), WITHIN_S)
    await api.delete(path)
    await until(lambda: left(api, before, set()), 10.0)


def begun(url: str) -> subprocess.Popen[bytes]:
    """A request; its status is the last that it prints."""
    command = on_node("curl", "--silent", "--max-time", "60", "--write-out", "%{http_code}")
    return subprocess.Popen([*command, "--data", "{}", url], stdout=subprocess.PIPE)


async def is_ready(release: Installed) -> bool:
    return await release.condition("iris") == "True"


async def no_control_plane(release: Installed) -> bool:
    return not await control_planes(release)


async def left(api: Api, before: Found, but: Found) -> bool:
    """Whether nothing is there that was not before, and that is not known of."""
    return await everything(api) - before == but


async def everything(api: Api) -> Found:
    """Of all kinds that the API server lists."""
    lists = await asyncio.gather(*(_of_group(api, group) for group in await _groups(api)))
    return {each for found in lists for each in found}


async def _groups(api: Api) -> list[str]:
    groups = orjson.loads(await api.get("/apis"))["groups"]
    return ["/api/v1", *(f"/apis/{each['preferredVersion']['groupVersion']}" for each in groups)]


async def _of_group(api: Api, group: str) -> Found:
    found: Found = set()
    for kind in orjson.loads(await api.get(group))["resources"]:
        if "list" not in kind["verbs"] or "/" in kind["name"] or kind["name"] in OF_ITSELF:
            continue
        try:
            listed = orjson.loads(await api.get(f"{group}/{kind['name']}", accept=ONLY_NAMES))
        except (NotFound, Unreachable):  # a definition that another test has just taken away
            continue
        for each in listed["items"] or ():
            metadata = each["metadata"]
            found.add((kind["name"], metadata.get("namespace", ""), metadata["name"]))
    return found
