"""Models in environments of their own: other packages than ours, another Python, and what cannot be had."""

from __future__ import annotations

import os
import platform as machine
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from uv import find_uv_bin

from tests.runtime.receiver import Receiver, receiver
from trimtab.environment.interpreters import choose, installed
from trimtab.host.process import stray_members

from .conftest import DEADLINE_S, TRIMTAB

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

HERE = machine.python_version()
MLFLOW = f"mlflow=={version('mlflow')}"
OTHER = "1.7.2" if version("scikit-learn") != "1.7.2" else "1.7.1"
SCRIPT = Path(__file__).parent / "save_versions.py"


def save(folder: Path, *wanted: str, python: str = HERE) -> str:
    command = [sys.executable, str(SCRIPT), str(folder), python, *wanted]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return str(folder)


def answers(platform: Any, name: str) -> list[Any]:
    asked = {"dataframe_split": {"columns": ["x"], "data": [[1.0]]}}
    reply = requests.post(platform.url(name), json=asked, timeout=60)
    assert reply.status_code == 200, reply.text
    return list(reply.json()["predictions"])


def environment(platform: Any, name: str) -> str:
    return str(platform.status(name)["revisions"][0]["environment"])


def test_a_model_that_asks_for_another_scikit_learn_serves_with_that(platform: Any, tmp_path: Path) -> None:
    model = save(tmp_path / "model", MLFLOW, f"scikit-learn=={OTHER}")
    platform.up()
    done = platform.run("deploy", model, "--name", "other")
    assert done.returncode == 0, done.stderr
    assert f"scikit-learn=={OTHER} is wanted, trimtab's is {version('scikit-learn')}" in done.stderr
    assert answers(platform, "other") == [HERE, OTHER, 1]
    stages = {stage["name"]: stage["took_s"] for stage in platform.status("other")["stages"]}
    assert stages["environment"] > 0

    # Another model with the same requirements finds it there.
    same = save(tmp_path / "same", f"scikit-learn=={OTHER}", MLFLOW)
    Path(same, "extra").write_text("another digest")
    platform("deploy", same, "--name", "shares")
    assert answers(platform, "shares") == [HERE, OTHER, 1]
    made = [path for path in (platform.home / "environments").iterdir() if not path.name.startswith(".")]
    assert len(made) == 1
    assert environment(platform, "shares") == environment(platform, "other")

    # Opting out is an update: another revision, on what trimtab has.
    platform("deploy", model, "--name", "other", "--env-manager", "local")
    assert answers(platform, "other") == [HERE, version("scikit-learn"), 1]
    assert environment(platform, "other") == "trimtab's own: env_manager is local"
    assert platform.status("other")["serving_revision"] == 2

    # What nothing uses goes, and what a pod uses stays.
    assert f"environments/{made[0].name}" not in platform("prune")["removed"]
    platform("delete", "shares")
    assert f"environments/{made[0].name}" in platform("prune")["removed"]
    assert not made[0].exists()


@pytest.fixture
def silent_index() -> Iterator[str]:
    """The address of an index to which one can connect, and which nobody ever answers for."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/simple"


def traces_to(found: Receiver) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": found.address, "OTEL_BSP_SCHEDULE_DELAY": "100"}


def spans_of_its_pod(found: Receiver) -> bool:
    """Of the request and each of its stages, not only Envoy's."""
    names = {span.name for span in found.spans if span.service == "old.default"}
    return {"POST /invocations", "queue", "batch", "predict"} <= names


def python_3_10() -> str:
    """The Python 3.10 of this machine; empty if there is none."""
    found = choose("3.10", installed(Path(find_uv_bin()), dict(os.environ)))
    return found.version if found else ""


@pytest.mark.skipif(not python_3_10(), reason="no Python 3.10 on this machine")
def test_a_model_of_python_3_10_serves_on_it(platform: Any, tmp_path: Path, until: Any) -> None:
    model = save(tmp_path / "model", MLFLOW, "scikit-learn==1.6.1", python=python_3_10())
    with receiver() as found:
        platform.environment |= traces_to(found)
        platform.up()
        platform("deploy", model, "--name", "old")
        assert answers(platform, "old") == [python_3_10(), "1.6.1", 1]
        assert "Python 3.10 is wanted" in environment(platform, "old")
        until(lambda: spans_of_its_pod(found), what="spans, which need no package that it did not ask for")


def test_a_model_of_an_older_mlflow_serves_on_that(platform: Any, tmp_path: Path, until: Any) -> None:
    """Which pins another gunicorn, another numpy and pandas, and has another server inside."""
    model = save(tmp_path / "model", "mlflow==2.14.3", "scikit-learn==1.5.2")
    with receiver() as found:
        platform.environment |= traces_to(found)
        platform.up()
        platform("deploy", model, "--name", "old")
        assert answers(platform, "old") == [HERE, "1.5.2", 1]
        until(lambda: spans_of_its_pod(found), what="spans, with the SDK of that time")


def test_what_cannot_be_had_fails_the_deployment_and_leaves_what_serves(
    platform: Any, tmp_path: Path
) -> None:
    good = save(tmp_path / "good", MLFLOW)
    bad = save(tmp_path / "bad", MLFLOW, "scikit-learn==99.0")
    nowhere = save(tmp_path / "nowhere", MLFLOW, python="3.99.1")
    platform.up()
    platform("deploy", good, "--name", "iris")
    assert environment(platform, "iris") == "trimtab's own: the one requirement holds"
    for model, cause in ((bad, "scikit-learn==99.0"), (nowhere, "no Python 3.99 is on this machine")):
        done = platform.run("deploy", model, "--name", "iris")
        assert done.returncode == 1
        assert cause in done.stderr
        assert "--env-manager local" in done.stderr
    status = platform.status("iris")
    assert (status["state"], status["serving_revision"]) == ("UPDATE_FAILED", 1)
    assert answers(platform, "iris") == [HERE, version("scikit-learn"), 1]
    platform("deploy", nowhere, "--name", "iris", "--env-manager", "local")
    assert answers(platform, "iris") == [HERE, version("scikit-learn"), 1]


def test_a_control_plane_killed_while_it_is_made_goes_on(platform: Any, tmp_path: Path, until: Any) -> None:
    """Whoever waits for the deployment sees its end, once a control plane is there again."""
    model = save(tmp_path / "model", MLFLOW, "pandas==2.2.3")
    platform.up()
    command = [TRIMTAB, "deploy", model, "--name", "iris", "--home", str(platform.home)]
    deploying = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        until(lambda: any(is_uv(process) for process in stray_members(platform.home)), what="uv runs")
        os.kill(platform.control_pid(), signal.SIGKILL)
        platform.up()
        _, said = deploying.communicate(timeout=DEADLINE_S)
    finally:
        deploying.kill()
        deploying.wait()
    assert deploying.returncode == 0, said
    assert answers(platform, "iris") == [HERE, version("scikit-learn"), 1]
    assert "its own" in environment(platform, "iris")
    left = [path.name for path in (platform.home / "environments").iterdir()]
    assert [name for name in left if name.startswith(".making-") and "wheel" not in name] == []
    assert platform.strays("iris") == []


def test_taken_down_while_it_is_made_nothing_is_left(
    platform: Any, tmp_path: Path, until: Any, silent_index: str
) -> None:
    model = save(tmp_path / "model", MLFLOW)
    with Path(model, "requirements.txt").open("a") as requirements:
        requirements.write(f"\n--index-url {silent_index}\nnot-here-either\n")
    platform.up()
    platform("deploy", model, "--name", "iris", "--no-wait")
    words = "is being made (not-here-either is wanted, trimtab's has no not-here-either)"
    until(lambda: words in platform.status("iris")["message"], what="it is being made")
    until(lambda: any(is_uv(process) for process in stray_members(platform.home)), what="uv runs")
    platform("down")
    assert stray_members(platform.home) == []
    assert list((platform.home / "environments").iterdir()) == []


def is_uv(process: psutil.Process) -> bool:
    try:
        return "pip" in process.cmdline()
    except psutil.Error:  # it ended meanwhile
        return False
