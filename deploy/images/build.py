"""Archives of our images, built by buildah: layers and archives are kept in the user's cache.

buildah itself finds again what is unchanged, by the content of what a Dockerfile copies: so a change of our
code costs the last layer, and no change costs a look.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.cluster import binaries, images, machine
from deploy.cluster.errors import ClusterError
from deploy.cluster.machine import tell
from deploy.cluster.place import cache
from deploy.images import context

HERE = Path(__file__).parent
NAMES = ("control-plane", "envoy", "mlflow")
HOLD = "hold"  # has a Dockerfile of its own, deploy/hold, and here needs neither a base nor a builder
SUITE = "bookworm"
BASE_PACKAGES = ("ca-certificates", "python3", "python3-venv")
PROGRAMS = ("buildah", "debootstrap")
TIMEOUT_S = 1_200.0  # of one step; the longest took 100 s on two busy cores
FIRST_BYTES = 8 << 30  # the base, the layers, two archives of each, and what is written on the way
AGAIN_BYTES = 4 << 30
CERTIFICATES = Path("/etc/ssl/certs")
BUNDLE = CERTIFICATES / "ca-certificates.crt"
PASSED = ("PIP_INDEX_URL", "UV_DEFAULT_INDEX")  # to a build, where they are set here


class NoBase(ClusterError):
    """The programs or the base of a build cannot be had on this machine: no fault of ours."""


@dataclass(frozen=True)
class Built:
    """An image: what it is called, and the archive of it that containerd imports."""

    name: str
    archive: Path


def why_not() -> str:
    """Why no image can be built here, in one sentence; empty if they can."""
    if os.geteuid() != 0:
        return "building images needs root: debootstrap makes devices, buildah mounts"
    if _missing() and not shutil.which("apt-get"):
        return f"building images needs {' and '.join(_missing())}, and there is no apt-get to install them"
    folder = cache() / "images"
    above = next(path for path in (folder, *folder.parents) if path.exists())
    free, wanted = shutil.disk_usage(above).free, AGAIN_BYTES if (folder / "store").exists() else FIRST_BYTES
    if free < wanted:
        return f"building images needs {wanted >> 30} GB for {folder}, and {free >> 30} are free"
    return ""


def _missing() -> list[str]:
    """Debian's packages that have programs of the same name, which are not here."""
    return [program for program in PROGRAMS if not shutil.which(program)]


def build(names: Sequence[str] = NAMES) -> list[Built]:
    """Build what has changed, one builder at a time; `hold` comes last. Raises NoBase or ClusterError."""
    folder = cache() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    _provide()
    with binaries.alone(folder), tempfile.TemporaryDirectory(prefix="trimtab-images-") as copied:
        _buildah(folder, "rm", "--all")  # of builds that were killed, as are halves of archives
        for half in folder.glob("*.part"):
            half.unlink()
        base = _base(folder)
        context.write(Path(copied))
        return [*(_image(folder, name, base, copied) for name in names), _hold(folder)]


def _hold(folder: Path) -> Built:
    """One static program; written anew each time, which takes a moment."""
    program = binaries.build({HOLD}) / HOLD
    digest = hashlib.sha256(program.read_bytes()).hexdigest()[:12]
    built = Built(f"localhost/trimtab-{HOLD}:{digest}", folder / f"{HOLD}-{digest}.tar")
    part = built.archive.with_suffix(".part")
    images.write_image(program, built.name, part)
    part.rename(built.archive)
    return built


def _provide() -> None:
    if packages := _missing():
        try:
            machine.install(packages)
        except ClusterError as error:
            raise NoBase(str(error), error.hint) from error


def _base(folder: Path) -> str:
    """A Debian with Python: the name of its image."""
    digest = hashlib.sha256(" ".join((SUITE, *BASE_PACKAGES)).encode()).hexdigest()[:8]
    name = f"localhost/trimtab-base:{digest}"
    if _has(folder, name):
        return name
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(dir=folder, prefix="base-") as made:
        include = f"--include={','.join(BASE_PACKAGES)}"
        try:
            _run("debootstrap", "--variant=minbase", include, SUITE, f"{made}/root")
        except ClusterError as error:
            raise NoBase(str(error), "see whether Debian's archive is reached, then try again") from error
        shutil.rmtree(f"{made}/root/var/cache/apt", ignore_errors=True)
        container = _buildah(folder, "from", "scratch").strip()
        _buildah(folder, "add", "--quiet", container, f"{made}/root", "/")
        _buildah(folder, "commit", "--quiet", "--rm", container, name)
    tell(f"the base image took {time.monotonic() - began_s:.0f} s")
    return name


def _image(folder: Path, name: str, base: str, copied: str) -> Built:
    began_s = time.monotonic()
    tag = f"localhost/trimtab-{name}:latest"
    _buildah(
        folder, "bud", "--quiet", "--layers", "--isolation=chroot", "--network=host", "--timestamp=0",
        f"--build-arg=BASE={base}", *_arguments(), f"--file={HERE / name}.Dockerfile", f"--tag={tag}", copied,
    )  # fmt: skip
    digest = _buildah(folder, "images", "--quiet", "--no-trunc", tag).strip().removeprefix("sha256:")[:12]
    called = f"localhost/trimtab-{name}:{digest}"
    archive = folder / f"{name}-{digest}.tar"
    if not archive.exists():
        # The one before may be another checkout's, which is about to import it.
        for old in sorted(folder.glob(f"{name}-*.tar"), key=lambda path: path.stat().st_mtime)[:-1]:
            old.unlink()
        part = archive.with_suffix(".part")
        _buildah(folder, "push", "--quiet", tag, f"docker-archive:{part}:{called}")
        part.rename(archive)
        _buildah(folder, "rmi", "--prune")
        tell(f"the image {name} took {time.monotonic() - began_s:.0f} s, {archive.stat().st_size >> 20} MB")
    return Built(called, archive)


def _arguments() -> list[str]:
    """What the builds must have of this machine."""
    told = {name: os.environ[name] for name in PASSED if name in os.environ}
    mounted = []
    if BUNDLE.exists():
        mounted.append(f"--volume={CERTIFICATES}:{CERTIFICATES}:ro")
        told |= {"PIP_CERT": str(BUNDLE), "SSL_CERT_FILE": str(BUNDLE)}
    return [*mounted, *(f"--build-arg={name}={value}" for name, value in told.items())]


def _has(folder: Path, name: str) -> bool:
    return (
        subprocess.run([*_command(folder), "inspect", name], capture_output=True, check=False).returncode == 0
    )


def _buildah(folder: Path, *arguments: str) -> str:
    temporary = folder / "tmp"  # the packages that uv keeps for the next build are there too
    temporary.mkdir(exist_ok=True)
    return _run(*_command(folder), *arguments, TMPDIR=str(temporary))


def _command(folder: Path) -> tuple[str, ...]:
    """With a store of our own: what else this machine builds is not ours to prune."""
    return ("buildah", f"--root={folder}/store", f"--runroot=/run/trimtab-images-{os.geteuid()}")


def _run(*command: str, **more: str) -> str:
    done = subprocess.run(
        command, env=os.environ | more, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip()
        raise ClusterError(
            f"`{command[0]} … {command[-1]}` failed: {said[-800:]}",
            "see whether the package index is reached, then try again",
        )
    return done.stdout
