"""The real programs: control planes, an Envoy, and what stands before the former as their Service does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import psutil

from bench.scale.figures import buckets
from trimtab.control.kubernetes.forwarding import pour
from trimtab.envoy.bootstrap import Bootstrap, render
from trimtab.envoy.process import find_binary
from trimtab.host.files import private_folder
from trimtab.host.ports import free_port

LOOPBACK = "127.0.0.1"
END_WITHIN_S = 30.0
FIRST = -10  # niceness: nine times the share of a core that others get, where there is too little for all


@dataclass
class ControlPlane:
    """`trimtab control` in a home of its own; several with one Lease are replicas of one."""

    home: Path
    kubeconfig: Path
    lease: str
    listen: str  # where Envoys listen: of all replicas the same
    process: subprocess.Popen[bytes] | None = None
    port: int = field(default_factory=lambda: free_port(LOOPBACK))
    xds_port: int = field(default_factory=lambda: free_port(LOOPBACK))  # where Envoys and replicas come

    @property
    def log(self) -> Path:
        return self.home.with_name(f"{self.home.name}.log")

    @property
    def lives(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def serves(self) -> bool:
        """Whether it is there and says that it serves: it leads."""
        return self.lives and (self.home / "run" / "control.json").exists()

    def begin(self) -> None:
        """Returns at once. It comes before others, where we may say so."""
        words = [sys.executable, "-P", "-m", "trimtab.cli", "control", "--home", self.home]
        words += ["--listen", self.listen, "--lease", self.lease, "--control", f"{LOOPBACK}:{self.port}"]
        xds = f"{LOOPBACK}:{self.xds_port}"
        words += ["--xds", xds, "--advertise", xds, "--no-node-metrics"]
        (self.home / "run" / "control.json").unlink(missing_ok=True)
        environment = os.environ | {"KUBECONFIG": str(self.kubeconfig)}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*map(str, words)], stdout=log, stderr=log, env=environment, start_new_session=True
            )
        come_first(self.process.pid)

    def kill(self) -> None:
        """As a node that loses its power does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    async def end(self) -> None:
        await asyncio.to_thread(end, self.process)  # its last words to the API server pass through us

    async def told(self) -> dict[float, float]:
        """In how many seconds Envoys were told news of pods, since it began: see `figures.buckets`."""
        url = json.loads((self.home / "run" / "control.json").read_text())["metrics_listen"]
        async with aiohttp.ClientSession() as session, session.get(f"http://{url}/metrics") as answer:
            return buckets(await answer.text(), "trimtab_pod_news_to_envoy_seconds")

    def cpu_s(self) -> float:
        """Of a core, since it began. Raises RuntimeError with its last words if it has ended."""
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"the control plane has ended: {self.last_words()}")
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def memory_max_bytes(self) -> int:
        """The most that was resident at once since it began."""
        assert self.process is not None
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))

    def last_words(self) -> str:
        return self.log.read_text(errors="replace")[-2_000:] if self.log.exists() else ""


class Relay:
    """A port for Envoys that leads to a control plane which lets them in, as a Service does."""

    def __init__(self, planes: list[ControlPlane]) -> None:
        self._planes = planes
        self.port = 0
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, LOOPBACK, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for plane in filter(lambda each: each.lives, self._planes):
                with contextlib.suppress(OSError):
                    inner = await asyncio.open_connection(LOOPBACK, plane.xds_port)
                    await asyncio.gather(pour(reader, inner[1]), pour(inner[0], writer))
                    return
        finally:
            writer.close()


class Envoy:
    """A real one, with one worker, that takes its configuration from `control_port`."""

    def __init__(self, folder: Path, control_port: int) -> None:
        private_folder(folder)
        self._folder = folder
        self._bootstrap = Bootstrap.for_pod("envoy", folder, (LOOPBACK, control_port))
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        path = self._folder / "bootstrap.json"
        path.write_bytes(render(self._bootstrap))
        words = [find_binary(), "-c", path, "--concurrency", "1", "--disable-hot-restart"]
        with (self._folder / "envoy.log").open("ab") as log:
            command = [*map(str, words), "--log-level", "warning"]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        os.setpriority(os.PRIO_PROCESS, self._process.pid, 0)  # it is on a node of its own: not before others

    async def end(self) -> None:
        await asyncio.to_thread(end, self._process)
        self._process = None

    def memory_bytes(self) -> int:
        assert self._process is not None
        return int(psutil.Process(self._process.pid).memory_info().rss)

    async def knows(self, pods: int) -> bool:
        """Whether it is programmed, by its own words: so many pods in all, and an active listener."""
        wanted = "(membership_total|total_listeners_active)$"
        try:
            stats = (await self._ask(f"/stats?format=json&filter={wanted}"))["stats"]
        except (aiohttp.ClientError, OSError, ValueError, TimeoutError):
            return False
        found = {str(each["name"]): int(str(each["value"])) for each in stats if "name" in each}
        listeners = found.pop("listener_manager.total_listeners_active", 0)
        return bool(listeners) and sum(found.values()) >= pods + 1  # the control plane is one too

    async def _ask(self, path: str) -> dict[str, list[dict[str, object]]]:
        connector = aiohttp.UnixConnector(str(self._bootstrap.admin_socket))
        timeout = aiohttp.ClientTimeout(total=5)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.get(f"http://envoy{path}") as answer,
        ):
            found: dict[str, list[dict[str, object]]] = json.loads(await answer.read())
            return found


def come_first(process: int) -> bool:
    """Before the rest of this machine, which a control plane does not share its cores with elsewhere.

    Threads that it has begun already are left as they are. False where we may not.
    """
    try:
        os.setpriority(os.PRIO_PROCESS, process, FIRST)
        set_session_niceness(process, FIRST)
    except PermissionError:
        return False
    return True


@contextlib.contextmanager
def before_others() -> Iterator[bool]:
    """We ourselves, if we may. Our session, which may be somebody's shell, gets its niceness back."""
    before = session_niceness(os.getpid())
    may = come_first(os.getpid())
    try:
        yield may
    finally:
        if may and before is not None:
            set_session_niceness(os.getpid(), before)


def session_niceness(process: int) -> int | None:
    """That of the process's session among all others; None where Linux does not share by sessions.

    Where it does (`sched_autogroup_enabled`) a process's own niceness counts only within its session, and
    each part of a cluster that is started for a test has one of its own.
    """
    try:
        said = Path(f"/proc/{process}/autogroup").read_text()  # "/autogroup-83 nice 0"
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(said.split()[-1]) if said.strip() else None


def set_session_niceness(process: int, niceness: int) -> None:
    """Nothing happens where Linux does not share by sessions. Raises PermissionError."""
    if session_niceness(process) is not None:
        Path(f"/proc/{process}/autogroup").write_text(str(niceness))


def end(process: subprocess.Popen[bytes] | None) -> None:
    """Ask it to, then have it killed. Nothing happens where it has ended."""
    if process is None or process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(END_WITHIN_S)
    process.kill()
    process.wait()
