"""Ending what carries a home's mark, and nothing else; and what a control plane wrote about itself."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from trimtab.host.process import MARK, Mark, stray_members

TERM_WAIT_S = 10.0
KILL_WAIT_S = 5.0
POLL_PERIOD_S = 0.1


@dataclass(frozen=True)
class Running:
    """A control plane as it described itself in `HOME/run/control.json`, and its process if that lives."""

    pid: int
    version: str
    listen: str
    metrics_listen: str
    process: psutil.Process


def running_control_plane(home: Path) -> Running | None:
    """The control plane of `home`, or None if none runs. A process id used again by another is not it."""
    path = home / "run" / "control.json"
    try:
        written_s = path.stat().st_mtime
        said = json.loads(path.read_text())
        process = psutil.Process(int(said["pid"]))
        later = process.create_time() > written_s + 1.0  # began after the file was written: somebody else
        if later or process.status() == psutil.STATUS_ZOMBIE:
            return None
        return Running(
            process.pid, str(said["version"]), str(said["listen"]), str(said["metrics_listen"]), process
        )
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return None


def marked(home: Path) -> dict[psutil.Process, str]:
    """Every live process that carries the mark of `home`, ourselves excepted, and what it is (`pod …`)."""
    found = {}
    for process in stray_members(home):
        if process.pid == os.getpid():
            continue
        with contextlib.suppress(psutil.Error):
            mark = Mark.parse(process.environ().get(MARK, ""))
            if mark is not None:
                found[process] = f"{mark.kind} {mark.id}"
    return found


def end(processes: Iterable[psutil.Process]) -> None:
    """TERM, a while for each to end, then KILL. psutil compares creation times before it signals."""
    left = list(processes)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, left = psutil.wait_procs(left, timeout=TERM_WAIT_S)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=KILL_WAIT_S)


def wait_ended(process: psutil.Process, wait_s: float) -> bool:
    """Whether the process ended within `wait_s`; one that waits for its parent to look has ended."""
    deadline_s = time.monotonic() + wait_s
    while time.monotonic() < deadline_s:
        try:
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.Error:
            return True
        time.sleep(POLL_PERIOD_S)
    return False
