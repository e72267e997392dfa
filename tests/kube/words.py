"""What the tests on a real Kubernetes share."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import yaml

from deploy.crd.generate import definition
from trimtab.core.errors import NotFound, Unreachable
from trimtab.core.revision import Revision
from trimtab.kube import Api, Json, Resource

CRDS = Resource("apiextensions.k8s.io/v1", "customresourcedefinitions")
NAMESPACES = Resource("v1", "namespaces")
ENDPOINTS = Resource("serving.trimtab.dev/v1alpha1", "servingendpoints")
PODS = Resource("v1", "pods")
HOLD = os.environ.get("TRIMTAB_KUBE_HOLD_IMAGE", "localhost/hold:1")  # of deploy/hold
HELD_S = 60.0  # a pod that nobody lets go; also what its start may take
DEADLINE_S = 60.0
LOOK_AGAIN_S, LOOK_AGAIN_MAX_S = (
    0.02,
    0.2,
)  # what takes long is not asked for so often: two cores are all there is

Make = Callable[..., Revision]  # a number, an image, and variables of the server


def namespace_of(name: str) -> Json:
    """One at the Pod Security level `restricted`."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def with_token(token: str, file: Path) -> None:
    """A kubeconfig for whoever has it."""
    config = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    for user in config["users"]:
        user["user"] = {"token": token}
    file.write_text(yaml.safe_dump(config))


def context_name() -> str:
    """That of KUBECONFIG."""
    return str(yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())["current-context"])


async def define(api: Api) -> None:
    """Have the API server know ServingEndpoint, as it is generated now."""
    wanted = definition()
    path = CRDS.path(name=wanted["metadata"]["name"])
    await api.apply(path, wanted)

    async def established() -> bool:
        status = (await read(api, path)).get("status", {})
        conditions = {each["type"]: each["status"] for each in status.get("conditions") or ()}
        return conditions.get("Established") == "True"

    await until(established)
    await until(lambda: is_served(api))


async def is_served(api: Api) -> bool:
    try:
        await api.get(ENDPOINTS.path("default"))
    except (NotFound, Unreachable):  # not known yet, or "storage is (re)initializing"
        return False
    return True


async def read(api: Api, path: str) -> Json:
    found: Json = orjson.loads(await api.get(path))
    return found


async def evict(api: Api, pod_id: str) -> None:
    """Raises Unreachable (429) if the budget allows none now."""
    namespace, _, name = pod_id.partition("/")
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace}}
    await api.create(PODS.path(namespace, name, "eviction"), body)


async def is_there(api: Api, path: str) -> bool:
    try:
        await api.get(path)
    except NotFound:
        return False
    return True


async def until(holds: Callable[[], object], within_s: float = DEADLINE_S) -> None:
    """Wait until `holds()` is true; it may be a coroutine function."""
    deadline_s, rest_s = time.monotonic() + within_s, LOOK_AGAIN_S
    while True:
        found = holds()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return
        assert time.monotonic() < deadline_s, f"not true within {within_s:.0f} s"
        await asyncio.sleep(rest_s)
        rest_s = min(LOOK_AGAIN_MAX_S, rest_s * 1.2)


def endpoint(namespace: str, name: str, spec: object) -> Json:
    """The object, as a user writes it."""
    return {
        "apiVersion": ENDPOINTS.version,
        "kind": "ServingEndpoint",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def own(image: str, low: int = 1, high: int = 8, **env: str) -> Json:
    """The spec of an endpoint whose pods take next to nothing; `env` are variables of its server."""
    model: Json = {
        "uri": "own",
        "custom": {"image": image},
        "resources": {"cpu": "10m", "memory": "32Mi"},
        "concurrency": {"min": low, "max": high},
    }
    return {"models": [model | ({"env": env} if env else {})]}


async def applied(api: Api, namespace: str, name: str, spec: object) -> None:
    """As `kubectl apply --server-side` does."""
    await api.apply(ENDPOINTS.path(namespace, name), endpoint(namespace, name, spec), "kubectl")


async def condition(api: Api, namespace: str, name: str, kind: str) -> Json:
    status = (await read(api, ENDPOINTS.path(namespace, name))).get("status", {})
    return next((each for each in status.get("conditions", ()) if each["type"] == kind), {"status": ""})


async def becomes(api: Api, namespace: str, name: str, kind: str, status: str = "True") -> Json:
    async def is_so() -> bool:
        return bool((await condition(api, namespace, name, kind))["status"] == status)

    await until(is_so)
    return await condition(api, namespace, name, kind)
