"""Where the scheduler puts pods of a revision, and Envoys: on nodes of three zones that only pretend."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

import orjson
import pytest
import yaml

from deploy.cluster import binaries
from tests.kube.release import CHART, DEPLOYMENTS, values
from tests.kube.words import HOLD, PODS, Make, read, until
from trimtab.core.clock import SystemClock
from trimtab.core.pod import PodPhase
from trimtab.core.revision import Revision
from trimtab.core.spec import Placement, Toleration
from trimtab.fleet.kubernetes import HOLD_IMAGE, HOSTNAME, KubernetesFleet
from trimtab.fleet.kubernetes.template import MAX_SKEW
from trimtab.kube import Api, Json, Resource

pytestmark = pytest.mark.kube

NODES = Resource("v1", "nodes")
ZONE = "topology.kubernetes.io/zone"
OURS = "trimtab-tests/spread"  # a label of them, by which pods ask for these alone
ZONES = ("a", "a", "a", "a", "b", "c")  # of each node: over nodes alone most pods would be in `a`
BY = "kwok.x-k8s.io/node"  # who plays them; pods have to tolerate it
RANGES_FROM = 228  # of 10.0.0.0/8: those of the nodes that the cluster came with are below


@dataclass(frozen=True)
class Nodes:
    """Six that are empty, of which those in `zone_of` say where."""

    api: Api
    namespace: str
    zone_of: dict[str, str]

    def placement(self, *, tolerated: bool = True) -> Placement:
        """On these nodes alone."""
        tolerations = (Toleration(BY, "Equal", "fake", "NoSchedule"),) if tolerated else ()
        return Placement(((OURS, self.namespace),), tolerations)

    async def pods(self, selector: str = "") -> list[str]:
        """Of each pod the node that the scheduler has chosen; empty: none yet."""
        listed = await self.api.get(PODS.path(self.namespace), {"labelSelector": selector})
        return [each["spec"].get("nodeName", "") for each in orjson.loads(listed)["items"]]

    async def chosen(self, count: int, selector: str = "") -> Counter[str]:
        """How many pods each has, once all have one."""

        async def all_have() -> bool:
            found = await self.pods(selector)
            return len(found) == count and all(found)

        await until(all_have)
        found = Counter(dict.fromkeys(self.zone_of, 0))
        found.update(await self.pods(selector))
        return found

    def by_zone(self, chosen: Counter[str]) -> Counter[str]:
        found: Counter[str] = Counter()
        for node, count in chosen.items():
            found[self.zone_of[node]] += count
        return found


def skew(counts: Counter[str]) -> int:
    return max(counts.values()) - min(counts.values())


def node(name: str, number: int, zone: str, owner: str) -> Json:
    room = {"cpu": "64", "memory": "256Gi", "pods": "110"}
    labels = {HOSTNAME: name, ZONE: zone, OURS: owner, "kubernetes.io/os": "linux", "type": "kwok"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": {BY: "fake"}},
        "spec": {
            "podCIDR": f"10.{RANGES_FROM + number}.0.0/16",
            "taints": [{"key": BY, "value": "fake", "effect": "NoSchedule"}],
        },
        "status": {"allocatable": room, "capacity": room},
    }


@pytest.fixture
async def nodes(api: Api, namespace: str) -> AsyncIterator[Nodes]:
    there = (await read(api, NODES.path()))["items"]
    if not any(each["metadata"].get("labels", {}).get("type") == "kwok" for each in there):
        pytest.skip("nobody plays nodes here: FAKE_NODES=1 make kube-up brings one who does")
    zone_of = {f"{namespace}-{number}": zone for number, zone in enumerate(ZONES)}
    for number, (name, zone) in enumerate(zone_of.items()):
        await api.create(NODES.path(), node(name, number, zone, namespace))
    try:
        await until(lambda: schedulable(api, zone_of))
        yield Nodes(api, namespace, zone_of)
    finally:
        for name in zone_of:
            await api.delete(NODES.path(name=name))


async def schedulable(api: Api, names: dict[str, str]) -> bool:
    """All are ready, and nothing is said against them but who plays them."""
    listed = (await read(api, NODES.path()))["items"]
    taints = [
        [each["key"] for each in item["spec"].get("taints") or ()]
        for item in listed
        if item["metadata"]["name"] in names
    ]
    return taints == [[BY]] * len(names)


async def asked_for(nodes: Nodes, revision: Revision, count: int, keys: Sequence[str]) -> None:
    """As a control plane with these topology keys asks for pods."""
    fleet = KubernetesFleet(nodes.api, SystemClock(), {HOLD_IMAGE: HOLD}, nodes.namespace, topology_keys=keys)
    await fleet.open()
    try:
        for _ in range(count):
            await fleet.start_pod(revision)
        await until(lambda: made(nodes, count))
    finally:
        await fleet.close()


async def made(nodes: Nodes, count: int) -> bool:
    return len(await nodes.pods()) == count


def placed(revision: Revision, placement: Placement) -> Revision:
    return replace(revision, model=replace(revision.model, placement=placement))


async def test_pods_of_a_revision_are_on_all_nodes(nodes: Nodes, revision: Make) -> None:
    await asked_for(nodes, placed(revision(), nodes.placement()), 8, (HOSTNAME,))
    assert skew(await nodes.chosen(8)) <= MAX_SKEW


async def test_where_zones_are_named_too_pods_are_in_all_of_them(nodes: Nodes, revision: Make) -> None:
    """Three pods over nodes alone would be in `a` more often than not."""
    await asked_for(nodes, placed(revision(), nodes.placement()), 3, (HOSTNAME, ZONE))
    chosen = await nodes.chosen(3)
    assert nodes.by_zone(chosen) == {"a": 1, "b": 1, "c": 1}
    assert skew(chosen) <= MAX_SKEW


async def test_one_node_holds_them_all_where_no_other_one_takes_any(nodes: Nodes, revision: Make) -> None:
    """The others are there, and empty: what had to be even would wait for them."""
    only, *others = nodes.zone_of
    for each in others:
        await nodes.api.merge(NODES.path(name=each), {"spec": {"unschedulable": True}})
    await asked_for(nodes, placed(revision(), nodes.placement()), 4, (HOSTNAME, ZONE))
    assert (await nodes.chosen(4))[only] == 4


async def test_a_node_that_is_not_tolerated_gets_none_and_it_is_told(nodes: Nodes, revision: Make) -> None:
    fleet = KubernetesFleet(nodes.api, SystemClock(), {HOLD_IMAGE: HOLD}, nodes.namespace)
    await fleet.open()
    try:
        wanted = placed(revision(), nodes.placement(tolerated=False))
        await fleet.start_pod(wanted)
        await until(lambda: "untolerated taint" in fleet.room(wanted).why)
        assert [(pod.phase, pod.blocked) for pod in fleet.pods()] == [(PodPhase.STARTING, True)]
        assert await nodes.pods() == [""]
    finally:
        await fleet.close()


async def test_envoys_are_in_all_zones(nodes: Nodes, image: str) -> None:
    """The Deployment as the chart has it, with as many as a control plane would ask for."""
    deployment = chart_s_envoys(nodes, image)
    deployment["spec"]["replicas"] = 3
    await nodes.api.create(DEPLOYMENTS.path(nodes.namespace), deployment)
    chosen = await nodes.chosen(3, "app.kubernetes.io/component=envoy")
    assert nodes.by_zone(chosen) == {"a": 1, "b": 1, "c": 1}
    assert skew(chosen) <= MAX_SKEW


def chart_s_envoys(nodes: Nodes, image: str) -> Json:
    said = dict(nodes.placement().node_selector)
    selected = {f"envoy.nodeSelector.{key.replace('.', chr(92) + '.')}": value for key, value in said.items()}
    images = dict.fromkeys(("control-plane", "envoy", "hold", "mlflow"), image)
    command = [str(binaries.build_helm()), "template", "t", str(CHART), f"--namespace={nodes.namespace}"]
    command += values(nodes.namespace, images, **selected, topologyKeys=f"{{{HOSTNAME},{ZONE}}}")
    command += [f"--set=envoy.tolerations[0].key={BY}", "--set=envoy.tolerations[0].operator=Exists"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    objects = yaml.load_all(done.stdout, yaml.CSafeLoader)
    (found,) = (
        each
        for each in objects
        if each and (each["kind"], each["metadata"]["name"]) == ("Deployment", "t-envoy")
    )
    return dict(found)
