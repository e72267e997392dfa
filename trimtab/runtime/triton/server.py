"""Where the real `tritonserver` is on this machine, and what each of its two packagings needs to run.

NVIDIA's image has it at /opt/tritonserver, whole. The wheel nvidia-pytriton has the same program with the
Python backend alone, the backend's stub once per version of Python, and its libraries in a folder beside. It
belongs into an environment of its own: it asks for numpy 1, since its stub takes every array of numpy 2 for
an empty one. The models of the Python backend then see the packages of that environment.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

WHEEL = "nvidia-pytriton==0.7.0"
REMEDY = (
    f"python3 -m venv ~/triton && ~/triton/bin/pip install '{WHEEL}', then start the platform by "
    '`PATH="$PATH:$HOME/triton/bin" trimtab up`; or put the tritonserver of NVIDIA\'s image on its PATH'
)

PROGRAM = "tritonserver"
EXIT_TIMEOUT_S = 25  # for what is in flight when told to end; below the 30 s after which it is killed
_SCRIPT = "pytriton"  # what the wheel installs beside its environment's Python
_STUB = "triton_python_backend_stub"
_ASK_TIMEOUT_S = 30.0
_VERSION_AND_LIBRARIES = """
import sys, sysconfig
print("%d.%d" % sys.version_info[:2])
print(sysconfig.get_config_var("LIBDIR") or "")
"""


@dataclass(frozen=True)
class Ports:
    """Where it listens."""

    http: int
    grpc: int
    metrics: int


def options(repository: Path, host: str, ports: Ports) -> list[str]:
    """Of the server itself, whichever packaging it is of."""
    return [
        f"--model-repository={repository}",
        f"--http-address={host}",
        f"--http-port={ports.http}",
        f"--grpc-address={host}",
        f"--grpc-port={ports.grpc}",
        f"--metrics-address={host}",
        f"--metrics-port={ports.metrics}",
        f"--exit-timeout-secs={EXIT_TIMEOUT_S}",
    ]


@dataclass(frozen=True)
class Server:
    """A tritonserver. `python` is that of the wheel's environment; None for NVIDIA's image."""

    program: Path
    python: Path | None = None

    @property
    def root(self) -> Path:
        """The folder that holds `bin`, `backends` and, in the wheel, `python_backend_stubs`."""
        return self.program.parents[1]


class ServerUnusableError(Exception):
    """The wheel cannot run here; the message says why."""


def find_server() -> Server | None:
    """The first on the PATH of the wheel's environment and NVIDIA's program; None if there is none."""
    script = shutil.which(_SCRIPT)
    if script is not None:
        bin_folder = Path(script).resolve().parent
        packages = "lib/python3.*/site-packages"
        for program in sorted(bin_folder.parent.glob(f"{packages}/pytriton/{PROGRAM}/bin/{PROGRAM}")):
            return Server(program, bin_folder / "python")
    found = shutil.which(PROGRAM)
    return Server(Path(found).resolve()) if found else None


@dataclass(frozen=True)
class Laid:
    """A server made ready to start: the folder of its backends, and the environment that it needs."""

    backends: Path
    environment: dict[str, str]


def lay_out(server: Server, folder: Path, own: Mapping[str, str]) -> Laid:
    """Make ready to start `server`, its backends in `folder`, with the environment `own`.

    The stub holds an interpreter that finds its packages by the `python3` that comes first on the PATH.
    Raises ServerUnusableError, and OSError if the folder cannot be written.
    """
    if server.python is None:
        return Laid(server.root / "backends", dict(own))
    version, libpython = _ask(server.python)
    stub = server.root / "python_backend_stubs" / version / _STUB
    if not stub.is_file():
        known = ", ".join(sorted(path.parent.name for path in stub.parents[1].glob(f"*/{_STUB}")))
        raise ServerUnusableError(f"{WHEEL} runs models in Python {known}; {server.python} is {version}")
    for backend in (server.root / "backends").iterdir():
        (folder / backend.name).mkdir(parents=True, exist_ok=True)
        for path in backend.iterdir():
            _link(path, folder / backend.name / path.name)
    _link(stub, folder / "python" / _STUB)
    own_libraries = str(server.root.parents[1] / "nvidia_pytriton.libs")
    libraries = [own_libraries, libpython, own.get("LD_LIBRARY_PATH", "")]
    return Laid(
        folder,
        {
            **own,
            "LD_LIBRARY_PATH": os.pathsep.join(filter(None, libraries)),
            "PATH": os.pathsep.join([str(server.python.parent), own.get("PATH", os.defpath)]),
        },
    )


def _ask(python: Path) -> tuple[str, str]:
    """(version, folder of libpython) of an interpreter."""
    try:
        told = subprocess.run(
            [str(python), "-c", _VERSION_AND_LIBRARIES],
            capture_output=True,
            text=True,
            timeout=_ASK_TIMEOUT_S,
            check=True,
        )
        version, libraries = told.stdout.splitlines()[:2]
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise ServerUnusableError(f"{python} cannot be asked for its version: {error}") from error
    return version, libraries


def _link(target: Path, link: Path) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(target)
