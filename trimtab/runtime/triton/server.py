"""Where the real `tritonserver` is on this machine, and what each of its two packagings needs to run.

NVIDIA's image has it at /opt/tritonserver, whole. The wheel nvidia-pytriton has the same program with the
Python backend alone, the backend's stub once per version of Python, and its libraries in a folder beside.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

WHEEL = "nvidia-pytriton==0.7.0"

_PROGRAM = "tritonserver"
_STUB = "triton_python_backend_stub"


@dataclass(frozen=True)
class Server:
    """A tritonserver. `stubs` and `libraries` are the wheel's; None where the image's layout says all."""

    program: Path
    stubs: Path | None = None
    libraries: Path | None = None

    @property
    def backends(self) -> Path:
        """The folder of its backends."""
        return self.program.parents[1] / "backends"


class UnsupportedPythonError(Exception):
    """The wheel has no stub for a version of Python."""


def find_server() -> Server | None:
    """The wheel beside this Python, else the one on the PATH; None if there is none."""
    wheel = importlib.util.find_spec("pytriton")
    for folder in wheel.submodule_search_locations or () if wheel else ():
        program = Path(folder) / _PROGRAM / "bin" / _PROGRAM
        if program.is_file():
            return _server(program)
    found = shutil.which(_PROGRAM)
    return _server(Path(found).resolve()) if found else None


def _server(program: Path) -> Server:
    root = program.parents[1]
    stubs, libraries = root / "python_backend_stubs", root.parents[1] / "nvidia_pytriton.libs"
    return Server(program, stubs, libraries) if stubs.is_dir() else Server(program)


def lay_out_backends(server: Server, folder: Path) -> Path:
    """The folder of backends to give to the server: the wheel's, with the stub of this Python, in `folder`.

    Raises UnsupportedPythonError, and OSError if the folder cannot be written.
    """
    if server.stubs is None:
        return server.backends
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = server.stubs / version / _STUB
    if not stub.is_file():
        known = ", ".join(sorted(path.name for path in server.stubs.iterdir()))
        raise UnsupportedPythonError(f"{WHEEL} runs models in Python {known}; this is {version}")
    for backend in server.backends.iterdir():
        (folder / backend.name).mkdir(parents=True, exist_ok=True)
        for path in backend.iterdir():
            _link(path, folder / backend.name / path.name)
    _link(stub, folder / "python" / _STUB)
    return folder


def environment_of(server: Server, own: Mapping[str, str]) -> dict[str, str]:
    """`own` with what the server needs: its libraries, libpython, and this Python for the models.

    The stub holds an interpreter that finds its packages by the `python3` that comes first on the PATH: with
    this one's folder there, models import what is installed here.
    """
    library = sysconfig.get_config_var("LIBDIR")
    libraries = [str(server.libraries)] if server.libraries else []
    libraries += [library] if isinstance(library, str) else []
    return {
        **own,
        "LD_LIBRARY_PATH": os.pathsep.join([*libraries, *filter(None, [own.get("LD_LIBRARY_PATH")])]),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), own.get("PATH", os.defpath)]),
    }


def _link(target: Path, link: Path) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(target)
