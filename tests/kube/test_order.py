"""In which order the tests on Kubernetes come, where an hour may not hold them all."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.kube.conftest import ORDER, pytest_collection_modifyitems

HERE = Path(__file__).parent


def test_each_file_has_its_place() -> None:
    there = {path.stem.removeprefix("test_") for path in HERE.glob("test_*.py")}
    assert set(ORDER) == there - {"order"}
    assert len(ORDER) == len(set(ORDER))


def test_what_users_would_miss_most_comes_first_and_a_file_stays_as_it_is() -> None:
    names = ["gpus", "crd", "unheard_of", "chart", "crd"]
    items: list[Any] = [
        SimpleNamespace(path=HERE / f"test_{name}.py", place=at) for at, name in enumerate(names)
    ]
    items.insert(2, SimpleNamespace(path=HERE.parent / "test_of_others.py", place=9))
    pytest_collection_modifyitems(items)
    assert [item.place for item in items] == [9, 3, 1, 4, 0, 2]
