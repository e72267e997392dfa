"""The control group that a node's pods are in: one folder in each hierarchy, versions 1 and 2."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
REMOVE_WITHIN_S = 20.0  # the kernel needs a moment after the last process of a group has ended


def make(name: str) -> None:
    """An empty one called `name`, ready for the kubelet."""
    for root in _hierarchies():
        group = root / name
        group.mkdir(exist_ok=True)
        for file in ("cpuset.cpus", "cpuset.mems"):  # version 1 takes no process before these are set
            if (root / file).exists() and (group / file).exists():
                (group / file).write_text((root / file).read_text())


def remove(name: str) -> list[Path]:
    """Remove it with all below it; returns what the kernel would not let go."""
    deadline_s = time.monotonic() + REMOVE_WITHIN_S
    while left := [root / name for root in _hierarchies() if (root / name).exists()]:
        for group in left:
            for folder, _, _ in os.walk(group, topdown=False):
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()
        if time.monotonic() > deadline_s:
            return left
        time.sleep(0.05)
    return []


def _hierarchies() -> Iterator[Path]:
    if (MOUNT / "cgroup.controllers").exists():
        yield MOUNT
        return
    for entry in MOUNT.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            yield entry
