"""What a test that is run again tells of its first try."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests import reruns

FLAKY = """
import pathlib

def test_it(request):
    print("what it did meanwhile")
    tried = pathlib.Path(__file__).with_name("tried")
    if not tried.exists():
        tried.touch()
        raise ValueError("the cause")
"""


def test_a_first_try_that_failed_is_told_with_its_cause(tmp_path: Path) -> None:
    told = run(tmp_path, "--reruns=1")
    assert "1 passed, 1 rerun" in told
    _, _, shown = told.partition(reruns.TITLE)
    for words in ("test_flaky.py::test_it (call)", "ValueError: the cause", "what it did meanwhile"):
        assert words in shown, told


def test_where_nothing_was_run_again_nothing_is_told(tmp_path: Path) -> None:
    (tmp_path / "tried").touch()
    told = run(tmp_path, "--reruns=1")
    assert "1 passed" in told
    assert reruns.TITLE not in told


def run(folder: Path, *options: str) -> str:
    test = folder / "test_flaky.py"
    test.write_text(FLAKY)
    command = [sys.executable, "-P", "-m", "pytest", "-p", "tests.reruns", "-p", "no:cacheprovider", *options]
    done = subprocess.run(
        [*command, f"--rootdir={folder}", str(test)], capture_output=True, text=True, check=False, cwd=folder
    )
    return done.stdout + done.stderr
