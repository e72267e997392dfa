"""The wheel of `trimtab-runtime` that goes into environments: carried by ours, or built from a checkout."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

import trimtab
from trimtab.core.errors import Failed
from trimtab.environment.shelf import MAKING

CARRIED = Path(__file__).parent / "carried"
CHECKOUT = Path(trimtab.__file__).resolve().parents[1] / "deploy" / "runtime"
BUILD_TIMEOUT_S = 120.0
_BUILD = "import sys; from hatchling.builders.wheel import WheelBuilder; "
_BUILD += "print(next(WheelBuilder(sys.argv[1]).build(directory=sys.argv[2], versions=['standard'])))"


def runtime_wheel(folder: Path) -> Path:
    """The wheel, built below `folder` if we run from a checkout, which takes a second. Raises Failed."""
    carried = sorted(CARRIED.glob("trimtab_runtime-*.whl"))
    if carried:
        return carried[-1]
    if not CHECKOUT.is_dir():
        hint = "install trimtab from its wheel again, or deploy with --env-manager local"
        raise Failed("trimtab-runtime is missing from this installation", where=str(CARRIED), hint=hint)
    return _built(folder)


def digest_of(wheel: Path) -> str:
    """The SHA-256 of its bytes: the same sources make the same wheel."""
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


def _built(folder: Path) -> Path:
    """In a process of its own: what builds would stay in ours for good."""
    out = tempfile.mkdtemp(dir=folder, prefix=f"{MAKING}wheel-")
    try:
        done = subprocess.run(
            [sys.executable, "-c", _BUILD, CHECKOUT, out],
            capture_output=True,
            text=True,
            timeout=BUILD_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        hint = "`make setup` installs hatchling, which builds it; or deploy with --env-manager local"
        raise Failed(f"cannot be built: {said.strip()[-300:]}", where=str(CHECKOUT), hint=hint) from error
    return Path(done.stdout.strip())
