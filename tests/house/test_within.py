"""Tests for which there is no time left are skipped, and said to be; those before them count."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tests import within

TWO = """
from tests import within

def test_first():
    within.UNTIL_S = 0.0
    {first}

def test_second():
    raise AssertionError("it was run")
"""


def test_what_would_begin_too_late_is_skipped(tmp_path: Path) -> None:
    told = run(tmp_path, {within.NAME: f"{time.time() + 3600:.0f}"})
    assert "1 passed, 1 skipped" in told
    assert f"{within.NAME} has passed" in told


def test_what_has_failed_is_not_skipped_where_it_is_run_again(tmp_path: Path) -> None:
    told = run(tmp_path, {}, "--reruns=1", first="raise ValueError")
    assert "1 failed, 1 skipped, 1 rerun" in told


def test_without_a_bound_all_are_run(tmp_path: Path) -> None:
    test = TWO.replace("within.UNTIL_S = 0.0", "pass")
    assert "1 failed, 1 passed" in run(tmp_path, {}, source=test)


def run(folder: Path, bound: dict[str, str], *options: str, first: str = "pass", source: str = TWO) -> str:
    test = folder / "test_two.py"
    test.write_text(source.replace("{first}", first))
    command = [sys.executable, "-P", "-m", "pytest", "-p", "tests.within", "-p", "no:cacheprovider", "-rs"]
    environment = {name: value for name, value in os.environ.items() if name != within.NAME} | bound
    done = subprocess.run(
        [*command, *options, f"--rootdir={folder}", str(test)],
        capture_output=True, text=True, check=False, cwd=folder, env=environment,
    )  # fmt: skip
    return done.stdout + done.stderr
