"""`trimtab --kube-context`: what a command says of a cluster is what it says of a machine of one's own."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kube.plane import Plane, on_node
from tests.kube.release import DEPLOYMENTS, names
from tests.kube.words import ENDPOINTS, applied, context_name, own, read, until
from trimtab.kube import Api

pytestmark = [pytest.mark.kube, pytest.mark.usefixtures("crd")]

REFUSED = 5  # the exit status where somebody else owns what would change
AGES = re.compile(r"\d+ (s|min) +")
SETTINGS = ("--set", "resources.cpu=10m", "--set", "resources.memory=32Mi")
MANIFEST = """\
apiVersion: serving.trimtab.dev/v1alpha1
kind: ServingEndpoint
metadata: {{name: iris}}
spec:
  models:
  - uri: own
    custom: {{image: {image}}}
    resources: {{cpu: 10m, memory: 32Mi}}
    concurrency: {{min: 1, max: 8}}
    env: {{GREETING: hello}}
"""

Run = Callable[..., subprocess.CompletedProcess[str]]


async def test_the_command_line_reaches_a_cluster(
    api: Api, plane: Plane, namespace: str, image: str, door: tuple[str, ...], tmp_path: Path
) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return plane.cli(*words, "-n", namespace, cluster=door)

    def beside(*words: str) -> subprocess.CompletedProcess[str]:
        return plane.cli(*words, "-n", namespace)

    deployed = run("deploy", "own", "--name", "iris", "--image", image, *SETTINGS)
    assert deployed.returncode == 0, deployed.stderr
    assert f"iris.{namespace} is READY, generation 1, revision 1" in deployed.stderr
    asked = await read(api, ENDPOINTS.path(namespace, "iris"))
    assert asked["spec"]["models"][0]["custom"]["image"] == image

    for words in (("status", "iris"), ("top",)):
        # In the end: what a pod uses, and what was decided last, may become known between the two.
        await until(lambda words=words: as_beside(run(*words), beside(*words)))  # type: ignore[misc]
    (change,) = json.loads(run("history", "iris", "--json").stdout)["changes"]
    assert change["by"].endswith(socket.gethostname())
    assert "listening on" in run("logs", "iris").stdout
    assert run("why", "iris").returncode == 0

    a_file_is_applied(run, MANIFEST.format(image=image), tmp_path / "iris.yaml", namespace)
    what_was_before_is_served_again(run, beside, namespace)
    await what_somebody_else_owns_is_left_to_them(api, run, namespace, image)

    deleted = run("delete", "iris")
    assert deleted.returncode == 0, deleted.stderr
    assert names(await api.get(DEPLOYMENTS.path(namespace))) == []


def as_beside(told: subprocess.CompletedProcess[str], other: subprocess.CompletedProcess[str]) -> bool:
    assert told.returncode == other.returncode == 0, told.stderr + other.stderr
    assert "iris" in told.stdout
    return AGES.sub("", told.stdout) == AGES.sub("", other.stdout)


def a_file_is_applied(run: Run, manifest: str, file: Path, namespace: str) -> None:
    file.write_text(manifest)
    told = run("apply", "-f", str(file))
    assert told.returncode == 0, told.stderr
    assert f"iris.{namespace} is READY, generation 2, revision 2" in told.stderr
    (line,) = told.stdout.splitlines()  # a command to paste
    answer = subprocess.run(on_node("sh", "-c", line), capture_output=True, text=True, timeout=60, check=True)
    assert answer.stdout.startswith("iris-r2-"), answer


def what_was_before_is_served_again(run: Run, beside: Run, namespace: str) -> None:
    told = run("rollback", "iris")
    assert told.returncode == 0, told.stderr
    assert f"iris.{namespace} is READY, generation 3, revision 1" in told.stderr
    told = run("history", "iris")
    assert told.stdout == beside("history", "iris").stdout
    assert "rolled back from revision 2 to 1" in told.stdout.splitlines()[1], told.stdout


async def what_somebody_else_owns_is_left_to_them(api: Api, run: Run, namespace: str, image: str) -> None:
    theirs = own(image, 2, 9, GREETING="theirs")
    await applied(api, namespace, "iris", theirs)  # by kubectl, which owns the spec from now on
    for words in (
        ("deploy", "own", "--name", "iris", "--image", image, "--concurrency", "1..4"),
        ("rollback", "iris", "2"),
    ):
        refused = run(*words)
        assert refused.returncode == REFUSED, (words, refused.stderr)
        assert "kubectl" in refused.stderr
        assert "hint: change it where it is declared" in refused.stderr


async def test_a_cluster_without_a_control_plane_is_told(plane: Plane, namespace: str) -> None:
    told = plane.cli("status", cluster=("--kube-context", context_name(), "--kube-namespace", namespace))
    assert told.returncode == 4
    assert "no control plane is ready there" in told.stderr
    told = plane.cli("status", cluster=("--kube-context", "nowhere"))
    assert told.returncode == 2
    assert "hint: see `kubectl config get-contexts`" in told.stderr
