"""What a pod does before its server starts, as the process that it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TELL = "import sys; from pathlib import Path; print(sys.executable, Path(sys.argv[1], 'MLmodel').read_text())"


def prepare(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trimtab.prepare", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "MLmodel").write_text("flavors: {}")
    return folder


def test_it_becomes_the_command_with_model_and_interpreter_told(model: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    arguments = ("--uri", str(model), "--home", str(home), "--env-manager", "local", "--")
    done = prepare(*arguments, "{python}", "-c", TELL, "{model}")
    assert done.stdout == f"{sys.executable} flavors: {{}}\n"
    assert "model: " in done.stderr
    assert "env_manager is local" in done.stderr

    (model / "MLmodel").unlink()
    again = prepare(*arguments, "{python}", "-c", TELL, "{model}")
    assert again.stdout == done.stdout, "a container that is started again brings nothing"


def test_it_only_brings_the_model_for_a_server_beside_it(model: Path, tmp_path: Path) -> None:
    (model / "requirements.txt").write_text("no-such-distribution-anywhere\n")  # no environment is made
    there = tmp_path / "served"
    arguments = ("--uri", str(model), "--home", str(tmp_path / "home"), "--link", str(there))
    for _ in range(2):  # as a container that is started again
        done = prepare(*arguments)
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        assert (there / "MLmodel").read_text() == "flavors: {}"
    assert prepare(*arguments, "--", "server").returncode == 2, "one or the other"
    assert prepare(*arguments[:4]).returncode == 2


def test_what_its_own_environment_holds_needs_no_other(model: Path, tmp_path: Path) -> None:
    (model / "requirements.txt").write_text("orjson\n")
    (model / "MLmodel").write_text(
        f"flavors: {{python_function: {{python_version: {sys.version.split()[0]}}}}}"
    )
    done = prepare("--uri", str(model), "--home", str(tmp_path / "home"), "--", "{python}", "-c", "print(1)")
    assert (done.stdout, done.returncode) == ("1\n", 0), done.stderr
    assert "trimtab's own" in done.stderr


def test_a_model_that_is_not_there_is_told_with_a_hint(tmp_path: Path) -> None:
    done = prepare("--uri", str(tmp_path / "none"), "--home", str(tmp_path), "--", "{python}")
    assert done.returncode != 0
    assert done.stderr.startswith("error: ")
    assert "is not there" in done.stderr
    assert "hint: check the path" in done.stderr
