"""Compiled once where that can be kept; compiled all the same where it cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trimtab.autoscaler.simulator import kernel

CODE = """
import sys
sys.path.insert(0, sys.argv[1])
from kernel_copy import bring_forward, empty
import numpy as np
pods = np.zeros((1, 7))
pods[0, 2] = 1.0
bring_forward(pods, 0, 2, 0.5, 4.0)
print(pods[0, :2].tolist(), sum(bring_forward.stats.cache_hits.values()))
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The module alone in a folder beside which nothing can be kept."""
    folder = tmp_path / "installed"
    folder.mkdir()
    shutil.copy(kernel.__file__, folder / "kernel_copy.py")
    (folder / "__pycache__").write_text("a file, so that it can be no folder")
    return folder


def run(folder: Path, **environment: str) -> str:
    """What the copy says in a process of its own."""
    given = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment}
    command = [sys.executable, "-c", CODE, str(folder)]
    done = subprocess.run(command, env=given, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_where_nothing_can_be_kept_it_is_compiled_anew(copy: Path) -> None:
    nowhere = str(copy / "kernel_copy.py")  # a file: no folder can be made in it
    told = run(copy, HOME=nowhere, XDG_CACHE_HOME=nowhere, NUMBA_CACHE_DIR=nowhere)
    assert told == "[2.0, 4.0] 0"


def test_what_was_compiled_is_kept_until_the_file_changes(copy: Path, tmp_path: Path) -> None:
    kept = str(tmp_path / "kept")
    assert run(copy, NUMBA_CACHE_DIR=kept) == "[2.0, 4.0] 0"
    assert run(copy, NUMBA_CACHE_DIR=kept) == "[2.0, 4.0] 1"
    file = copy / "kernel_copy.py"
    file.write_text(file.read_text().replace("moved = passed * speed", "moved = 2.0 * passed * speed"))
    assert run(copy, NUMBA_CACHE_DIR=kept) == "[4.0, 4.0] 0"
