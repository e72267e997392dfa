"""As many Envoys as the load takes: more under traffic, fewer once it has gone, and no call fails."""

from __future__ import annotations

from collections.abc import Iterator

import orjson
import pytest

from tests.kube.release import (
    CHART,
    DEPLOYMENTS,
    WITHIN_S,
    Installed,
    calling,
    envoys,
    installation,
    leader,
    one_by_one,
    serves,
)
from tests.kube.words import ENDPOINTS, PODS, endpoint, until
from trimtab.kube import Api

pytestmark = pytest.mark.kube

MOST = 4
# A test has no traffic that keeps two Envoys half busy: here a fiftieth is enough. What they tell is true.
SMALL = {
    "envoy__max": str(MOST),
    "controlPlane__env__TRIMTAB_ENVOY_AIM": "0.02",
    "controlPlane__env__TRIMTAB_DOWN_WINDOW_S": "10.0",
}
FEW, MANY = 1, 48  # calls at once


@pytest.fixture
def installed(our_images: dict[str, str], api: Api) -> Iterator[Installed]:
    with installation(our_images, **SMALL) as namespace:
        yield Installed(api, namespace, our_images)


@pytest.mark.timeout(1200)
async def test_envoys_come_and_go_with_the_load_and_no_call_fails(installed: Installed, image: str) -> None:
    release, path = installed, ENDPOINTS.path(installed.namespace, "quick")
    await leader(release)
    spec = one_by_one(image, 64, 64, 1)
    spec["models"][0]["env"] = {}  # it answers at once: the work is Envoy's
    await release.api.apply(path, endpoint(release.namespace, "quick", spec), "kubectl")
    await until(lambda: serves(release, "quick", 1), WITHIN_S)
    await until(lambda: ready(release, 2, 2), WITHIN_S)
    url = await release.url("quick")
    with calling(url, FEW) as few:
        with calling(url, MANY) as many:
            await until(lambda: ready(release, 3, MOST), WITHIN_S)
            release.helm("upgrade", str(CHART), *release.values(domain="elsewhere", **SMALL))
            assert await asked_for(release) >= 3, "an upgrade of the chart changes no count"
            await leader(release)
            await until(lambda: ready(release, 3, MOST), WITHIN_S)
        await until(lambda: ready(release, 2, 2), WITHIN_S)
    for calls in (few, many):
        assert calls.statuses.keys() == {"200"}, calls.statuses
    assert "; 2 were enough in the last 10 s" in await log_of(release, await leader(release))


async def ready(release: Installed, least: int, most: int) -> bool:
    """So many Envoys are ready, and no other one is there, not one that drains either."""
    found = await envoys(release)
    return least <= len(found) <= most and found == await envoys(release, ready=True)


async def asked_for(release: Installed) -> int:
    return int(
        orjson.loads(await release.api.get(DEPLOYMENTS.path(release.namespace, "t-envoy", "scale")))["spec"][
            "replicas"
        ]
    )


async def log_of(release: Installed, pod: str) -> str:
    return (
        await release.api.get(PODS.path(release.namespace, pod, "log"), accept="text/plain, */*")
    ).decode()
