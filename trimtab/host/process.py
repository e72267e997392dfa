"""Processes that outlive the control plane and are found again by a mark in their environment.

A process is started in a session of its own, with its output going to a file, and carries
`TRIMTAB_PROCESS=KIND:ID:HOME`. Nothing has to be written down between "started" and "known": a
control plane that was killed at any instruction finds what it left by reading that mark
(`find`). A process id that was used again by somebody else is never touched: the mark and the
time of creation are compared before each signal.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

MARK = "TRIMTAB_PROCESS"
EXEC_WITHIN_S = 1.0  # microseconds, but on a machine that is busy with others
YOUNG_S = 10.0  # older than this, a process without an environment was started without one


@dataclass(frozen=True)
class Mark:
    """Whose a process is: the control plane's home, the kind (`pod`, `envoy`) and its id."""

    home: Path
    kind: str
    id: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.id}:{self.home}"

    @classmethod
    def parse(cls, text: str) -> Mark | None:
        kind, _, rest = text.partition(":")
        id_, colon, home = rest.partition(":")
        return cls(Path(home), kind, id_) if colon and home else None


class Process:
    """One process group that we started, or found again. Its leader's id is the group's."""

    def __init__(self, mark: Mark, info: psutil.Process, child: subprocess.Popen[bytes] | None) -> None:
        self.mark = mark
        self._info = info
        self._child = child

    @property
    def pid(self) -> int:
        return int(self._info.pid)

    @property
    def is_child(self) -> bool:
        """Whether we started it ourselves, rather than found it."""
        return self._child is not None

    @property
    def created_at_s(self) -> float:
        """When the kernel says it began: by the wall clock as it stood when the process was found."""
        return float(self._info.create_time())

    def alive(self) -> bool:
        """Whether the leader still runs; collects its exit status if it is our child.

        A child counts as running until that is there: one with threads is a zombie for a moment
        while its last threads still hold its ports.
        """
        if self._child is not None:
            return self._child.poll() is None
        try:
            return bool(self._info.is_running() and self._info.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False

    def present(self) -> bool:
        """Whether its id is still its own: true for a zombie too, false once others may use it."""
        return bool(self._info.is_running())

    def exit_status(self) -> int | None:
        """Exit status, negative for a signal; None while it runs or if it was not our child."""
        return self._child.poll() if self._child is not None else None

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to every process of the group that is still there."""
        if not self._group_is_ours():
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def members(self) -> list[psutil.Process]:
        """The leader and its descendants, as far as they are alive and readable."""
        with contextlib.suppress(psutil.Error):
            return [self._info, *self._info.children(recursive=True)]
        return []

    def _group_is_ours(self) -> bool:
        """True while the leader lives, or while members of its group carry our mark after its death."""
        if self.alive():
            return True
        return any(_process_group(other) == self.pid for other, mark in _marked() if mark == self.mark)


def spawn(
    argv: Sequence[str],
    mark: Mark,
    *,
    env: Mapping[str, str],
    log_path: Path,
    cwd: Path,
    nice: int = 0,
    oom_score_adj: int = 0,
) -> Process:
    """Start `argv` in a session of its own. Raises OSError if it cannot be started.

    Output is appended to `log_path`. Niceness and the memory killer's score are set from here
    rather than between fork and exec, where our threads would make it unsafe.
    """
    with log_path.open("ab") as log:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**env, MARK: str(mark)},
            cwd=cwd,
            start_new_session=True,
        )
    yield_to_others(child.pid, nice=nice, oom_score_adj=oom_score_adj)
    return Process(mark, psutil.Process(child.pid), child)


def yield_to_others(pid: int, *, nice: int, oom_score_adj: int) -> None:
    """Lower a process's claim on the CPU and on memory; a process that has gone is passed over."""
    with contextlib.suppress(psutil.Error, OSError):
        if nice:
            psutil.Process(pid).nice(nice)
        if oom_score_adj:
            Path(f"/proc/{pid}/oom_score_adj").write_text(str(oom_score_adj))


def find(home: Path, kind: str | None = None) -> list[Process]:
    """Every group leader that carries the mark of `home` (and `kind`), oldest first."""
    found = [
        Process(mark, info, None)
        for info, mark in _marked()
        if mark.home == home and kind in (None, mark.kind) and _process_group(info) == info.pid
    ]
    return sorted(found, key=lambda process: process.created_at_s)


def stray_members(home: Path) -> list[psutil.Process]:
    """Every process that carries the mark of `home`, leaders and what they left behind alike."""
    return [info for info, mark in _marked() if mark.home == home]


def marked_with(mark: Mark) -> list[psutil.Process]:
    """Every process that carries exactly this mark, whatever group or session it moved to."""
    return [info for info, found in _marked() if found == mark]


def _marked() -> Iterator[tuple[psutil.Process, Mark]]:
    deadline_s = time.monotonic() + EXEC_WITHIN_S
    for info in psutil.process_iter():
        try:
            mark = Mark.parse(_environment(info, deadline_s).get(MARK, ""))
            if mark is not None and info.status() != psutil.STATUS_ZOMBIE:
                yield info, mark
        except (psutil.Error, OSError):
            continue  # somebody else's, or gone while we looked


def _environment(info: psutil.Process, deadline_s: float) -> dict[str, str]:
    """Of a process in the middle of its exec, which shows none, what it has after: `spawn` returns early."""
    found: dict[str, str] = info.environ()
    young = not found and info.exe() and time.time() - info.create_time() < YOUNG_S
    while young and not found and time.monotonic() < deadline_s:
        time.sleep(0.002)
        found = info.environ()
    return found


def _process_group(info: psutil.Process) -> int:
    try:
        return os.getpgid(info.pid)
    except (ProcessLookupError, PermissionError):
        return -1
