"""What the machine must have before a cluster can start, and how it comes by it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from deploy.cluster.errors import ClusterError
from deploy.cluster.place import cache

CNI_PLUGINS = Path("/usr/lib/cni")
MEMINFO = Path("/proc/meminfo")
SIDE_BY_SIDE_BYTES_MIN = 12 << 30  # two clusters, what tests have in them, and what else is there
CPUS_MIN = 2
GO_MIN = (1, 26)
BUILD_BYTES_MIN = 8 << 30  # 0.6 GB of programs; what Go downloads and keeps for the next build is the rest

# A program, and Debian's package that has it.
PROGRAMS = {
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "unshare": "util-linux",
    "mount": "mount",
    "openssl": "openssl",
}


def why_not(needs_go: bool) -> str:
    """Why no cluster can be started here, in one sentence; empty if one can."""
    if sys.platform != "linux":
        return "a cluster runs on Linux only"
    if os.geteuid() != 0:
        return "a cluster needs root: namespaces, cgroups and mounts are made"
    if missing() and not shutil.which("apt-get"):
        return f"missing here, and no apt-get to install them: {' '.join(missing())}"
    if shutil.which("unshare") and not _may_make_namespaces():
        return "a cluster needs namespaces of its own: this root may not make any (CAP_SYS_ADMIN)"
    return _why_no_go() or _why_no_room() if needs_go else ""


def why_one() -> str:
    """Why no two clusters should run side by side now, in one sentence; empty if they may."""
    if len(os.sched_getaffinity(0)) < CPUS_MIN:
        return f"{CPUS_MIN} CPUs are needed for two clusters side by side"
    said = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
    free = int(said["MemAvailable"].split()[0]) << 10
    if free < SIDE_BY_SIDE_BYTES_MIN:
        wanted = f"{SIDE_BY_SIDE_BYTES_MIN >> 30} GB of memory"
        return f"two clusters side by side need {wanted}, and {free / (1 << 30):.1f} are free"
    return ""


def missing() -> list[str]:
    """Debian's packages whose programs are not here."""
    found = {package for program, package in PROGRAMS.items() if not shutil.which(program)}
    if not (CNI_PLUGINS / "bridge").exists():
        found.add("containernetworking-plugins")
    return sorted(found)


def provide() -> None:
    """Install what is missing, and say so. Raises ClusterError."""
    if packages := missing():
        install(packages)


def install(packages: list[str]) -> None:
    """Install Debian's packages of these names, and say so. Raises ClusterError."""
    tell(f"apt-get install {' '.join(packages)}")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-qq", "--no-install-recommends", "-y", *packages]):
        done = subprocess.run(
            ["apt-get", *command], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            said = done.stderr.strip() or done.stdout.strip()
            raise ClusterError(
                f"apt-get {command[0]} failed: {said[-400:]}", f"install them: {' '.join(packages)}"
            )


def tell(line: str) -> None:
    """To stderr: stdout is for what a shell can evaluate."""
    sys.stderr.write(f"kube: {line}\n")
    sys.stderr.flush()


def _may_make_namespaces() -> bool:
    command = ["unshare", "--mount", "--pid", "--net", "--fork", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _why_no_go() -> str:
    wanted = ".".join(map(str, GO_MIN))
    if not shutil.which("go"):
        return f"Go {wanted} or later is not here, and the programs are not built yet"
    text = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout
    version = tuple(int(part) for part in text.strip().removeprefix("go").split(".")[:2] if part.isdigit())
    return "" if version >= GO_MIN else f"Go {wanted} or later is needed, this is `{text.strip()}`"


def _why_no_room() -> str:
    folder = next(path for path in (cache(), *cache().parents) if path.exists())
    free = shutil.disk_usage(folder).free
    if free >= BUILD_BYTES_MIN:
        return ""
    wanted = f"{BUILD_BYTES_MIN / (1 << 30):.0f} GB of disk"
    return f"building the programs takes {wanted}, {folder} has {free / (1 << 30):.1f} left"
