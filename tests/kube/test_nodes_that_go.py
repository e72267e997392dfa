"""A node that is cordoned, with a real Envoy in front of its pods: they move before anybody evicts them."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.cluster import lifecycle
from deploy.cluster.place import here
from tests.kube.inside import Plane, control_plane
from tests.kube.test_taken_away import WITHIN_S, Callers, kubectl, ready, served, serving
from tests.kube.words import until
from trimtab.core.names import EndpointName
from trimtab.kube import Api

pytestmark = pytest.mark.kube


def nodes(plane: Plane) -> set[str]:
    return {pod.node for pod in plane.fleet._seen()}


@pytest.fixture(autouse=True)
def _two_nodes() -> None:
    if len(lifecycle.real_nodes(here())) < 2:
        pytest.skip("the cluster has one node: make kube-down, then kube-up with NODES=2")


@pytest.mark.parametrize(
    ("goes", "stays"),
    [
        (("cordon", "node-b"), ("uncordon", "node-b")),
        (
            ("taint", "nodes", "node-b", "ToBeDeletedByClusterAutoscaler=1:NoSchedule"),
            ("taint", "nodes", "node-b", "ToBeDeletedByClusterAutoscaler-"),
        ),
    ],
)
async def test_pods_of_a_node_that_goes_are_elsewhere_before_they_are_evicted(
    inside: Api, namespace: str, image: str, tmp_path: Path, goes: tuple[str, ...], stays: tuple[str, ...]
) -> None:
    name = EndpointName(namespace, "iris")
    async with control_plane(inside, namespace, tmp_path, watch_nodes=True) as plane:
        plane.apply(name, served(image, 4, READY_AFTER="2s"))
        await serving(plane, name)
        assert nodes(plane) == {"node", "node-b"}, "spread over both"
        before = {pod.id for pod in ready(plane) if not pod.node_goes}
        assert len(before) == 4
        callers, most = Callers(plane, name), 0
        async with callers.calling():
            await callers.more(20)
            try:
                await kubectl(*goes)

                def moved() -> bool:
                    nonlocal most
                    most = max(most, len(plane.fleet.pods()))
                    return nodes(plane) == {"node"} and len(ready(plane)) == 4

                await until(moved, WITHIN_S)
                await callers.more(20)
            finally:
                await kubectl(*stays)
        assert callers.failed == []
        assert 4 < most <= 8
        kept = before & {pod.id for pod in ready(plane)}
        assert kept, "those of the other node served on"


async def test_a_cordon_that_is_taken_back_changes_nothing_more(
    inside: Api, namespace: str, image: str, tmp_path: Path
) -> None:
    name = EndpointName(namespace, "iris")
    async with control_plane(inside, namespace, tmp_path, watch_nodes=True) as plane:
        plane.apply(name, served(image, 2, READY_AFTER="12s"))
        await serving(plane, name)
        before = {pod.id for pod in ready(plane)}
        callers = Callers(plane, name)
        async with callers.calling():
            try:
                await kubectl("cordon", "node-b")
                await until(
                    lambda: len(plane.fleet.pods()) > 2, WITHIN_S
                )  # asked for, and not there for a while
            finally:
                await kubectl("uncordon", "node-b")
            await until(lambda: {pod.id for pod in plane.fleet.pods()} == before, WITHIN_S)
            await callers.more(20)
        assert callers.failed == []
        assert set(callers.answered) == {each.partition("/")[2] for each in before}, (
            "no other one ever served"
        )
