"""The Pythons of this machine."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trimtab.core.errors import Failed, NotFound

LIST_TIMEOUT_S = 30.0
NAMED_MAX = 8
OLDEST = (3, 10)  # that trimtab-runtime runs on
DOWNLOADS = "UV_PYTHON_DOWNLOADS"
_RELEASE = re.compile(r"\d+\.\d+\.\d+")


@dataclass(frozen=True)
class Interpreter:
    """One Python: its executable, and its version, `3.11.7`."""

    path: Path
    version: str


def choose(wanted: str, found: Sequence[Interpreter]) -> Interpreter | None:
    """The one to take for `wanted` (`3.11.7`, `3.11`): that version, else the newest of its minor version."""
    fit = [each for each in found if _minor(each.version) == _minor(wanted)]
    exact = next((each for each in fit if each.version == wanted), None)
    return exact or max(fit, key=lambda each: _numbers(each.version), default=None)


def interpreter_for(wanted: str, uv: Path, environment: Mapping[str, str]) -> str:
    """What to give `uv venv --python`. Raises NotFound, telling what is here, or Failed."""
    minor = _minor(wanted)
    if minor < OLDEST:
        told = ".".join(map(str, OLDEST))
        hint = f"log the model again with Python {told} or later, or deploy it with --env-manager local"
        raise Failed(f"the model wants Python {wanted}, and what runs in a pod needs {told}", hint=hint)
    found = installed(uv, environment)
    chosen = choose(wanted, found)
    if chosen is not None:
        return str(chosen.path)
    name = ".".join(map(str, minor))
    if environment.get(DOWNLOADS) in ("automatic", "manual"):
        return name
    here = ", ".join(sorted({each.version for each in found}, key=_numbers)[-NAMED_MAX:]) or "none"
    raise NotFound(
        f"the model wants Python {wanted}, and no Python {name} is on this machine",
        hint=f"found on the PATH, of uv's and pyenv's: {here}. Install it (`uv python install {name}`), "
        f"start trimtab with {DOWNLOADS}=automatic, or deploy the model with --env-manager local",
    )


def installed(uv: Path, environment: Mapping[str, str]) -> list[Interpreter]:
    """Ours first, then pyenv's, whose shims on the PATH hide all but one, then what uv finds itself."""
    base = Path(getattr(sys, "_base_executable", "") or sys.executable)
    return [Interpreter(base, platform.python_version()), *_pyenvs(environment), *_uvs(uv, environment)]


def _pyenvs(environment: Mapping[str, str]) -> list[Interpreter]:
    root = Path(environment.get("PYENV_ROOT") or Path.home() / ".pyenv")
    paths = (path for path in sorted(root.glob("versions/*/bin/python")) if os.access(path, os.X_OK))
    return [Interpreter(p, p.parents[1].name) for p in paths if _RELEASE.fullmatch(p.parents[1].name)]


def _uvs(uv: Path, environment: Mapping[str, str]) -> list[Interpreter]:
    """Those that `uv python list` tells of; none if it cannot."""
    command = [str(uv), "python", "list", "--only-installed", "--no-config", "--output-format", "json"]
    try:
        told = subprocess.run(
            command, env=dict(environment), capture_output=True, timeout=LIST_TIMEOUT_S, check=True
        )
        listed = json.loads(told.stdout)
        found = [
            Interpreter(Path(entry["path"]), str(entry["version"]))
            for entry in listed
            if entry["implementation"] == "cpython" and entry["variant"] == "default"
        ]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return []
    return [each for each in found if _RELEASE.fullmatch(each.version)]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _minor(version: str) -> tuple[int, ...]:
    return _numbers(version)[:2]
