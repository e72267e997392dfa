"""The chart on a real Kubernetes: helm, our images, a real tracking server, calls through Envoy's pods."""

from __future__ import annotations

from collections.abc import Iterator

import orjson
import pytest

from tests.kube.release import (
    CHART,
    WITHIN_S,
    Installed,
    call,
    calling,
    envoys,
    has_ready,
    installation,
    leader,
    left,
    replaced,
)
from tests.kube.words import ENDPOINTS, PODS, endpoint, until
from trimtab.kube import Api, Resource

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
    ("list", "policy", "poddisruptionbudgets", ""),
]
MAY_NOT = [
    ("get", "", "secrets", ""),
    ("list", "", "secrets", ""),
    ("create", "", "pods", ""),
    ("create", "", "pods/exec", ""),
    ("create", "", "pods/proxy", ""),
    ("delete", "policy", "poddisruptionbudgets", ""),
    ("get", "", "serviceaccounts", ""),
    ("create", "", "serviceaccounts/token", ""),
    ("create", "rbac.authorization.k8s.io", "rolebindings", ""),
    ("get", "", "nodes/proxy", ""),
    ("create", "apps", "deployments", "default"),
    ("list", "serving.trimtab.dev", "servingendpoints", "default"),
    ("delete", "", "pods", "kube-system"),
]


@pytest.fixture
def installed(our_images: dict[str, str], api: Api) -> Iterator[Installed]:
    with installation(our_images) as namespace:
        yield Installed(api, namespace, our_images)


@pytest.mark.timeout(1800)
async def test_from_helm_install_to_predictions_and_away(installed: Installed, tracking_server: str) -> None:
    """Apply to first prediction; the leading control plane killed, Envoys replaced by an upgrade and again by
    a rollback: no call fails. Then nothing is left.
    """
    release, namespace = installed, installed.namespace
    await leader(release)
    await until(lambda: replaced(release, set()), WITHIN_S)
    assert len(await envoys(release)) == 2
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
    url = await release.url("iris")
    assert call(url) == {"predictions": [0]}
    told = release.cli("why", "iris")  # of two that are ready, the one that leads
    assert told.returncode == 0, told.stderr
    with calling(url, 2) as through:
        led = await leader(release)
        await release.api.delete(PODS.path(namespace, led), {"gracePeriodSeconds": 0})
        for arguments in (
            ["upgrade", str(CHART), *release.values(envoy__drainSeconds="21")],
            ["rollback", "1"],
        ):
            before = await envoys(release)
            release.helm(*arguments)
            await until(lambda before=before: replaced(release, before), WITHIN_S)  # type: ignore[misc]
        assert await leader(release) != led, "another one took over"
    assert through.statuses.keys() == {"200"}, through.statuses

    await release.api.delete(path)
    await until(release.has_no_endpoint, WITHIN_S)
    await until(lambda: has_ready(release, 0), 30.0)
    await until(lambda: left(release, ()), 30.0)


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


async def _is(release: Installed, status: str) -> bool:
    return await release.condition("iris") == status
