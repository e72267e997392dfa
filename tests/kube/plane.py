"""A control plane on the cluster's node, an Envoy beside it, and callers: real programs, real traffic."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from deploy.cluster import lifecycle
from deploy.cluster.place import here
from tests.kube.words import HOLD
from trimtab.envoy.bootstrap import Bootstrap, render
from trimtab.envoy.process import find_binary
from trimtab.fleet.kubernetes.template import HOLD_IMAGE
from trimtab.host.ports import free_port
from trimtab.kube import Json

START_WITHIN_S = 60.0
CALLER = Path(__file__).with_name("caller.py")


def on_node(*words: str | Path) -> list[str]:
    """A command in the network of the cluster's node: pods and Services are reached from there."""
    process = lifecycle.first_process(here())
    assert process is not None, "the cluster of this checkout does not run"
    return ["nsenter", f"--target={process}", "--net", *map(str, words)]


@dataclass
class Plane:
    """One home on the node. `start` and `kill` as often as you like; Envoy goes on."""

    home: Path
    namespace: str
    port: int = field(default_factory=lambda: free_port("127.0.0.1"))
    control_port: int = field(default_factory=lambda: free_port("127.0.0.1"))
    process: subprocess.Popen[bytes] | None = None
    envoy: subprocess.Popen[bytes] | None = None
    lease: str = ""
    pull_secrets: tuple[str, ...] = ()
    xds_port: int = 0  # where others follow it; 0: they cannot

    @property
    def log(self) -> Path:
        return self.home.parent / "control.log"

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/serving-endpoints/{name}.{self.namespace}/invocations"

    @property
    def announced(self) -> Path:
        return self.home / "run" / "control.json"

    def start(self) -> None:
        """And wait until it serves."""
        self.begin()
        self.wait()

    def begin(self) -> None:
        command = [sys.executable, "-P", "-m", "trimtab.cli", "control", "--home", str(self.home)]
        command += ["--namespace", self.namespace, "--listen", f"127.0.0.1:{self.port}"]
        command += ["--control", f"127.0.0.1:{self.control_port}", f"--image={HOLD_IMAGE}={HOLD}"]
        command += ["--lease", self.lease] if self.lease else []
        command += [f"--pull-secret={name}" for name in self.pull_secrets]
        if self.xds_port:
            address = f"127.0.0.1:{self.xds_port}"
            command += ["--xds", address, "--advertise", address]
        environment = os.environ | {
            "KUBECONFIG": str(here().folder / "admin.kubeconfig"),
            "TRIMTAB_DOWN_WINDOW_S": "3",
        }
        self.announced.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(on_node(*command), stdout=log, stderr=log, env=environment)

    def wait(self) -> None:
        """Until it serves."""
        assert self.process is not None
        deadline_s = time.monotonic() + START_WITHIN_S
        while not self.announced.exists():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline_s, self.log.read_text()
            time.sleep(0.05)

    @property
    def xds_socket(self) -> Path:
        """There once it has something to tell Envoys."""
        return Bootstrap.for_home(self.home).control_socket

    def start_envoy(self) -> None:
        bootstrap = Bootstrap.for_home(self.home)
        path = self.home / "bootstrap.json"
        path.write_bytes(render(bootstrap))
        command = on_node(find_binary(), "-c", path, "--concurrency", "1", "--disable-hot-restart")
        with (self.home.parent / "envoy.log").open("ab") as log:
            self.envoy = subprocess.Popen([*command, "--log-level", "warning"], stdout=log, stderr=log)

    def kill(self) -> None:
        """As a node that loses its power does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        for process in (self.process, self.envoy):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(30)
                process.kill()
                process.wait()

    def cli(self, *words: str, cluster: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """A command, of our home or of a `cluster` by these options."""
        home = () if cluster else ("--home", str(self.home))
        command = [sys.executable, "-P", "-m", "trimtab.cli", *cluster, *words, *home]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)

    @contextlib.contextmanager
    def calling(self, name: str, at_once: int) -> Iterator[Json]:
        """Calls for as long as the `with` lasts; afterwards what they were answered with, and by whom."""
        found: Json = {}
        command = on_node(sys.executable, CALLER, self.url(name), str(at_once))
        with subprocess.Popen(command, stdout=subprocess.PIPE) as caller:
            try:
                yield found
            finally:
                caller.send_signal(signal.SIGTERM)
                assert caller.stdout is not None
                found.update(json.loads(caller.stdout.read().splitlines()[-1]))
