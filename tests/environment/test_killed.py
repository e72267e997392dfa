"""A control plane killed at any moment of a real making leaves an environment that is whole, or none."""

from __future__ import annotations

import asyncio
import contextlib
import platform
import random
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from trimtab.environment.keeper import Asked, Keeper
from trimtab.environment.making import KIND
from trimtab.environment.shelf import MAKING, Shelf
from trimtab.host.process import find

KILLS = 6
WITHIN_S = 8.0  # of its beginning; a whole making takes some ten seconds
MAKES_S = 600.0
SCRIPT = str(Path(__file__).parent / "keep.py")


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_killed_at_any_moment_it_is_whole_or_absent(tmp_path: Path, model: Callable[..., Path]) -> None:
    folder = model(f"mlflow-skinny=={version('mlflow')}", "pandas==2.2.3", python=platform.python_version())
    home, chance = tmp_path / "home", random.Random(7)
    shelf = Shelf(home / "environments")
    for _ in range(KILLS):
        maker = await asyncio.create_subprocess_exec(sys.executable, SCRIPT, str(home), str(folder))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(chance.uniform(0.5, WITHIN_S)):
                await maker.wait()
        maker.kill()
        await maker.wait()
        for key in shelf.by_use():
            assert shelf.whole(key)
            assert imports(shelf.python(key))
    keeper = Keeper(home)
    task = asyncio.create_task(keeper.run())
    async with asyncio.timeout(MAKES_S):
        while (place := keeper.place(Asked("d", "uv"), folder)).python is None:
            assert place.error is None, place
            await keeper.changed.wait()
            keeper.changed.clear()
    assert imports(place.python)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert find(home, KIND) == []
    assert [path.name for path in shelf.root.iterdir() if path.name.startswith(MAKING)] == []
    assert len(shelf.by_use()) == 1


def imports(python: Path) -> bool:
    done = subprocess.run([python, "-c", "import mlflow.pyfunc, pandas"], check=False, timeout=120)
    return done.returncode == 0
