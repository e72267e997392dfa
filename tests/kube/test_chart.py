"""The chart on a real Kubernetes: helm, our images, a real tracking server, calls through Envoy's pods."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest

from deploy.cluster import binaries
from deploy.cluster.place import here
from tests.kube.plane import CALLER, on_node
from tests.kube.words import ENDPOINTS, endpoint, until
from trimtab.kube import Api, Json, Resource

pytestmark = pytest.mark.kube

CHART = Path(__file__).parents[2] / "deploy" / "chart"
PODS = Resource("v1", "pods")
SERVICES = Resource("v1", "services")
DEPLOYMENTS = Resource("apps/v1", "deployments")
WITHIN_S = 400.0  # images are there; Python and MLflow start, on a busy machine
REVIEWS = Resource("authorization.k8s.io/v1", "subjectaccessreviews")
# A verb, a group, a resource; and a namespace, if it is not the one that is served.
MUST = [
    ("create", "apps", "deployments", ""),
    ("watch", "serving.trimtab.dev", "servingendpoints", ""),
    ("patch", "serving.trimtab.dev", "servingendpoints/status", ""),
    ("patch", "", "pods/status", ""),
    ("get", "", "pods/log", ""),
]
MAY_NOT = [
    ("get", "", "secrets", ""),
    ("list", "", "secrets", ""),
    ("create", "", "pods", ""),
    ("create", "", "pods/exec", ""),
    ("create", "", "serviceaccounts/token", ""),
    ("create", "rbac.authorization.k8s.io", "rolebindings", ""),
    ("get", "", "nodes/proxy", ""),
    ("create", "apps", "deployments", "default"),
    ("list", "serving.trimtab.dev", "servingendpoints", "default"),
    ("delete", "", "pods", "kube-system"),
]
FLOWER = '{"inputs": [[5.1, 3.5, 1.4, 0.2]]}'


def helm(*arguments: str) -> str:
    command = [str(binaries.build_helm()), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass(frozen=True)
class Installed:
    """A release of the chart in a namespace of its own, which serves the endpoints in there."""

    api: Api
    namespace: str
    images: dict[str, str]

    def values(self, **more: str) -> list[str]:
        said = {
            "images.controlPlane": self.images["control-plane"],
            "images.envoy": self.images["envoy"],
            "images.runtimes.mlflow": self.images["mlflow"],
            "pullPolicy": "Never",
            "namespace": self.namespace,
            "crd.install": "false",  # it is the cluster's, and other tests have it too
            "envoy.allowAnonymous": "true",
            "controlPlane.resources.requests.cpu": "50m",
            "envoy.resources.requests.cpu": "50m",
            "controlPlane.replicas": "2",
            "envoy.drainSeconds": "20",
        }
        said |= {name.replace("__", "."): value for name, value in more.items()}
        return [f"--set={name}={value}" for name, value in said.items()]

    def helm(self, verb: str, *arguments: str) -> str:
        return helm(
            verb, "t", *arguments, f"--namespace={self.namespace}", "--kubeconfig", os.environ["KUBECONFIG"]
        )

    async def condition(self, name: str, kind: str = "Ready") -> str:
        status = orjson.loads(await self.api.get(ENDPOINTS.path(self.namespace, name))).get("status") or {}
        found = {each["type"]: each["status"] for each in status.get("conditions") or ()}
        return str(found.get(kind, ""))

    async def has_no_endpoint(self) -> bool:
        return not _names(await self.api.get(ENDPOINTS.path(self.namespace)))

    async def gateway(self) -> str:
        spec = orjson.loads(await self.api.get(SERVICES.path(self.namespace, "t-envoy")))["spec"]
        return f"http://{spec['clusterIP']}:{spec['ports'][0]['port']}"

    async def pods(self, selector: str) -> list[Json]:
        listed = orjson.loads(await self.api.get(PODS.path(self.namespace), {"labelSelector": selector}))
        return list(listed["items"])


@pytest.fixture
async def installed(
    api: Api, namespace: str, crd: None, our_images: dict[str, str]
) -> AsyncIterator[Installed]:
    if os.environ["KUBECONFIG"] != str(here().kubeconfig):
        pytest.skip("calls come from the network of a cluster of our own")
    release = Installed(api, namespace, our_images)
    release.helm("install", str(CHART), *release.values())
    yield release
    for name in _names(await api.get(ENDPOINTS.path(namespace))):  # of a test that failed
        await api.delete(ENDPOINTS.path(namespace, name))
        await until(release.has_no_endpoint, WITHIN_S)
    release.helm("uninstall")


@pytest.mark.timeout(1800)
async def test_from_helm_install_to_predictions_and_away(installed: Installed, tracking_server: str) -> None:
    """Apply to first prediction; the leading control plane killed, Envoys replaced by an upgrade and again by
    a rollback: no call fails. Then nothing is left.
    """
    release, namespace = installed, installed.namespace
    await _leader(release)
    await until(lambda: _replaced(release, set()), WITHIN_S)
    assert len(await _envoys(release)) == 2
    assert await _refused(release) == MAY_NOT
    wanted = {
        "uri": "models:/iris/1",
        "trackingURI": tracking_server,
        "envManager": "local",  # no package index is reached from a pod here
        "resources": {"cpu": "400m", "memory": "1Gi"},
        "concurrency": {"min": 1, "max": 1},
    }
    path = ENDPOINTS.path(namespace, "iris")
    await release.api.create(ENDPOINTS.path(namespace), endpoint(namespace, "iris", {"models": [wanted]}))
    await until(lambda: _is(release, "True"), WITHIN_S)
    url = f"{await release.gateway()}/serving-endpoints/iris.{namespace}/invocations"
    assert call(url) == {"predictions": [0]}
    with calling(url, 2) as through:
        led = await _leader(release)
        await release.api.delete(PODS.path(namespace, led), {"gracePeriodSeconds": 0})
        for arguments in (
            ["upgrade", str(CHART), *release.values(envoy__drainSeconds="21")],
            ["rollback", "1"],
        ):
            before = await _envoys(release)
            release.helm(*arguments)
            await until(lambda before=before: _replaced(release, before), WITHIN_S)  # type: ignore[misc]
        assert await _leader(release) != led, "another one took over"
    assert through.keys() == {"200"}, through
    assert through["200"] > 100

    await release.api.delete(path)
    await until(release.has_no_endpoint, WITHIN_S)
    await until(lambda: _has_ready(release, 0), WITHIN_S)
    assert _names(await release.api.get(DEPLOYMENTS.path(namespace))) == ["t-control", "t-envoy"]


async def _refused(release: Installed) -> list[tuple[str, str, str, str]]:
    """What of MUST and MAY_NOT the API server would refuse the control plane."""
    refused = []
    for asked in (*MUST, *MAY_NOT):
        verb, group, resource, namespace = asked
        kind, _, subresource = resource.partition("/")
        spec = {
            "user": f"system:serviceaccount:{release.namespace}:t-control",
            "resourceAttributes": {
                "verb": verb,
                "group": group,
                "resource": kind,
                "subresource": subresource,
                "namespace": namespace or release.namespace,
            },
        }
        answer = await release.api.create(REVIEWS.path(), {"kind": "SubjectAccessReview", "spec": spec})
        if not orjson.loads(answer)["status"]["allowed"]:
            refused.append(asked)
    return refused


async def _leader(release: Installed) -> str:
    """Wait until of two control planes one is ready, and the other one waits; the name of the first."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            pods = await release.pods("app.kubernetes.io/component=control-plane")
            ready = [pod["metadata"]["name"] for pod in pods if _is_ready(pod)]
            if len(pods) == 2 and len(ready) == 1:
                return str(ready[0])
            await asyncio.sleep(0.1)


def _is_ready(pod: Json) -> bool:
    conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions") or ()}
    return conditions.get("Ready") == "True"


async def _envoys(release: Installed) -> set[str]:
    pods = await release.pods("app.kubernetes.io/component=envoy")
    return {pod["metadata"]["name"] for pod in pods}


async def _replaced(release: Installed, before: set[str]) -> bool:
    """None of the Envoys before is there, and two others are ready."""
    pods = await release.pods("app.kubernetes.io/component=envoy")
    return not before & await _envoys(release) and [_is_ready(pod) for pod in pods] == [True, True]


async def _has_ready(release: Installed, count: int) -> bool:
    """So many pods of the endpoint are there, and all of them are ready."""
    pods = await release.pods("serving.trimtab.dev/endpoint=iris")
    return len(pods) == count and all(map(_is_ready, pods))


def _names(listed: bytes) -> list[str]:
    return sorted(each["metadata"]["name"] for each in orjson.loads(listed)["items"])


@contextmanager
def calling(url: str, at_once: int) -> Iterator[dict[str, int]]:
    """Call for as long as the block runs; afterwards what is yielded tells how often each status came."""
    statuses: dict[str, int] = {}
    command = on_node(sys.executable, CALLER, url, str(at_once), FLOWER)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as caller:
        try:
            yield statuses
        finally:
            caller.terminate()
            told, _ = caller.communicate(timeout=90)
        statuses |= json.loads(told)["statuses"]


async def _is(release: Installed, status: str) -> bool:
    return await release.condition("iris") == status


def call(url: str) -> Json:
    command = on_node("curl", "--silent", "--show-error", "--fail-with-body", "--max-time", "60")
    command += ["--header", "Content-Type: application/json", "--data", FLOWER, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found: Json = json.loads(done.stdout)
    return found
