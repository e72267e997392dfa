"""The lock file and the set-up: pinned, hashed, bound to no index, and quick to say what is missing."""

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text()
PINS = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)(?: ; (.*?))? \\$", LOCK, re.MULTILINE)


def test_every_requirement_is_pinned_with_hashes() -> None:
    blocks = re.split(r"\n(?=\S)", LOCK[LOCK.index("\n", LOCK.index("make lock")) + 1 :])
    assert len(blocks) == len(PINS) > 50
    for block in blocks:
        assert "--hash=sha256:" in block, block.splitlines()[0]


def test_the_lock_names_no_host() -> None:
    assert not re.search(r"://|--index|--find-links|\.(org|com|io|net)\b", LOCK)


def test_what_is_installed_is_what_the_lock_says() -> None:
    result = subprocess.run(
        [
            *(sys.executable, "-m", "uv", "pip", "install", "--python", sys.executable),
            *("--dry-run", "--offline", "--no-cache", "--require-hashes", "-r", "requirements.lock"),
        ],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    assert "would make no changes" in result.stderr.lower(), "make setup"


def test_set_up_is_instant_when_nothing_changed(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    (checkout / ".venv").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        (checkout / name).write_bytes((ROOT / name).read_bytes())
    (checkout / ".venv" / ".stamp").write_text(str(checkout))
    assert dry_run(checkout) == ""
    os.utime(checkout / "requirements.lock", (4e9, 4e9))
    assert "requirements.lock" in dry_run(checkout)


def test_a_moved_checkout_is_set_up_again(tmp_path: Path) -> None:
    (tmp_path / ".venv").mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / ".venv" / ".stamp").write_text("/elsewhere")
    assert "requirements.lock" in dry_run(tmp_path)


def test_without_a_python_the_error_says_what_to_install(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    result = subprocess.run(
        ["/bin/sh", str(ROOT / ".ci" / "python"), "-m", "venv", "x"],
        env={"PATH": str(tmp_path)},
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert result.returncode == 1
    assert "error: no Python 3.11" in result.stderr
    assert "hint: " in result.stderr


def test_a_shim_without_its_python_is_passed_over(tmp_path: Path) -> None:
    shim = tmp_path / "python3.13"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    (tmp_path / "python3").symlink_to(sys.executable)
    result = subprocess.run(
        ["/bin/sh", str(ROOT / ".ci" / "python"), "-c", "print('found')"],
        env={"PATH": str(tmp_path)},
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert result.stdout == "found\n", result.stderr


def test_tools_that_make_committed_files_are_the_locked_ones() -> None:
    locked = {name: pin for name, pin, _ in PINS}
    for name in ("grpcio-tools", "mypy-protobuf", "ruff", "mypy"):
        assert version(name) == locked[name]


def dry_run(checkout: Path) -> str:
    """What `make setup` would do there."""
    result = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "setup"],
        cwd=checkout,
        env={"PATH": os.environ["PATH"]},
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert result.returncode == 0, result.stderr
    return "" if "Nothing to be done" in result.stdout else result.stdout
