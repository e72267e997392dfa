"""Making an environment with the real uv: whole or absent, whatever comes between."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Callable
from pathlib import Path

import pytest
from uv import find_uv_bin

from trimtab.core.errors import Failed, NotFound
from trimtab.environment.interpreters import DOWNLOADS, Interpreter, choose, interpreter_for
from trimtab.environment.making import KIND, NotMade, Order, commands, make, uvs_environment
from trimtab.environment.recipe import Recipe
from trimtab.environment.shelf import Shelf
from trimtab.environment.wheel import digest_of, runtime_wheel
from trimtab.host.process import find

HERE = platform.python_version()
KEY = "0" * 24
DEADLINE_S = 60.0


async def until(true: Callable[[], bool]) -> None:
    """Look until it is true; it must be within DEADLINE_S."""
    async with asyncio.timeout(DEADLINE_S):
        while not true():  # noqa: ASYNC110 - other processes, and files
            await asyncio.sleep(0.05)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runtime_wheel(tmp_path_factory.mktemp("wheel"))


def order(wheel: Path, folder: Path, *requirements: str) -> Order:
    return Order(KEY, Recipe(HERE, requirements), folder, wheel)


def test_the_same_sources_make_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    again = runtime_wheel(tmp_path)
    assert again.name == wheel.name == "trimtab_runtime-0.1.0-py3-none-any.whl"
    assert digest_of(again) == digest_of(wheel)


async def test_what_cannot_be_had_is_named_and_nothing_is_left(wheel: Path, tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "environments")
    with pytest.raises(NotMade) as failed:
        await make(order(wheel, tmp_path, "--no-index", "no-such-package==1.0"), shelf, tmp_path)
    assert type(failed.value.error) is Failed
    assert "no-such-package==1.0" in str(failed.value.error)
    assert any("no-such-package" in line for line in failed.value.log_tail)
    assert list(shelf.root.iterdir()) == []


async def test_it_takes_no_longer_than_it_may(wheel: Path, tmp_path: Path, silent_index: str) -> None:
    shelf = Shelf(tmp_path / "environments")
    waits = order(wheel, tmp_path, f"--index-url {silent_index}", "anything")
    with pytest.raises(NotMade, match="was not made within 2 s"):
        await make(waits, shelf, tmp_path, timeout_s=2.0)
    assert find(tmp_path, KIND) == []
    assert list(shelf.root.iterdir()) == []


async def test_cancelled_it_leaves_neither_files_nor_processes(
    wheel: Path, tmp_path: Path, silent_index: str
) -> None:
    shelf = Shelf(tmp_path / "environments")
    waits = order(wheel, tmp_path, f"--index-url {silent_index}", "anything")
    task = asyncio.create_task(make(waits, shelf, tmp_path))
    await until(lambda: bool(find(tmp_path, KIND)))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert find(tmp_path, KIND) == []
    assert list(shelf.root.iterdir()) == []


def test_packages_of_ours_do_not_lead_uv_astray_and_no_python_is_fetched() -> None:
    seen = uvs_environment({"PYTHONPATH": "/ours", "VIRTUAL_ENV": "/ours", "UV_INDEX_URL": "https://i"})
    assert "PYTHONPATH" not in seen
    assert "VIRTUAL_ENV" not in seen
    assert (seen["UV_INDEX_URL"], seen[DOWNLOADS]) == ("https://i", "never")
    assert uvs_environment({DOWNLOADS: "automatic"})[DOWNLOADS] == "automatic"


def test_what_packages_were_built_with_comes_first_and_constraints_only_if_there_are_any() -> None:
    recipe = Recipe(HERE, ("a",), ("b<2",), ("setuptools==60",))
    told = commands(Order(KEY, recipe, Path("/m"), Path("/w.whl")), Path("/f"), Path("/uv"), "3.11")
    assert list(told) == ["venv", "build", "install", "try"]
    assert told["build"][-1] == "setuptools==60"
    assert told["install"][-5:] == (
        "--requirements", "/f/requirements.txt", "--constraints", "/f/constraints.txt", "/w.whl",
    )  # fmt: skip
    bare = commands(Order(KEY, Recipe(HERE, ("a",)), Path("/m"), Path("/w")), Path("/f"), Path("/uv"), "3")
    assert list(bare) == ["venv", "install", "try"]
    assert "--constraints" not in bare["install"]


# interpreters


def test_the_same_patch_version_is_best_and_then_the_newest() -> None:
    found = [Interpreter(Path(v), v) for v in ("3.11.2", "3.11.10", "3.11.9", "3.10.13")]
    assert choose("3.11.9", found) == found[2]
    assert choose("3.11.7", found) == found[1]
    assert choose("3.10", found) == found[3]
    assert choose("3.12.1", found) is None


def test_ours_is_found_for_our_own_version() -> None:
    path = Path(interpreter_for(HERE, Path(find_uv_bin()), dict(os.environ)))
    assert path.resolve().name.startswith("python3")


def test_a_python_that_is_not_here_is_named_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"wants Python 3\.99\.1") as missing:
        interpreter_for("3.99.1", Path(find_uv_bin()), {"PATH": str(tmp_path), "PYENV_ROOT": str(tmp_path)})
    for words in (HERE, "pyenv", "uv python install 3.99", f"{DOWNLOADS}=automatic", "--env-manager local"):
        assert words in missing.value.hint
    allowed = {"PATH": str(tmp_path), "PYENV_ROOT": str(tmp_path), DOWNLOADS: "automatic"}
    assert interpreter_for("3.99.1", Path(find_uv_bin()), allowed) == "3.99"


def test_a_python_that_is_too_old_is_refused_whether_it_is_here_or_not() -> None:
    with pytest.raises(Failed, match=r"wants Python 3\.9\.1.* needs 3\.10"):
        interpreter_for("3.9.1", Path("/none"), {})


def test_pyenvs_versions_are_found_behind_its_shims(tmp_path: Path) -> None:
    python = tmp_path / "versions" / "3.98.4" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    found = interpreter_for("3.98.1", Path(find_uv_bin()), {"PATH": "", "PYENV_ROOT": str(tmp_path)})
    assert Path(found) == python
