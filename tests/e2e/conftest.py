"""A whole platform for each test: the real command, the real Envoy, real MLflow models, real traffic.

What a test starts in its home is taken down with it, whatever happened. No test depends on how fast the
machine is: it waits for what must come, and a deadline is only for what never will.
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

from trimtab.cli.client import connected, ref_of
from trimtab.cli.output import plain
from trimtab.core.names import EndpointName
from trimtab.host.ports import free_port
from trimtab.host.process import stray_members
from trimtab.v1 import control_pb2 as pb

ROOT = Path(__file__).parents[2]
TRIMTAB = Path(sys.executable).parent / "trimtab"
LOAD = ROOT / "bench" / "load.py"
BODY = json.dumps({"inputs": [[5.1, 3.5, 1.4, 0.2]]})
DEADLINE_S = 180.0  # for one thing that must come; a pod starts in 3 s, and on a machine that is busy in 30
TEST_S = 900.0  # for a whole test
COMMAND_S = 300.0  # for one command: a deployment gives up by itself after its pods' own timeouts

Seen = TypeVar("Seen")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Paths of saved models by their name in `save_models.SOURCES`."""
    folder = tmp_path_factory.mktemp("models")
    script = Path(__file__).parent / "save_models.py"
    subprocess.run([sys.executable, script, folder], check=True, timeout=180, capture_output=True)
    return {path.name: str(path) for path in folder.iterdir() if (path / "MLmodel").is_file()}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole platforms take longer than other tests may."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(TEST_S))


class Traffic:
    """An open-loop load that runs beside the test; its output goes to files, so it never waits for us."""

    def __init__(self, command: list[str], output: Path) -> None:
        self._output = output
        self._errors = output.with_suffix(".err")
        with output.open("wb") as out, self._errors.open("wb") as errors:
            self.process = subprocess.Popen(command, stdout=out, stderr=errors)

    def arrives(self) -> Traffic:
        """Wait until some of its requests were answered; itself."""
        until(
            lambda: any(line["kind"] == "second" and line["ok"] for line in self._lines()),
            what="load arrives",
        )
        return self

    def sent(self) -> int:
        """How many requests it has sent so far, by what it has told."""
        return sum(line["sent"] for line in self._lines() if line["kind"] == "second")

    def end(self) -> dict[str, Any]:
        """Stop it, and return the totals of what was sent."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.result()

    def result(self) -> dict[str, Any]:
        """Wait until it is done, and return its totals."""
        self.process.wait(COMMAND_S)
        totals = [line for line in self._lines() if line["kind"] == "total"]
        assert totals, f"the load generator broke: {self._errors.read_text()}"
        return totals[0]

    def _lines(self) -> list[dict[str, Any]]:
        """What it has told so far; a line that is still being written is left for the next time."""
        told = self._output.read_text()
        return [json.loads(line) for line in told[: told.rfind("\n") + 1].splitlines()]


class Platform:
    """One home, driven by the command line as a user would."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        self.home = home
        self.listen = f"127.0.0.1:{free_port('127.0.0.1')}"
        self.environment = {**os.environ, **environment}
        self._loads: list[Traffic] = []
        self._foreground: list[subprocess.Popen[bytes]] = []

    def run(self, *arguments: str, timeout_s: float = COMMAND_S) -> subprocess.CompletedProcess[str]:
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
        command = [str(TRIMTAB), "up", "--listen", self.listen, "--home", str(self.home)]
        silent = subprocess.DEVNULL
        started = subprocess.Popen(command, env=self.environment, stdout=silent, stderr=silent)
        self._foreground.append(started)
        until(lambda: self.run("status").returncode == 0, what="it is up")
        return started

    def ask(self, name: str, seconds: float) -> int:
        """The status of one request to a model that answers after so many seconds."""
        row = [seconds, 0.0, 0.0, 0.0]
        return int(requests.post(self.url(name), json={"inputs": [row]}, timeout=90).status_code)

    def log(self) -> str:
        path = self.home / "control.log"
        return "\n" + path.read_text()[-3000:] if path.exists() else ""

    def status(self, name: str) -> dict[str, Any]:
        """As `trimtab status NAME --json` tells it, but at once: a command takes seconds to start."""
        request = pb.GetEndpointRequest(ref=ref_of(EndpointName.parse(name)))
        return dict(plain(self._ask("GetEndpoint", request).status))

    def _ask(self, method: str, request: Any) -> Any:
        with connected(self.home) as control:
            return control.call(method, request, deadline_s=DEADLINE_S)

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
        return dict(plain(self._ask("GetPlatform", pb.GetPlatformRequest()).envoys[0]))

    def url(self, name: str) -> str:
        return f"http://{self.listen}/serving-endpoints/{name}/invocations"

    def traffic(self, name: str, *phases: str) -> Traffic:
        """Open-loop load: each phase SECONDS:RATE."""
        command = [sys.executable, str(LOAD), "--url", self.url(name), "--body", BODY, "--json"]
        command += ["--header", "content-type=application/json", "--timeout", "60"]
        for phase in phases:
            command += ["--phase", phase]
        started = Traffic(command, self.home.parent / f"{self.home.name}-load-{len(self._loads)}.jsonl")
        self._loads.append(started)
        return started

    def sweep(self) -> None:
        """Take down whatever is left of this home, and what was started beside it: load before the rest."""
        for load in self._loads:
            gone(load.process)
        try:
            self.run("down")
        finally:
            for process in self._foreground:
                gone(process)
            for stray in stray_members(self.home):
                stray.kill()


def gone(process: subprocess.Popen[bytes]) -> None:
    """Kill it if it still runs, and wait: one that nobody waited for is told of in somebody else's test."""
    process.kill()
    process.wait()


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    """A platform that is not yet up."""
    made = Platform(tmp_path / "home", {"TRIMTAB_DOWN_WINDOW_S": "15"})
    yield made
    made.sweep()


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform that is up for all tests of a module."""
    made = Platform(tmp_path_factory.mktemp("lasting") / "home", {"TRIMTAB_DOWN_WINDOW_S": "15"})
    try:
        made.up()
        yield made
    finally:
        made.sweep()


def until(look: Callable[[], Seen], *, what: str) -> Seen:
    """Look until the answer is true; it must come within DEADLINE_S."""
    deadline_s = time.monotonic() + DEADLINE_S
    while True:
        seen = look()
        if seen:
            return seen
        assert time.monotonic() < deadline_s, f"not within {DEADLINE_S:g} s: {what}; last seen {seen!r}"
        time.sleep(0.1)


@pytest.fixture(name="until")
def _until() -> Callable[..., Any]:
    return until
