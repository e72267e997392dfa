"""Tests for which there is no time left are skipped, and said to be; those before them count."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests import within

TWO = """
from tests import within

def test_first():
    within.BEGAN_S -= 3600.0

def test_second():
    raise AssertionError("it was run")
"""


def test_what_would_begin_too_late_is_skipped(tmp_path: Path) -> None:
    told = run(tmp_path, {within.NAME: "60"})
    assert "1 passed, 1 skipped" in told
    assert f"60 s have passed, which {within.NAME} allows" in told


def test_without_a_bound_all_are_run(tmp_path: Path) -> None:
    assert "1 failed, 1 passed" in run(tmp_path, {})


def run(folder: Path, bound: dict[str, str]) -> str:
    test = folder / "test_two.py"
    test.write_text(TWO)
    command = [sys.executable, "-P", "-m", "pytest", "-p", "tests.within", "-p", "no:cacheprovider", "-rs"]
    environment = {name: value for name, value in os.environ.items() if name != within.NAME} | bound
    done = subprocess.run(
        [*command, f"--rootdir={folder}", str(test)],
        capture_output=True, text=True, check=False, cwd=folder, env=environment,
    )  # fmt: skip
    return done.stdout + done.stderr
