"""The cache's files: within its bound whatever comes, and found again after a crash."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.core.clock import ManualClock
from trimtab.core.errors import Exhausted
from trimtab.modelcache.shelf import Owner, Shelf

IRIS, OTHER = Owner("team", "trimtab-iris"), Owner("rivals", "trimtab-iris")
BYTES_MAX = 100


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def shelf(tmp_path: Path, clock: ManualClock) -> Shelf:
    found = Shelf(tmp_path, BYTES_MAX, clock)
    found.open()
    return found


def bring(
    shelf: Shelf, owner: Owner, key: str, size: int, clock: ManualClock, sent: int | None = None
) -> None:
    clock.advance(1.0)
    with shelf.place(owner, key, size) as path:
        path.write_bytes(b"x" * (size if sent is None else sent))


def on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_it_is_its_owners_alone(shelf: Shelf, clock: ManualClock) -> None:
    bring(shelf, IRIS, "k", 10, clock)
    assert shelf.find(IRIS, "k")
    assert shelf.find(OTHER, "k") is None
    assert shelf.find(IRIS, "other") is None


def test_the_least_used_of_who_has_most_goes_first(shelf: Shelf, clock: ManualClock) -> None:
    bring(shelf, OTHER, "only", 30, clock)
    bring(shelf, IRIS, "old", 30, clock)
    bring(shelf, IRIS, "new", 30, clock)
    clock.advance(1.0)
    assert shelf.find(IRIS, "old"), "used again"
    bring(shelf, IRIS, "more", 30, clock)
    assert not shelf.find(IRIS, "new")
    assert all(shelf.find(owner, key) for owner, key in ((OTHER, "only"), (IRIS, "old"), (IRIS, "more")))


def test_who_has_most_is_who_has_most_bytes(shelf: Shelf, clock: ManualClock) -> None:
    for key in ("a", "b"):
        bring(shelf, IRIS, key, 10, clock)
    bring(shelf, OTHER, "large", 60, clock)
    bring(shelf, IRIS, "more", 30, clock)
    assert shelf.find(OTHER, "large") is None
    assert all(shelf.find(IRIS, key) for key in ("a", "b", "more"))


def test_half_a_model_is_none(shelf: Shelf, clock: ManualClock, tmp_path: Path) -> None:
    bring(shelf, IRIS, "k", 10, clock, sent=4)
    assert shelf.find(IRIS, "k") is None
    killed = shelf.place(IRIS, "k", 10)
    killed.__enter__().write_bytes(b"half")
    killed.__exit__(RuntimeError, RuntimeError(), None)
    assert on_disk(tmp_path) == 0
    assert shelf.bytes == 0


def test_what_an_earlier_one_had_is_found_and_what_it_was_killed_over_is_not(
    shelf: Shelf, clock: ManualClock, tmp_path: Path
) -> None:
    bring(shelf, IRIS, "k", 10, clock)
    bring(shelf, IRIS, "later", 10, clock)
    (tmp_path / ".incoming-left").write_bytes(b"half")
    again = Shelf(tmp_path, BYTES_MAX, clock)
    again.open()
    assert again.find(IRIS, "k")
    assert not (tmp_path / ".incoming-left").exists()
    smaller = Shelf(tmp_path, 10, clock)
    smaller.open()
    assert on_disk(tmp_path) == 10


def test_one_that_lost_bytes_on_the_disk_is_not_there(shelf: Shelf, clock: ManualClock) -> None:
    bring(shelf, IRIS, "k", 10, clock)
    entry = shelf.find(IRIS, "k")
    assert entry
    entry.path.write_bytes(b"short")
    assert shelf.find(IRIS, "k") is None
    assert not entry.path.exists()


def test_only_the_one_that_was_meant_is_dropped(shelf: Shelf, clock: ManualClock) -> None:
    bring(shelf, IRIS, "k", 10, clock)
    first = shelf.find(IRIS, "k")
    assert first
    bring(shelf, IRIS, "k", 20, clock)
    shelf.drop(IRIS, "k", first.tag)
    second = shelf.find(IRIS, "k")
    assert second
    assert second.size == 20
    shelf.drop(OTHER, "k", second.tag)
    assert shelf.find(IRIS, "k")
    shelf.drop(IRIS, "k", second.tag)
    assert shelf.find(IRIS, "k") is None


def test_what_is_on_its_way_counts(shelf: Shelf) -> None:
    with shelf.place(IRIS, "k", 60), pytest.raises(Exhausted, match="do not fit"):
        shelf.place(IRIS, "other", 60).__enter__()
    with pytest.raises(Exhausted, match="101 bytes of team/trimtab-iris"):
        shelf.place(IRIS, "k", 101).__enter__()


brought = st.tuples(st.sampled_from([IRIS, OTHER]), st.sampled_from("abcdef"), st.integers(1, BYTES_MAX))


@settings(max_examples=30)  # each writes files
@given(st.lists(brought, max_size=20))
def test_it_is_never_more_than_it_may_be(models: list[tuple[Owner, str, int]]) -> None:
    clock = ManualClock()
    with TemporaryDirectory() as name:
        shelf = Shelf(Path(name), BYTES_MAX, clock)
        shelf.open()
        for owner, key, size in models:
            bring(shelf, owner, key, size, clock)
            assert shelf.find(owner, key), "the last one is there in any case"
            assert on_disk(Path(name)) == shelf.bytes <= BYTES_MAX
