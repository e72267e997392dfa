"""The folder of environments."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from trimtab.environment.shelf import MAKING, REMOVING, Shelf, python_in

KEY, OTHER = "a" * 24, "b" * 24


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    made = Shelf(tmp_path / "environments")
    made.open()
    return made


def filled(shelf: Shelf) -> Path:
    folder = shelf.incoming()
    python_in(folder).parent.mkdir(parents=True)
    python_in(folder).symlink_to(sys.executable)
    return folder


def test_it_is_there_only_when_it_is_whole(shelf: Shelf) -> None:
    folder = filled(shelf)
    assert not shelf.whole(KEY)
    assert shelf.by_use() == []
    shelf.adopt(folder, KEY, {"bytes": 7})
    assert shelf.whole(KEY)
    assert (shelf.by_use(), shelf.bytes_of(KEY)) == ([KEY], 7)
    assert not folder.exists()


def test_without_the_python_it_was_made_with_it_is_not_whole(shelf: Shelf, tmp_path: Path) -> None:
    folder = filled(shelf)
    python_in(folder).unlink()
    python_in(folder).symlink_to(tmp_path / "removed-python")
    shelf.adopt(folder, KEY, {})
    assert not shelf.whole(KEY)
    shelf.adopt(filled(shelf), KEY, {})
    assert shelf.whole(KEY), "a whole one takes the place of a broken one"


def test_what_was_left_half_way_is_swept_at_the_next_start(shelf: Shelf) -> None:
    shelf.adopt(filled(shelf), KEY, {})
    filled(shelf)
    (shelf.root / f"{REMOVING}x" / OTHER / "venv").mkdir(parents=True)
    assert len(list(shelf.root.iterdir())) == 3
    shelf.open()
    assert [path.name for path in shelf.root.iterdir()] == [KEY]


def test_the_latest_used_come_first_and_what_is_removed_is_gone(shelf: Shelf) -> None:
    for key in (KEY, OTHER):
        shelf.adopt(filled(shelf), key, {})
    os.utime(shelf.root / KEY / "environment.json", (0, 0))
    assert shelf.by_use() == [OTHER, KEY]
    shelf.touch(KEY)
    os.utime(shelf.root / OTHER / "environment.json", (0, 0))
    assert shelf.by_use() == [KEY, OTHER]
    aside = shelf.put_aside([KEY, "c" * 24])
    assert shelf.by_use() == [OTHER]
    shelf.clear(aside)
    assert [path.name for path in shelf.root.iterdir()] == [OTHER]


def test_an_interpreter_tells_its_environment(shelf: Shelf) -> None:
    assert shelf.key_of(shelf.python(KEY)) == KEY
    assert shelf.key_of(Path(sys.executable)) == ""
    assert shelf.key_of(shelf.root / f"{MAKING}x" / "venv" / "bin" / "python") == ""


def test_nothing_there_is_no_error(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "none")
    assert (shelf.by_use(), shelf.bytes_of(KEY), shelf.whole(KEY)) == ([], 0, False)
