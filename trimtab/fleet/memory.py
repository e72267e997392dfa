"""How much memory this machine, or the control group that we run in, still has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil

CONTROL_GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Memory:
    """Bytes in all, and bytes that can be had without swapping."""

    total_bytes: int
    available_bytes: int


def machine_memory() -> Memory | None:
    """What is there for us: the machine's memory, or less where a control group bounds us. None: unknown."""
    try:
        seen = psutil.virtual_memory()
    except (OSError, psutil.Error):
        return None
    try:
        membership = OWN_GROUPS.read_text()
    except OSError:
        membership = ""  # not Linux
    return within_groups(Memory(seen.total, seen.available), membership, CONTROL_GROUPS)


def within_groups(machine: Memory, membership: str, mount: Path) -> Memory:
    """The tightest of the machine and each control group around us, versions 1 and 2.

    `membership` is the text of /proc/self/cgroup. A group's room is its limit minus what it
    uses, without the page cache that the kernel would drop first (`inactive_file`). In a container the
    path named may not exist under `mount`, which then is the group itself: hence the walk up to it.
    """
    total, available = machine.total_bytes, machine.available_bytes
    for folder, names in _memory_groups(membership, mount):
        limit = _number(folder / names.limit)
        used = _number(folder / names.used)
        if limit is None or used is None or limit >= machine.total_bytes:
            continue
        held = max(0, used - _stat(folder / "memory.stat", names.cache))
        total = min(total, limit)
        available = min(available, max(0, limit - held))
    return Memory(total, available)


@dataclass(frozen=True)
class _Names:
    limit: str
    used: str
    cache: str


_V1 = _Names("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = _Names("memory.max", "memory.current", "inactive_file")


def _memory_groups(membership: str, mount: Path) -> list[tuple[Path, _Names]]:
    """Each folder that may bound us, innermost first."""
    found: list[tuple[Path, _Names]] = []
    for line in membership.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        root, names = (mount / "memory", _V1) if controllers else (mount, _V2)
        relative = Path(path.strip("/"))
        found += [(root / part, names) for part in (relative, *relative.parents)]
    return found


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # `max`: no limit
        return None


def _stat(path: Path, name: str) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name} ")), 0)
