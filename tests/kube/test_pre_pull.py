"""Images on a node that has only just joined, before its first model."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from deploy.cluster import binaries, images, lifecycle
from deploy.cluster.place import here
from tests.kube.plane import on_node
from tests.kube.release import CHART, DEPLOYMENTS, is_ready
from tests.kube.words import HOLD, PODS, Make, read, until
from trimtab.core.clock import SystemClock
from trimtab.core.errors import NotFound
from trimtab.core.pod import PodPhase
from trimtab.core.spec import Placement
from trimtab.fleet.kubernetes import KubernetesFleet
from trimtab.host.ports import free_port
from trimtab.kube import Api, Json, Resource

pytestmark = pytest.mark.kube

NODES = Resource("v1", "nodes")
DAEMONS = Resource("apps/v1", "daemonsets")
JOINS = "node-b"
WITHIN_S = 120.0


@pytest.fixture
def pulled(tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """An image that no node has, and the registry that has it, on the second node's loopback."""
    if os.environ["KUBECONFIG"] != str(here().kubeconfig) or len(lifecycle.real_nodes(here())) < 2:
        pytest.skip("it takes a cluster of our own with two nodes: make kube-down, then kube-up with NODES=2")
    (node,) = (node for node in here().nodes if node.name == JOINS)
    port, archive = free_port("127.0.0.1"), tmp_path / "own.tar"
    name = f"127.0.0.1:{port}/own:{uuid.uuid4().hex[:8]}"
    program = tmp_path / "own"  # another one: a node keeps one image by each digest of its contents
    program.write_bytes((binaries.folder() / "answers").read_bytes() + uuid.uuid4().bytes)
    images.write_image(program, name, archive)
    entered = on_node()
    entered.insert(2, "--mount")
    command = [*entered, *node.entered, sys.executable, str(Path(__file__).with_name("registry.py"))]
    with subprocess.Popen([*command, str(port), str(archive)]) as registry:
        try:
            yield name, registry
        finally:
            registry.kill()


def daemon(namespace: str, name: str) -> Json:
    """What the chart makes of it."""
    said = {
        "images.controlPlane": "none",
        "images.envoy": "none",
        "images.hold": HOLD,
        "envoy.allowAnonymous": "true",
        "prePull.enabled": "true",
        "prePull.images[0]": name,
        "prePull.nodeSelector.kubernetes\\.io/hostname": JOINS,
    }
    command = [str(binaries.build_helm()), "template", "t", str(CHART), f"--namespace={namespace}"]
    command += [
        "--show-only=templates/pre-pull.yaml",
        *(f"--set={key}={value}" for key, value in said.items()),
    ]
    found: Json = yaml.safe_load(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return found


@pytest.mark.timeout(600)
async def test_on_a_node_that_has_only_just_joined_images_are_there_before_the_first_model(
    api: Api, namespace: str, revision: Make, pulled: tuple[str, subprocess.Popen[bytes]]
) -> None:
    name, registry = pulled
    await api.delete(NODES.path(name=JOINS))
    await api.create(DAEMONS.path(namespace), daemon(namespace, name))
    restart_kubelet(JOINS)
    await until(lambda: joined(api), WITHIN_S)
    await until(lambda: has_pulled(api, namespace), WITHIN_S)
    registry.kill()
    registry.wait()

    wanted = revision(image=name)
    there = replace(wanted.model, placement=Placement((("kubernetes.io/hostname", JOINS),)))
    fleet = KubernetesFleet(api, SystemClock(), {}, namespace)
    await fleet.open()
    try:
        await fleet.start_pod(replace(wanted, model=there))
        await until(lambda: [pod.phase for pod in fleet.pods()] == [PodPhase.READY], WITHIN_S)
    finally:
        await fleet.close()
    for deployment in (await read(api, DEPLOYMENTS.path(namespace)))["items"]:
        await api.delete(DEPLOYMENTS.path(namespace, deployment["metadata"]["name"]))


def restart_kubelet(node: str) -> None:
    """It registers its node when it begins, and is begun again whenever it ends."""
    wanted = {f"--hostname-override={node}", f"--kubeconfig={here().folder / node}.kubeconfig"}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if wanted <= set(path.read_text().split("\0")):
                os.kill(int(path.parent.name), signal.SIGTERM)
                return
    raise AssertionError(f"no kubelet of {node}")


async def joined(api: Api) -> bool:
    try:
        return is_ready(await read(api, NODES.path(name=JOINS)))
    except NotFound:
        return False


async def has_pulled(api: Api, namespace: str) -> bool:
    shown = await read(api, PODS.path(namespace))
    return [is_ready(pod) for pod in shown["items"]] == [True]
