"""The model cache of a node: a real tracking server whose requests are counted, our chart, real pods."""

from __future__ import annotations

import asyncio
import os
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import orjson
import pytest

from tests.kube import tracking
from tests.kube.release import Installed, call, installation, is_ready, leader
from tests.kube.words import ENDPOINTS, PODS, endpoint, until
from trimtab.fleet.kubernetes.template import ENDPOINT
from trimtab.kube import Api, Json

pytestmark = pytest.mark.kube

WITHIN_S = 300.0  # Python and MLflow start, on a busy machine
FLIP = """
import pathlib
(kept,) = pathlib.Path("/models/cache").glob("*/*/*.*")
held = bytearray(kept.read_bytes())
held[-1] ^= 1
kept.write_bytes(held)
"""


@pytest.fixture
def installed(our_images: dict[str, str], api: Api) -> Iterator[Installed]:
    more = {
        "modelCache.enabled": "true",
        "modelCache.size": "100Mi",
    }
    with installation(our_images, **more) as namespace:
        yield Installed(api, namespace, our_images)


@dataclass(frozen=True)
class Registry:
    """The tracking server at an address of its own, which a test may take away."""

    api: Api
    namespace: str
    address: str
    service: str

    async def goes(self) -> None:
        nobody = {"spec": {"selector": {"app": "nobody"}}}
        await self.api.merge(tracking.SERVICES.path(self.namespace, self.service), nobody)


@pytest.fixture
async def registry(api: Api, tracking_server: str) -> AsyncIterator[Registry]:
    if "TRIMTAB_KUBE_TRACKING" in os.environ:
        pytest.skip("that tracking server is not ours to take away")
    namespace = str(urlsplit(tracking_server).hostname).partition(".")[2]
    name = f"away-{uuid.uuid4().hex[:8]}"
    yield Registry(api, namespace, await tracking.serve(api, namespace, name), name)
    await api.delete(tracking.SERVICES.path(namespace, name))


def wanted(address: str) -> Json:
    model = {
        "uri": "models:/iris/1",
        "trackingURI": address,
        "envManager": "local",
        "resources": {"cpu": "700m", "memory": "1Gi"},
        "concurrency": {"min": 1, "max": 1},
        "nodeSelector": {"kubernetes.io/hostname": "node"},
    }
    return {"models": [model]}


async def pod_after(release: Installed, name: str, before: str = "") -> str:
    """The name of the endpoint's one pod that is ready, once it is another one."""
    found: list[str] = []

    async def ready() -> bool:
        pods = await release.pods(f"{ENDPOINT}={name}")
        found[:] = [pod["metadata"]["name"] for pod in pods if is_ready(pod)]
        return len(found) == len(pods) == 1 and found[0] != before

    await until(ready, WITHIN_S)
    return found[0]


async def replaced(release: Installed, name: str, before: str) -> tuple[str, str]:
    """A pod is deleted: the one in its place, and how that one came by its model."""
    await release.api.delete(PODS.path(release.namespace, before))
    found = await pod_after(release, name, before)
    return found, await told(release, found)


async def told(release: Installed, pod: str) -> str:
    log = await release.api.get(PODS.path(release.namespace, pod, "log"), {"container": "model"})
    return "\n".join(line for line in log.decode().splitlines() if line.startswith("model: "))


async def downloads(registry: Registry) -> int:
    """Files of models that the tracking server was asked for; of other requests there are some."""
    log = (await registry.api.get(PODS.path(registry.namespace, "mlflow", "log"))).decode()
    asked = [line for line in log.splitlines() if '"GET ' in line]
    return sum("/mlflow-artifacts/artifacts/" in line for line in asked)


@pytest.mark.timeout(1800)
async def test_the_second_pod_of_a_node_downloads_nothing_and_starts_without_the_registry(
    installed: Installed, registry: Registry
) -> None:
    release, address = installed, registry.address
    await leader(release)
    spec, others = wanted(address), await downloads(registry)
    await release.api.create(ENDPOINTS.path(release.namespace), endpoint(release.namespace, "iris", spec))
    first = await pod_after(release, "iris")
    assert f"from {address}" in await told(release, first)
    before = await downloads(registry)
    assert before > others, "it writes down what it is asked"

    second, said = await replaced(release, "iris", first)
    assert "this node's model cache, as http" in said
    assert await downloads(registry) == before

    exec_in_cache(release, FLIP)
    third, said = await replaced(release, "iris", second)
    assert "is not what was brought there, and is fetched anew" in said
    assert await downloads(registry) > before

    await registry.goes()
    _, said = await replaced(release, "iris", third)
    assert "fetched anew" not in said, "what was fetched is in the place of what was damaged"
    assert f"since {address} does not answer" in said
    assert await asyncio.to_thread(call, await release.url("iris")) == {"predictions": [0]}

    await release.api.create(ENDPOINTS.path(release.namespace), endpoint(release.namespace, "other", spec))
    await until(lambda: says(release, "other", "does not answer"), WITHIN_S)


async def says(release: Installed, name: str, words: str) -> bool:
    status = orjson.loads(await release.api.get(ENDPOINTS.path(release.namespace, name))).get("status") or {}
    return any(words in each.get("message", "") for each in status.get("conditions") or ())


def exec_in_cache(release: Installed, script: str) -> None:
    pod = kubectl(
        release, "get", "pods", "--selector=app.kubernetes.io/component=model-cache",
        "--field-selector=spec.nodeName=node", "--output=name",
    ).strip()  # fmt: skip
    kubectl(release, "exec", pod, "--", "python", "-c", script)


def kubectl(release: Installed, *arguments: str) -> str:
    command = [
        "kubectl",
        "--kubeconfig",
        os.environ["KUBECONFIG"],
        "--namespace",
        release.namespace,
        *arguments,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
