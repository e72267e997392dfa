"""Real models saved by MLflow, real pods that serve them, and MLflow's own server beside them."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from trimtab.host.ports import free_port

HOST = "127.0.0.1"
HERE = Path(__file__).parent
DEADLINE_S = 60.0
# MLflow names its formats from a set, in an order that depends on the hash seed of the process.
ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
JSON = "application/json"


@pytest.fixture(scope="session", autouse=True)
def _compile_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where Python may not keep what it compiled, each of our processes would take 2 s more to start."""
    with pytest.MonkeyPatch.context() as patch:
        if sys.dont_write_bytecode:
            patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
            patch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path_factory.mktemp("bytecode")))
        yield


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def value(self) -> dict[str, object]:
        return json.loads(self.body)

    @property
    def said(self) -> tuple[int, str | None, bytes]:
        return self.status, self.headers.get("content-type"), self.body


def until(condition: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"not in {DEADLINE_S:g} s: {what}"
        time.sleep(0.02)


class Server:
    """One server process in a session of its own, with its output in a file."""

    def __init__(
        self, argv: list[str], port: int, folder: Path, env: dict[str, str], prefix: str = ""
    ) -> None:
        self.port = port
        self.log = folder / "log"
        self.stages_path = folder / "stages.jsonl"
        self._prefix = prefix
        self._connection: http.client.HTTPConnection | None = None
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                argv,
                env={**os.environ, **ENVIRONMENT, **env},
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        content_type: str | None = JSON,
        **headers: str,
    ) -> Reply:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=DEADLINE_S)
        try:
            sent = dict(headers) | (
                {"content-type": content_type} if content_type and body is not None else {}
            )
            connection.request(method, self._prefix + path, body, sent)
            answer = connection.getresponse()
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def predict(self, **order: object) -> Reply:
        """Ask the odd model to do something."""
        return self.ask("POST", "/invocations", json.dumps({"inputs": [order]}).encode())

    def under(self, prefix: str) -> Server:
        """The same server, asked below a path."""
        other = object.__new__(Server)
        other.__dict__.update(self.__dict__, _prefix=prefix)
        return other

    def answers(self, path: str, *statuses: int) -> bool:
        try:
            return self.ask("GET", path).status in statuses
        except OSError:
            assert self.process.poll() is None, self.log.read_text()
            return False

    def wait_ready(self) -> Server:
        """Until it answers requests, and then has written so: the last stage."""
        until(lambda: self.answers("/health/ready", 200), "ready")
        until(lambda: self.stages()[-1:] == ["ready"], "the last stage is written")
        return self

    def stages(self) -> list[str]:
        if not self.stages_path.exists():
            return []
        return [json.loads(line)["stage"] for line in self.stages_path.read_text().splitlines()]

    def wait_end(self) -> int:
        return self.process.wait(DEADLINE_S)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(DEADLINE_S)


@pytest.fixture(scope="session")
def start_pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """`start_pod(model_folder, *arguments, **environment)`; what still runs at the end is killed."""
    started: list[Server] = []

    def start(model: Path, *arguments: str, python: Path | str = sys.executable, **env: str) -> Server:
        folder = tmp_path_factory.mktemp("pod")
        port = free_port(HOST)
        argv = [str(python), "-m", "trimtab.runtime.mlflow", "--model", str(model)]
        argv += ["--bind", f"{HOST}:{port}", "--stages", str(folder / "stages.jsonl"), *arguments]
        started.append(Server(argv, port, folder, env))
        return started[-1]

    yield start
    for server in started:
        server.kill()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`iris` (with signature, parameters, example), `odd_model`, `start_model`; saved by another process."""
    folder = tmp_path_factory.mktemp("models")
    script = str(HERE / "models" / "save.py")
    done = subprocess.run(
        [sys.executable, script, str(folder)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def odd(models: Path) -> Path:
    """A model that does what it is told, without a signature or an example."""
    return models / "odd_model"


@pytest.fixture(scope="session")
def starter(models: Path) -> Path:
    """A model with an input example, whose start goes as `TEST_START` says."""
    return models / "start_model"


@pytest.fixture(scope="session")
def _servers(
    models: Path, odd: Path, start_pod: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Server, Server]]:
    """The long-lived ones, started together: a pod for each model and MLflow's server for both."""
    folder = tmp_path_factory.mktemp("mlflow")
    port = free_port(HOST)
    script = str(HERE / "models" / "mlflows_own.py")
    own = Server(
        [sys.executable, script, str(port), f"iris={models / 'iris'}", f"odd={odd}"], port, folder, {}
    )
    try:
        pods = start_pod(models / "iris"), start_pod(odd, "--threads", "2", "--queue", "3")
        until(lambda: own.answers("/odd/ping", 200), "MLflow's own server")
        yield pods[0].wait_ready(), pods[1].wait_ready(), own
    finally:
        own.kill()


@pytest.fixture(scope="session")
def iris_pod(_servers: tuple[Server, Server, Server]) -> Server:
    return _servers[0]


@pytest.fixture(scope="session")
def odd_pod(_servers: tuple[Server, Server, Server]) -> Server:
    """Two threads, three more may wait."""
    return _servers[1]


@pytest.fixture(scope="session")
def mlflows_own(_servers: tuple[Server, Server, Server]) -> Server:
    return _servers[2]
