"""The programs of a cluster: built once from their Go modules, kept outside of the checkout.

A folder's name holds a digest of all that decides what is built, so that checkouts with the same recipe
share it and a new recipe never meets old programs.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.cluster.errors import ClusterError
from deploy.cluster.machine import tell
from deploy.cluster.place import cache

KUBERNETES = "1.36.3"
MODULES = Path(__file__).parent / "go"
BUILD_TIMEOUT_S = 3_000.0  # of one program; all of them took 10 minutes on two idle cores


@dataclass(frozen=True)
class Source:
    """Where programs come from: packages of a module in `go/`, or MODULE@VERSION of somebody else's."""

    programs: tuple[str, ...]
    folder: str = ""
    packages: tuple[str, ...] = ()
    module: str = ""
    flags: str = "-s -w"
    files: tuple[str, str] = ("", "")  # of the module: which, and the folder that they are copied to


CONTAINERD = "github.com/containerd/containerd/v2/cmd"
_VERSION = " ".join(
    f"-X k8s.io/{module}/version.gitVersion=v{KUBERNETES}" for module in ("component-base", "client-go/pkg")
)
_COMPONENTS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
SOURCES = (
    Source(("pause", "answers"), folder="small", packages=("./pause", "./answers")),
    Source(("hold",), folder="../../hold", packages=(".",)),
    Source(
        _COMPONENTS,
        folder="kubernetes",
        packages=tuple(f"./cmd/{component}" for component in _COMPONENTS),
        flags=f"-s -w {_VERSION}",
    ),
    Source(("etcd",), folder="etcd", packages=(".",)),
    Source(("containerd",), module=f"{CONTAINERD}/containerd@v2.2.9"),
    Source(("containerd-shim-runc-v2",), module=f"{CONTAINERD}/containerd-shim-runc-v2@v2.2.9"),
    Source(("ctr",), module=f"{CONTAINERD}/ctr@v2.2.9"),
    Source(("coredns",), module="github.com/coredns/coredns@v1.15.0"),
    Source(
        ("kwok",),
        module="sigs.k8s.io/kwok/cmd/kwok@v0.8.0",
        files=("kustomize/stage/*/fast/*-*.yaml", "kwok-stages"),
    ),
)
OPTIONAL = frozenset({"kwok"})
# Kept apart: no cluster runs it, so its version says nothing of the others.
HELM = Source(("helm",), module="helm.sh/helm/v3/cmd/helm@v3.22.0")


def kept(source: Source) -> Path:
    """Where what is built of a source is kept: it is built anew only if its own recipe changes."""
    digest = hashlib.sha256(repr(source).encode())
    if not source.module:
        for path in sorted((MODULES / source.folder).rglob("*")):
            if path.is_file():
                digest.update(path.read_bytes())
    return cache() / "programs" / f"{source.programs[0]}-{digest.hexdigest()[:8]}"


def folder() -> Path:
    """Where the programs of a cluster are side by side, or will be."""
    digest = hashlib.sha256(" ".join(kept(source).name for source in SOURCES).encode())
    return cache() / f"kube-{KUBERNETES}-{digest.hexdigest()[:8]}"


def lacking(wanted: Collection[str]) -> list[Source]:
    """What has to be built so that all of `wanted` are there."""
    return [source for source in _of(wanted) if not _is_built(source)]


def needed(*, fake_nodes: bool) -> frozenset[str]:
    """The programs that a cluster runs."""
    every = {program for source in SOURCES for program in source.programs}
    return frozenset(every if fake_nodes else every - OPTIONAL)


def build(wanted: Collection[str]) -> Path:
    """Build what is lacking, one builder at a time; returns the folder. Raises ClusterError."""
    there = folder()
    if all((there / program).exists() for program in wanted):
        return there
    there.mkdir(parents=True, exist_ok=True)
    with alone(there):
        for source in _of(wanted):
            _provide(source)
            _link(source, there)
    return there


def helm() -> Path:
    """Where the program is, or will be: see `build_helm`."""
    return kept(HELM) / "helm"


def build_helm() -> Path:
    """Build it if it is not there; returns where it is. Raises ClusterError."""
    _provide(HELM)
    return helm()


def _of(wanted: Collection[str]) -> list[Source]:
    return [source for source in SOURCES if any(program in wanted for program in source.programs)]


def _is_built(source: Source) -> bool:
    return all((kept(source) / program).exists() for program in source.programs)


def _provide(source: Source) -> None:
    there = kept(source)
    there.mkdir(parents=True, exist_ok=True)
    with alone(there):
        if not _is_built(source):
            began_s = time.monotonic()
            tell(f"building {' '.join(source.programs)}")
            _build(source, there)
            tell(f"built in {time.monotonic() - began_s:.0f} s")


def _link(source: Source, there: Path) -> None:
    _, files = source.files
    if files:
        shutil.copytree(kept(source) / files, there / files, dirs_exist_ok=True)
    for program in source.programs:
        if not (there / program).exists():
            os.link(kept(source) / program, there / program)


def _build(source: Source, there: Path) -> None:
    """Into a folder beside, then moved: a build that was killed leaves no half a program."""
    with tempfile.TemporaryDirectory(dir=there, prefix="building-") as made:
        if source.module:
            command = ["install", "-ldflags", source.flags, source.module]
        else:
            command = ["build", "-ldflags", source.flags, "-mod=readonly", "-o", f"{made}/", *source.packages]
        _go(*command, cwd=MODULES / source.folder, made=made)
        _copy_files(source, there, made)
        for program in source.programs:
            shutil.move(Path(made) / program, there / program)


def _copy_files(source: Source, there: Path, made: str) -> None:
    pattern, folder_name = source.files
    if pattern:
        module, _, version = source.module.partition("@")
        root = module.partition("/cmd/")[0]
        found = json.loads(_go("mod", "download", "-json", f"{root}@{version}", cwd=MODULES, made=made))
        (there / folder_name).mkdir(exist_ok=True)
        for path in Path(found["Dir"]).glob(pattern):
            shutil.copyfile(path, there / folder_name / f"{path.parts[-3]}-{path.name}")


def _go(*command: str, cwd: Path, made: str) -> str:
    """What `go` prints; what it installs is put into `made`. Raises ClusterError."""
    own = {"CGO_ENABLED": "0", "GOFLAGS": "-trimpath -buildvcs=false", "GOBIN": made}
    done = subprocess.run(
        ["nice", "go", *command],
        cwd=cwd,
        env=os.environ | own,
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise ClusterError(
            f"`go {command[0]} {command[-1]}` failed: {done.stderr.strip()[-600:]}",
            "see whether the Go module proxy is reached, then try again",
        )
    return done.stdout


@contextmanager
def alone(there: Path) -> Iterator[None]:
    """Of all that build into this folder one at a time."""
    with (there / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell("waiting for another build of the same")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
