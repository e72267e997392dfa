"""Pods that Kubernetes takes away, with a real Envoy in front of them and callers who notice everything."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from deploy.cluster import lifecycle
from deploy.cluster.place import here
from tests.kube.inside import Plane, control_plane, inner_kubeconfig
from tests.kube.words import HELD_S, PODS, evict, read, until
from trimtab.control.records import Outcome
from trimtab.core.errors import Unreachable
from trimtab.core.names import EndpointName
from trimtab.core.pod import Pod, PodPhase
from trimtab.core.spec import ConcurrencyRange, Custom, EndpointSpec, ModelSpec, Resources, Source
from trimtab.kube import Api

pytestmark = pytest.mark.kube

CALLERS = 4
WITHIN_S = 180.0
ANSWER_AFTER = "200ms"


def served(image: str, pods: int, **env: str) -> EndpointSpec:
    model = ModelSpec(
        name="iris",
        source=Source(uri="own", digest="sha256:" + "ab" * 32),
        runtime="custom",
        custom=Custom(image=image),
        resources=Resources(cpu=0.05, memory_bytes=32 << 20),
        concurrency=ConcurrencyRange(min=pods, max=64),
        start_timeout_s=HELD_S,
        env=tuple(sorted({"ANSWER_AFTER": ANSWER_AFTER, **env}.items())),
    )
    return EndpointSpec((model,), max_pods=pods)


class Callers:
    """Each asks again as soon as it is answered; whatever is not the model's answer is noted."""

    def __init__(self, plane: Plane, name: EndpointName) -> None:
        self.url = f"http://127.0.0.1:{plane.port}/serving-endpoints/{name}/invocations"
        self.answered: Counter[str] = Counter()  # by pod
        self.failed: list[str] = []

    @contextlib.asynccontextmanager
    async def calling(self) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60.0)) as session:
            tasks = [asyncio.create_task(self._call(session)) for _ in range(CALLERS)]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _call(self, session: aiohttp.ClientSession) -> None:
        while True:
            try:
                async with session.post(self.url, json={"inputs": [[1.0]]}) as answer:
                    text = (await answer.text()).strip()
                    if answer.status == 200:
                        self.answered[text] += 1
                    else:
                        self.failed.append(f"{answer.status} {text}")
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self.failed.append(repr(error))

    async def more(self, count: int) -> None:
        wanted = self.answered.total() + count
        await until(lambda: self.answered.total() >= wanted or self.failed, WITHIN_S)


def ready(plane: Plane) -> list[Pod]:
    """Those that stay."""
    return [pod for pod in plane.fleet.pods() if pod.phase is PodPhase.READY and not pod.evicted]


async def serving(plane: Plane, name: EndpointName) -> None:
    """With all its pods, and Envoy knows."""
    await until(lambda: plane.endpoints.get(name).outcome is Outcome.SERVING, WITHIN_S)


async def evict_once_allowed(api: Api, pod: Pod) -> None:
    """As `kubectl drain` does it."""

    async def allowed() -> bool:
        with contextlib.suppress(Unreachable):
            await evict(api, pod.id)
            return True
        return False

    await until(allowed, WITHIN_S)


@pytest.mark.parametrize("pods", [1, 3])
async def test_evicting_every_pod_in_turn_fails_no_request(
    inside: Api, namespace: str, image: str, tmp_path: Path, pods: int
) -> None:
    name = EndpointName(namespace, "iris")
    async with control_plane(inside, namespace, tmp_path) as plane:
        plane.apply(name, served(image, pods, READY_AFTER="2s"))
        await serving(plane, name)
        callers, before = Callers(plane, name), ready(plane)
        async with callers.calling():
            await callers.more(20)
            for pod in before:
                await evict_once_allowed(inside, pod)
                await until(lambda pod=pod: pod.id not in {each.id for each in plane.fleet.pods()}, WITHIN_S)
                await callers.more(10)
            await until(lambda: len(ready(plane)) == pods, WITHIN_S)
            await callers.more(20)
        names = {pod.id.partition("/")[2] for pod in (*before, *ready(plane))}
        assert callers.failed == []
        assert names == set(callers.answered), "those before and those that came in their place, and no other"
        assert len(names) == 2 * pods


async def test_draining_one_real_node_of_two_fails_no_request(
    inside: Api, namespace: str, image: str, tmp_path: Path
) -> None:
    if len(lifecycle.real_nodes(here())) < 2:
        pytest.skip("the cluster has one node: make kube-down, then kube-up with NODES=2")
    name = EndpointName(namespace, "iris")
    async with control_plane(inside, namespace, tmp_path) as plane:
        plane.apply(name, served(image, 4, READY_AFTER="2s"))
        await serving(plane, name)
        before = {pod.node for pod in plane.fleet._seen()}
        assert before == {"node", "node-b"}, "spread over both"
        callers = Callers(plane, name)
        async with callers.calling():
            await callers.more(20)
            try:
                told = await kubectl("drain", "node-b", "--force", "--delete-emptydir-data", "--timeout=170s")
                await until(lambda: len(ready(plane)) == 4, WITHIN_S)
                await callers.more(20)
            finally:
                await kubectl("uncordon", "node-b")
        assert "node/node-b drained" in told
        assert {pod.node for pod in plane.fleet._seen()} == {"node"}
        assert callers.failed == []
        assert callers.answered.total() > 60


async def kubectl(*arguments: str) -> str:
    """What it says. It runs in the cluster's network, as we do."""
    running = await asyncio.create_subprocess_exec(
        "kubectl", "--kubeconfig", inner_kubeconfig(), *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await running.communicate()
    assert running.returncode == 0, said.decode()
    return said.decode()


async def test_pods_that_are_deleted_all_at_once_serve_until_others_do(
    inside: Api, namespace: str, image: str, tmp_path: Path
) -> None:
    name = EndpointName(namespace, "iris")
    async with control_plane(inside, namespace, tmp_path) as plane:
        plane.apply(name, served(image, 2, READY_AFTER="2s"))
        await serving(plane, name)
        callers, before = Callers(plane, name), {pod.id for pod in ready(plane)}
        async with callers.calling():
            await callers.more(10)
            await inside.delete(PODS.path(namespace))
            await until(lambda: before.isdisjoint(pod.id for pod in plane.fleet.pods()), WITHIN_S)
            await callers.more(20)
        assert callers.failed == []
        assert len(callers.answered) == 4
        shown = (await read(inside, PODS.path(namespace)))["items"]
        assert not before & {f"{namespace}/{each['metadata']['name']}" for each in shown}
