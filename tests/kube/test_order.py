"""In which order the tests on Kubernetes come, and on which of two clusters."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deploy.cluster.shares import SHARE
from tests.kube.conftest import ORDER, pytest_collection_modifyitems

HERE = Path(__file__).parent


def test_each_file_has_its_place() -> None:
    there = {path.stem.removeprefix("test_") for path in HERE.glob("test_*.py")}
    assert set(ORDER) == there - {"order"}
    assert len(ORDER) == len(set(ORDER))


class Collected:
    """As pytest hands them over, and takes back what is not to run."""

    def __init__(self, *items: Any) -> None:
        self.items = list(items)
        self.left_out: list[Any] = []
        self.hook = self

    def pytest_deselected(self, items: list[Any]) -> None:
        self.left_out += items

    def ordered(self) -> list[Any]:
        config: Any = self
        pytest_collection_modifyitems(config, self.items)
        return [item.place for item in self.items]


def item(place: int, path: Path, *fixtures: str) -> SimpleNamespace:
    return SimpleNamespace(path=path, place=place, fixturenames=fixtures)


def test_what_users_would_miss_most_comes_first_and_a_file_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(SHARE, raising=False)
    names = ["gpus", "crd", "unheard_of", "chart", "crd"]
    items = [item(at, HERE / f"test_{name}.py") for at, name in enumerate(names)]
    items.insert(2, item(9, HERE.parent / "test_of_others.py"))
    assert Collected(*items).ordered() == [9, 3, 1, 4, 0, 2]


def test_of_two_clusters_each_does_a_half_and_no_test_is_in_both_or_in_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Files that need our images are the first's, whole, but for some; one of which nobody has heard too."""
    items = [
        item(0, HERE / "test_gpus.py", "image"),
        item(1, HERE / "test_models.py", "api"),
        item(2, HERE / "test_models.py", "our_images", "api"),
        item(3, HERE / "test_unheard_of.py", "our_images"),
        item(4, HERE / "test_crd.py"),
        item(5, HERE.parent / "test_of_others.py"),
        SimpleNamespace(path=HERE / "unheard_of.txt", place=6),
        item(7, HERE / "test_tenants.py", "our_images"),
    ]
    for share, its_own in (("1/2", [1, 2, 3]), ("2/2", [5, 4, 7, 0, 6])):
        monkeypatch.setenv(SHARE, share)
        collected = Collected(*items)
        assert collected.ordered() == its_own
        assert sorted([*its_own, *(each.place for each in collected.left_out)]) == list(range(8))
