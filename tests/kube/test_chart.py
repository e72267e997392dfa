"""The chart on a real Kubernetes: helm, our images, a real tracking server, calls through Envoy's pods."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future

import orjson
import pytest

from deploy.cluster import binaries
from tests.kube.release import (
    CHART,
    DEPLOYMENTS,
    SERVICES,
    WITHIN_S,
    Installed,
    call,
    calling,
    control_planes,
    envoys,
    installation,
    leader,
    left,
    pods_of,
    replaced,
    values,
)
from tests.kube.rights import AT_HOME, SERVED, Rights, as_account, more, rights
from tests.kube.words import ENDPOINTS, PODS, define, endpoint, read, until
from trimtab.fleet.kubernetes.attendants import POLICIES
from trimtab.kube import Api, Json, Resource

pytestmark = pytest.mark.kube

REVIEWS = Resource("authorization.k8s.io/v1", "subjectaccessreviews")
# A verb, a group, a resource; and a namespace, if it is not the one that is served.
MUST = [
    ("create", "apps", "deployments", ""),
    ("watch", "serving.trimtab.dev", "servingendpoints", ""),
    ("patch", "serving.trimtab.dev", "servingendpoints/status", ""),
    ("patch", "", "pods/status", ""),
    ("get", "", "pods/log", ""),
    ("create", "", "serviceaccounts", ""),
    ("patch", "networking.k8s.io", "networkpolicies", ""),
    ("list", "networking.k8s.io", "networkpolicies", ""),
    ("patch", "policy", "poddisruptionbudgets", ""),
]
MAY_NOT = [
    ("get", "", "secrets", ""),
    ("list", "", "secrets", ""),
    ("create", "", "pods", ""),
    ("create", "", "pods/exec", ""),
    ("create", "", "pods/proxy", ""),
    ("delete", "policy", "poddisruptionbudgets", ""),
    ("delete", "networking.k8s.io", "networkpolicies", ""),
    ("get", "", "serviceaccounts", ""),
    ("create", "", "serviceaccounts/token", ""),
    ("create", "rbac.authorization.k8s.io", "rolebindings", ""),
    ("get", "", "nodes/proxy", ""),
    ("create", "apps", "deployments", "default"),
    ("list", "serving.trimtab.dev", "servingendpoints", "default"),
    ("delete", "", "pods", "kube-system"),
]

FEW, MANY = 2, 18  # calls at once of `busy`: together ten times as many
MOST = 4  # pods of it: each of them takes a while to go
SOON = {"controlPlane__env__TRIMTAB_DOWN_WINDOW_S": "3.0"}  # or it takes minutes until there are fewer pods


@pytest.fixture
def installed(our_images: dict[str, str], tracking_begun: Future[str], api: Api) -> Iterator[Installed]:
    """Beside the start of the tracking server, which takes about as long."""
    with installation(our_images, **SOON) as namespace:
        yield Installed(api, namespace, our_images)


@pytest.mark.timeout(1800)
async def test_from_helm_install_to_predictions_and_away(
    api: Api, installed: Installed, tracking_server: str, image: str
) -> None:
    """Apply to first prediction; then ten times the traffic and back, and meanwhile the leading control
    plane killed, both models updated, a range changed, a policy opened by somebody, the chart upgraded and
    rolled back: no call fails, and the policy is as it was. In the end nothing is left.
    """
    release = installed
    await leader(release)
    await until(lambda: replaced(release, set()), WITHIN_S)
    assert await _refused(release) == MAY_NOT
    nobody = await _rights(release, "default")  # what anybody may who has a token
    assert more(await _rights(release, "t-control"), nobody) == SERVED | AT_HOME
    await _apply(release, "iris", _iris(tracking_server, "models:/iris/1"), 1)
    await _apply(release, "busy", _busy(image, 1), MOST)
    for name in ("iris", "busy"):
        await until(lambda name=name: _is_ready(release, name), WITHIN_S)  # type: ignore[misc]
    url = await release.url("iris")
    assert call(url) == {"predictions": [0]}
    told = release.cli("why", "iris")  # of two that are ready, the one that leads
    assert told.returncode == 0, told.stderr
    with calling(url, 2) as through, calling(await release.url("busy"), FEW) as few:
        with calling(await release.url("busy"), MANY) as many:
            await until(lambda: _has(release, "busy", 3, MOST), WITHIN_S)
            led = await leader(release)
            await release.api.delete(PODS.path(release.namespace, led), {"gracePeriodSeconds": 0})
            await _apply(release, "iris", _iris(tracking_server, "models:/iris/2"), 1)
            await _apply(release, "busy", _busy(image, 2, NEXT="1"), MOST)
            for name in ("iris", "busy"):
                await until(lambda name=name: _serves_the_second(release, name), WITHIN_S)  # type: ignore[misc]
            policy = POLICIES.path(release.namespace, "trimtab-busy")
            meant = (await read(release.api, policy))["spec"]
            await release.api.merge(policy, {"spec": {"ingress": [{}]}})  # whoever likes reaches its pods
            await _upgraded_and_rolled_back(release)
            assert await leader(release) != led, "another one took over"
            await until(lambda: _has_spec(release, policy, meant), WITHIN_S)
            await _apply(release, "busy", _busy(image, 2, NEXT="1"), MOST + 1)
            await until(lambda: _has(release, "busy", 3, MOST + 1), WITHIN_S)
        await until(lambda: _has(release, "busy", 2, 3), WITHIN_S)  # one may be spare, for the next surge
    for calls in (through, few, many):
        assert calls.statuses.keys() == {"200"}, calls.statuses
    assert call(url) == {"predictions": [0]}

    for name in ("iris", "busy"):
        await release.api.delete(ENDPOINTS.path(release.namespace, name))
    await until(release.has_no_endpoint, WITHIN_S)
    await until(lambda: left(release, ()), WITHIN_S)
    for pod in await control_planes(release):
        log = (await api.get(PODS.path(release.namespace, pod, "log"))).decode()
        assert "is forbidden" not in log, "it tried what it may not"


async def test_a_definition_that_somebody_else_installed_is_named_and_nothing_is_left(
    api: Api, namespace: str
) -> None:
    """Another release, or kubectl: what would change it is not installed beside it."""
    await define(api)
    told = _refused_installation(namespace)
    assert 'CustomResourceDefinition "servingendpoints.serving.trimtab.dev"' in told
    assert "exists and cannot be imported into the current release" in told
    assert not orjson.loads(await api.get(DEPLOYMENTS.path(namespace)))["items"]
    assert not orjson.loads(await api.get(SERVICES.path(namespace)))["items"]


def _refused_installation(namespace: str) -> str:
    """What helm says, of a release with a definition of its own."""
    images = dict.fromkeys(("control-plane", "envoy", "hold", "mlflow"), "localhost/none:1")
    where = (f"--namespace={namespace}", "--kubeconfig", os.environ["KUBECONFIG"])
    command = [str(binaries.build_helm()), "install", "t", str(CHART), *where]
    command += values(namespace, images, crd__install="true")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    return done.stderr


async def _upgraded_and_rolled_back(release: Installed) -> None:
    """Each replaces the Envoys."""
    values = release.values(envoy__drainSeconds="21", **SOON)
    for arguments in (["upgrade", str(CHART), *values], ["rollback", "1"]):
        before = await envoys(release)
        models = await pods_of(release, "iris")
        release.helm(*arguments)
        await until(lambda before=before: replaced(release, before), WITHIN_S)  # type: ignore[misc]
        after = await pods_of(release, "iris")  # of the first revision some may have been leaving
        assert after <= models, "an upgrade rolls no model"
        assert {pod for pod in models if pod.startswith("iris-r2-")} <= after


def _iris(tracking_server: str, uri: str) -> Json:
    return {
        "uri": uri,
        "trackingURI": tracking_server,
        "envManager": "local",  # no package index is reached from a pod here
        "resources": {"cpu": "700m", "memory": "1Gi"},
        "concurrency": {"min": 1, "max": 1},
    }


def _busy(image: str, pods: int, **env: str) -> Json:
    return {
        "uri": "own",
        "custom": {"image": image},
        "resources": {"cpu": "10m", "memory": "32Mi"},
        "concurrency": {"min": pods, "max": 64},
        "env": {"ANSWER_AFTER": "100ms", "ANSWER_ONE_BY_ONE": "1"} | env,
    }


async def _apply(release: Installed, name: str, model: Json, max_pods: int) -> None:
    body = endpoint(release.namespace, name, {"models": [model], "maxPods": max_pods})
    await release.api.apply(ENDPOINTS.path(release.namespace, name), body, "kubectl")


async def _is_ready(release: Installed, name: str) -> bool:
    return await release.condition(name) == "True"


async def _serves_the_second(release: Installed, name: str) -> bool:
    status = (await read(release.api, ENDPOINTS.path(release.namespace, name)))["status"]
    return bool(status["servingRevision"] == 2 and status["state"] == "READY")


async def _has_spec(release: Installed, path: str, spec: Json) -> bool:
    return bool((await read(release.api, path))["spec"] == spec)


async def _has(release: Installed, name: str, least: int, most: int) -> bool:
    """So many pods are there, those that leave too."""
    return least <= len(await pods_of(release, name)) <= most


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


async def _rights(release: Installed, account: str) -> Rights:
    async with as_account(release.api, release.namespace, account) as theirs:
        return await rights(theirs, release.namespace)
