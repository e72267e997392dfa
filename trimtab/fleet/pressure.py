"""How long a pod's tasks waited for I/O: the kernel's pressure of the pod's own cgroup (version 2).

Pressure is told per cgroup, for the cgroup and all beneath it. Where other processes are in there too,
as in the one cgroup that a control plane and the pods it started usually share, the figure is theirs as
well: then the pod's is unknown.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path, PurePosixPath

CGROUPS_MAX = 64
"""Most cgroups looked into for one pod: a container has one, one of systemd's services a handful."""


class Pressure:
    """Reads the pressure of pods. `proc` is where /proc is."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._mount, self._root = _mounted(proc)
        self._ours = self._cgroup("self")

    def io_stalled_s(self, processes: Collection[int]) -> float | None:
        """Seconds in which some task of a pod waited for I/O, summed since its cgroup began.

        `processes` are all that the pod has. None where the kernel does not tell, or where what it
        tells is not of these processes and of them alone.
        """
        cgroup = self._own_cgroup(processes)
        if self._mount is None or cgroup is None:
            return None
        folder = self._mount / cgroup
        try:
            return _stalled_s(folder) if _members(folder) <= set(processes) else None
        except (OSError, ValueError):
            return None  # it ended while we looked, or the kernel was built or started without pressure

    def _own_cgroup(self, processes: Collection[int]) -> PurePosixPath | None:
        """The innermost cgroup that holds all of them, relative to the mount; None if we are in it too."""
        ours, found = self._ours, set[PurePosixPath]()
        for process in processes:
            cgroup = self._cgroup(str(process))
            if cgroup is None or ours is None or ours.is_relative_to(cgroup):
                return None
            found.add(cgroup)
        if not found:
            return None
        common = PurePosixPath(os.path.commonpath(found))
        return None if ours is None or ours.is_relative_to(common) else common

    def _cgroup(self, process: str) -> PurePosixPath | None:
        """Of /proc/PID/cgroup the line of version 2: `0::/PATH`."""
        try:
            lines = (self._proc / process / "cgroup").read_text().splitlines()
        except OSError:
            return None
        path = next((line[3:] for line in lines if line.startswith("0::/")), "")
        if not path or "/.." in path or not PurePosixPath(path).is_relative_to(self._root):
            return None  # outside of what is mounted here
        return PurePosixPath(path).relative_to(self._root)


def _mounted(proc: Path) -> tuple[Path | None, str]:
    """Where cgroup version 2 is mounted, and which of its folders is the root there.

    A line of mountinfo is `36 35 0:28 ROOT MOUNT_POINT options … - cgroup2 source options`.
    """
    try:
        lines = (proc / "self" / "mountinfo").read_text().splitlines()
    except OSError:
        return None, "/"
    for line in lines:
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 "):
            root, point = before.split()[3:5]
            return Path(point.replace("\\040", " ")), root
    return None, "/"


def _members(folder: Path) -> set[int]:
    """The processes of a cgroup and of all beneath it. Raises ValueError if these are too many to look at."""
    cgroups = tuple(islice(_cgroups(folder), CGROUPS_MAX + 1))
    if len(cgroups) > CGROUPS_MAX:
        raise ValueError(f"{folder} holds more than {CGROUPS_MAX} cgroups")
    return {int(pid) for cgroup in cgroups for pid in (cgroup / "cgroup.procs").read_text().split()}


def _cgroups(folder: Path) -> Iterator[Path]:
    yield folder
    with os.scandir(folder) as entries:
        beneath = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    for cgroup in beneath:
        yield from _cgroups(cgroup)


def _stalled_s(folder: Path) -> float:
    """From `some avg10=0.00 avg60=0.00 avg300=0.00 total=MICROSECONDS`. Raises OSError or ValueError."""
    for line in (folder / "io.pressure").read_text().splitlines():
        kind, *fields = line.split()
        if kind == "some":
            (total_us,) = (field.removeprefix("total=") for field in fields if field.startswith("total="))
            return int(total_us) / 1e6
    raise ValueError(f"no `some` in {folder}/io.pressure")
