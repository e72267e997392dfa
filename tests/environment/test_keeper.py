"""Which environment a model gets, how long it stays, and what happens when its making is cut off."""

from __future__ import annotations

import asyncio
import contextlib
import platform
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from trimtab.core.errors import Failed, InvalidInput
from trimtab.environment import keeper as keeping
from trimtab.environment.keeper import UNUSED_KEPT, Asked, Keeper, Place
from trimtab.environment.making import KIND, Order
from trimtab.environment.shelf import Shelf, python_in
from trimtab.host.process import find

ASKED = Asked("sha256:00", "uv")
OWN = Path(sys.executable)
HERE = platform.python_version()
OTHERS = "numpy==0.0.1"  # not ours
DEADLINE_S = 60.0


async def until(true: Callable[[], bool]) -> None:
    """Look until it is true; it must be within DEADLINE_S."""
    async with asyncio.timeout(DEADLINE_S):
        while not true():  # noqa: ASYNC110 - other processes, and files
            await asyncio.sleep(0.05)


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Keeper]:
    keeper = Keeper(tmp_path)
    task = asyncio.create_task(keeper.run())
    yield keeper
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Environments are made in no time, and are empty: the keys of those that were."""
    keys: list[str] = []

    async def make(order: Order, shelf: Shelf, home: Path) -> None:
        folder = shelf.incoming()
        python_in(folder).parent.mkdir(parents=True)
        python_in(folder).symlink_to(sys.executable)
        await asyncio.sleep(0)
        shelf.adopt(folder, order.key, {"bytes": 10})
        keys.append(order.key)

    monkeypatch.setattr(keeping, "make", make)
    return keys


async def settled(keeper: Keeper, asked: Asked, folder: Path) -> Place:
    """Its place once it is known."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            keeper.changed.clear()
            place = keeper.place(asked, folder)
            if place.python is not None or place.error is not None:
                return place
            await keeper.changed.wait()


def test_a_signature_of_ten_thousand_columns_is_read_to_its_end(tmp_path: Path, model: Any) -> None:
    folder = model("numpy", python=HERE)
    columns = "x" * (2 << 20)
    with (folder / "MLmodel").open("a") as file:
        file.write(f"signature: {{inputs: '{columns}'}}\n")
    assert Keeper(tmp_path).place(ASKED, folder).error is None


def test_ours_is_used_at_once_where_it_holds_all_that_is_recorded(tmp_path: Path, model: Any) -> None:
    place = Keeper(tmp_path).place(ASKED, model("mlflow", "scikit-learn", "numpy>=2", python=HERE))
    assert place == Place(OWN, "trimtab's own: all 3 requirements hold")


def test_ours_is_used_where_that_is_asked_for_or_nothing_is_recorded(tmp_path: Path, model: Any) -> None:
    keeper = Keeper(tmp_path)
    local = keeper.place(Asked("d", "local"), model(OTHERS, python="3.8.1"))
    assert local == Place(OWN, "trimtab's own: env_manager is local")
    (tmp_path / "bare").mkdir()
    assert keeper.place(ASKED, tmp_path / "bare").words == "trimtab's own: the model records no requirements"


def test_what_cannot_be_read_is_told_at_once(tmp_path: Path, model: Any) -> None:
    folder = model(OTHERS)
    (folder / "python_env.yaml").write_text("python: [")
    place = Keeper(tmp_path).place(ASKED, folder)
    assert isinstance(place.error, InvalidInput)


def test_who_only_looks_begins_nothing(tmp_path: Path, model: Any) -> None:
    keeper = Keeper(tmp_path)
    assert keeper.known(ASKED) is None
    keeper.place(ASKED, model(OTHERS))
    told = keeper.known(ASKED)
    assert told is not None
    assert told.words.startswith("being made (numpy==0.0.1 is wanted, trimtab's is ")


async def test_equal_content_is_made_once_and_shared(running: Keeper, made: list[str], model: Any) -> None:
    one = model("mlflow", OTHERS, python=HERE)
    two = model("MLflow", "numpy == 0.0.1", python=HERE, name="sha256-01")
    places = await asyncio.gather(
        settled(running, ASKED, one), settled(running, Asked("sha256:01", "uv"), two)
    )
    assert len(made) == 1
    assert places[0].python == places[1].python
    assert places[0].python is not None
    assert places[0].python.parents[2].name == made[0]
    assert places[0].words.startswith(
        f"its own, {made[0][:8]}: Python {HERE}, 2 requirements (numpy==0.0.1 is"
    )


async def test_one_that_somebody_removed_is_made_again(
    running: Keeper, made: list[str], model: Any, tmp_path: Path
) -> None:
    folder = model(OTHERS, python=HERE)
    await settled(running, ASKED, folder)
    Shelf(tmp_path / "environments").put_aside(made)
    assert running.place(ASKED, folder, look=True).python is None
    await settled(running, ASKED, folder)
    assert len(made) == 2


async def test_those_that_nothing_uses_go_but_for_the_latest(
    running: Keeper, made: list[str], model: Any, tmp_path: Path
) -> None:
    asked = [Asked(f"sha256:{i:02}", "uv") for i in range(UNUSED_KEPT + 3)]
    places = []
    for i, one in enumerate(asked):
        folder = model(f"numpy==0.0.{i + 1}", python=HERE, name=f"sha256-{i:02}")
        places.append(await settled(running, one, folder))
    shelf = Shelf(tmp_path / "environments")
    assert set(shelf.by_use()) == set(made), "before anybody told what is in use nothing goes"
    in_use = {made[0], made[1]}  # the oldest: one is wanted, and a pod runs on the other
    pod = places[1].python
    assert pod is not None
    running.keep_only({asked[0]}, {pod, OWN})
    await until(lambda: len(shelf.by_use()) == len(in_use) + UNUSED_KEPT)
    assert set(shelf.by_use()) == in_use | set(made[-UNUSED_KEPT:])
    assert await running.prune(dry_run=True) == (
        tuple(f"environments/{key}" for key in reversed(made[-UNUSED_KEPT:])),
        10 * UNUSED_KEPT,
    )
    await running.prune(dry_run=False)
    assert set(shelf.by_use()) == in_use


async def test_a_failure_stays_until_it_is_tried_again(running: Keeper, model: Any) -> None:
    folder = model("--no-index", "no-such-package==1.0", python=HERE)
    place = await settled(running, ASKED, folder)
    assert isinstance(place.error, Failed)
    assert place.log_tail
    assert running.place(ASKED, folder) is place
    running.try_again(ASKED)
    assert running.place(ASKED, folder).error is None, "it is being made again"


async def test_a_making_that_was_killed_is_swept_by_the_next_control_plane(
    tmp_path: Path, model: Callable[..., Path], silent_index: str
) -> None:
    folder = model(f"--index-url {silent_index}", "anything", python=HERE)
    home = tmp_path / "home"
    script = str(Path(__file__).parent / "keep.py")

    def installs() -> bool:
        """The step before it takes a moment: it might end just when its parent is killed."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return any("pip" in psutil.Process(process.pid).cmdline() for process in find(home, KIND))
        return False

    killed = await asyncio.create_subprocess_exec(sys.executable, script, str(home), str(folder))
    try:
        await until(installs)
    finally:
        killed.kill()
        await killed.wait()
    assert find(home, KIND), "uv outlives who started it"
    keeper = Keeper(home)
    task = asyncio.create_task(keeper.run())
    await until(lambda: not find(home, KIND) and not any((home / "environments").iterdir()))
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
