"""A ResourceQuota that is exceeded: what is told, that nobody is disturbed, and that raising it heals."""

from __future__ import annotations

import pytest

from tests.kube.plane import Plane
from tests.kube.release import one_by_one
from tests.kube.words import ENDPOINTS, applied, becomes, condition, read, until
from trimtab.kube import Api, Resource

pytestmark = [pytest.mark.kube, pytest.mark.usefixtures("crd")]

QUOTAS = Resource("v1", "resourcequotas")
HEALED_WITHIN_S = 120.0


async def limited(api: Api, namespace: str, **hard: str) -> None:
    """By the quota `team`, once the API server counts."""
    wanted = {name.replace("_", "/").replace("-", "."): most for name, most in hard.items()}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "team"}}
    await api.apply(QUOTAS.path(namespace, "team"), quota | {"spec": {"hard": wanted}}, "kubectl")

    async def counted() -> bool:
        return bool((await read(api, QUOTAS.path(namespace, "team"))).get("status", {}).get("hard") == wanted)

    await until(counted)


async def serves(api: Api, namespace: str, pods: str) -> bool:
    status = (await read(api, ENDPOINTS.path(namespace, "iris"))).get("status", {})
    degraded = await condition(api, namespace, "iris", "Degraded")
    return bool(status.get("pods") == pods and degraded["status"] == "False")


async def test_pods_that_a_quota_refuses_are_told_and_come_once_it_is_raised(
    api: Api, plane: Plane, namespace: str, image: str
) -> None:
    await limited(api, namespace, pods="2")
    await applied(api, namespace, "iris", one_by_one(image, 64, 64, 3))  # whatever limit is learned
    await becomes(api, namespace, "iris", "Ready")
    told = await becomes(api, namespace, "iris", "Degraded")
    assert told["reason"] == "Capped"
    for words in (
        f"the namespace `{namespace}`", "exceeded quota: team", "used: pods=2, limited: pods=2",
        "raise the ResourceQuota `team`", "lower maxPods",
    ):  # fmt: skip
        assert words in told["message"], told["message"]
    with plane.calling("iris", 2) as calls:
        await limited(api, namespace, pods="5")
        await until(lambda: serves(api, namespace, "3/3"), HEALED_WITHIN_S)
    assert set(calls["statuses"]) == {"200"}, calls


async def test_a_deployment_that_a_quota_refuses_is_told_and_made_once_it_is_raised(
    api: Api, plane: Plane, namespace: str, image: str
) -> None:
    await limited(api, namespace, **{"count_deployments-apps": "0"})
    await applied(api, namespace, "iris", one_by_one(image, 1, 8, 3))
    told = await becomes(api, namespace, "iris", "Degraded")
    assert told["reason"] == "Capped"
    for words in (
        "exceeded quota: team",
        "limited: count/deployments.apps=0",
        "raise the ResourceQuota `team`",
    ):
        assert words in told["message"], told["message"]
    assert (await condition(api, namespace, "iris", "Ready"))["status"] == "False"
    await limited(api, namespace, **{"count_deployments-apps": "1"})
    await becomes(api, namespace, "iris", "Ready")
    await until(lambda: serves(api, namespace, "1/1"), HEALED_WITHIN_S)
