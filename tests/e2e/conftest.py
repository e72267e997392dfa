"""A whole platform for each test: the real command, the real Envoy, real MLflow models, real traffic.

What a test starts in its home is taken down with it, whatever happened.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
import requests

from trimtab.host.ports import free_port
from trimtab.host.process import stray_members

ROOT = Path(__file__).parents[2]
TRIMTAB = Path(sys.executable).parent / "trimtab"
LOAD = ROOT / "bench" / "load.py"
BODY = json.dumps({"inputs": [[5.1, 3.5, 1.4, 0.2]]})

Seen = TypeVar("Seen")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Paths of saved models by their name in `save_models.SOURCES`."""
    folder = tmp_path_factory.mktemp("models")
    script = Path(__file__).parent / "save_models.py"
    subprocess.run([sys.executable, script, folder], check=True, timeout=180, capture_output=True)
    return {path.name: str(path) for path in folder.iterdir() if (path / "MLmodel").is_file()}


class Traffic:
    """An open-loop load that runs beside the test."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def end(self) -> dict[str, Any]:
        """Stop it, and return the totals of what was sent."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.result()

    def result(self) -> dict[str, Any]:
        """Wait until it is done, and return its totals."""
        output, errors = self.process.communicate(timeout=180)
        lines = [json.loads(line) for line in output.splitlines()]
        totals = [line for line in lines if line["kind"] == "total"]
        assert totals, f"the load generator broke: {errors}"
        return totals[0]


class Platform:
    """One home, driven by the command line as a user would."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        self.home = home
        self.listen = f"127.0.0.1:{free_port('127.0.0.1')}"
        self.environment = {**os.environ, **environment}

    def run(self, *arguments: str, timeout_s: float = 180.0) -> subprocess.CompletedProcess[str]:
        """`trimtab ARGUMENTS --home HOME`, whatever its exit status."""
        return subprocess.run(
            [TRIMTAB, *arguments, "--home", self.home],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def __call__(self, *arguments: str) -> dict[str, Any]:
        """The same with --json; it must succeed."""
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, f"trimtab {' '.join(arguments)}: {done.stdout}{done.stderr}{self.log()}"
        return dict(json.loads(done.stdout)) if done.stdout.strip() else {}

    def up(self, *arguments: str) -> None:
        self("up", "--listen", self.listen, "--detach", *arguments)

    def foreground(self) -> subprocess.Popen[bytes]:
        """`trimtab up` as somebody's own terminal runs it; returns once it answers."""
        command = [TRIMTAB, "up", "--listen", self.listen, "--home", self.home]
        silent = subprocess.DEVNULL
        started = subprocess.Popen(command, env=self.environment, stdout=silent, stderr=silent)
        until(lambda: self.run("status").returncode == 0, within_s=30, what="it is up")
        return started

    def ask(self, name: str, seconds: float) -> int:
        """The status of one request to a model that answers after so many seconds."""
        row = [seconds, 0.0, 0.0, 0.0]
        return int(requests.post(self.url(name), json={"inputs": [row]}, timeout=90).status_code)

    def log(self) -> str:
        path = self.home / "control.log"
        return "\n" + path.read_text()[-3000:] if path.exists() else ""

    def status(self, name: str) -> dict[str, Any]:
        return dict(self("status", name)["endpoint"]["status"])

    def pods(self, name: str, phase: str = "ready") -> list[dict[str, Any]]:
        revisions = self.status(name).get("revisions", [])
        return [pod for revision in revisions for pod in revision.get("pods", []) if pod["phase"] == phase]

    def pids(self, name: str) -> set[int]:
        return {pod["process_id"] for pod in self.pods(name)}

    def control_pid(self) -> int:
        return int(json.loads((self.home / "run" / "control.json").read_text())["pid"])

    def strays(self, name: str) -> list[int]:
        """Processes of this home that are neither the control plane, nor Envoy, nor a pod in the status."""
        revisions = self.status(name).get("revisions", [])
        known = {pod["process_id"] for revision in revisions for pod in revision.get("pods", [])}
        known |= {self.control_pid(), self.envoy()["process_id"]}
        strays = []
        for process in stray_members(self.home):
            with contextlib.suppress(psutil.NoSuchProcess):
                if not known & {process.pid, *(parent.pid for parent in process.parents())}:
                    strays.append(process.pid)
        return strays

    def envoy(self) -> dict[str, Any]:
        return dict(self("status")["platform"]["envoys"][0])

    def url(self, name: str) -> str:
        return f"http://{self.listen}/serving-endpoints/{name}/invocations"

    def traffic(self, name: str, *phases: str) -> Traffic:
        """Open-loop load: each phase SECONDS:RATE."""
        command = [sys.executable, str(LOAD), "--url", self.url(name), "--body", BODY, "--json"]
        command += ["--header", "content-type=application/json", "--timeout", "60"]
        for phase in phases:
            command += ["--phase", phase]
        started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        return Traffic(started)

    def sweep(self) -> None:
        """Take down whatever is left of this home."""
        self.run("down", timeout_s=90.0)
        for process in stray_members(self.home):
            process.kill()


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    """A platform that is not yet up."""
    made = Platform(tmp_path / "home", {"TRIMTAB_DOWN_WINDOW_S": "15"})
    yield made
    made.sweep()


def until(look: Callable[[], Seen], *, within_s: float, what: str) -> Seen:
    """Look until the answer is true; it must come within `within_s`."""
    deadline_s = time.monotonic() + within_s
    while True:
        seen = look()
        if seen:
            return seen
        assert time.monotonic() < deadline_s, f"not within {within_s:g} s: {what}; last seen {seen!r}"
        time.sleep(0.1)


@pytest.fixture(name="until")
def _until() -> Callable[..., Any]:
    return until
