"""Images of a registry that wants a password: a Secret of the endpoint's namespace has it, or has not."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import uuid
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.cluster import binaries, images, lifecycle
from deploy.cluster.place import here
from tests.kube.plane import Plane, on_node
from tests.kube.release import SECRETS
from tests.kube.words import applied, becomes, own
from trimtab.host.ports import free_port
from trimtab.kube import Api

pytestmark = [pytest.mark.kube, pytest.mark.usefixtures("crd"), pytest.mark.timeout(400)]

PASSWORD = uuid.uuid4().hex


@pytest.fixture
def private(tmp_path: Path) -> Iterator[str]:
    """The name of an image that no node has. On the loopback of each a registry has it by any tag."""
    if os.environ["KUBECONFIG"] != str(here().kubeconfig):
        pytest.skip("it takes nodes of a cluster of our own")
    port, archive = free_port("127.0.0.1"), tmp_path / "own.tar"
    program = tmp_path / "own"  # another one: a node keeps one image by each digest of its contents
    program.write_bytes((binaries.folder() / "answers").read_bytes() + uuid.uuid4().bytes)
    images.write_image(program, "own:1", archive)
    registry = (sys.executable, str(Path(__file__).with_name("registry.py")), str(port), str(archive))
    entered = on_node()
    entered.insert(2, "--mount")
    with contextlib.ExitStack() as running:
        for node in lifecycle.real_nodes(here()):
            command = [*entered, *node.entered, *registry, f"ann:{PASSWORD}"]
            process = running.enter_context(subprocess.Popen(command))
            running.callback(process.kill)
        yield f"127.0.0.1:{port}/own"


async def write_password(api: Api, namespace: str, registry: str, password: str) -> None:
    """As `kubectl create secret docker-registry` does; or anew."""
    auth = b64encode(f"ann:{password}".encode()).decode()
    config = json.dumps({"auths": {registry: {"username": "ann", "password": password, "auth": auth}}})
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "registry", "namespace": namespace},
        "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": b64encode(config.encode()).decode()},
    }
    await api.apply(SECRETS.path(namespace, "registry"), body)


async def test_a_registry_with_a_password_is_pulled_from_by_the_namespaces_secret(
    api: Api, plane: Plane, namespace: str, private: str
) -> None:
    """A wrong one is told, with what to do; it heals by itself once that is mended."""
    plane.kill()
    plane.pull_secrets = ("registry",)
    plane.start()
    registry = private.partition("/")[0]
    await write_password(api, namespace, registry, "wrong")
    await applied(api, namespace, "iris", own(f"{private}:1"))
    told = await becomes(api, namespace, "iris", "Degraded")
    for words in ("its image cannot be had", f"{private}:1", "401", "pull secrets"):
        assert words in told["message"], told["message"]
    await write_password(api, namespace, registry, PASSWORD)
    await becomes(api, namespace, "iris", "Ready")
