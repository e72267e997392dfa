"""The garbage collector: the young alone, a little at a time; the rest out of sight, but not for ever."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from tests.kube.words import until
from trimtab.host import collector


class Knot:
    """Refers to itself: only a collection ends it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


@pytest.fixture
def collected() -> Iterator[list[int]]:
    """The generation of each collection."""
    found: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            found.append(info["generation"])

    gc.callbacks.append(note)
    yield found
    gc.callbacks.remove(note)


def test_what_stays_is_looked_at_once(collected: list[int]) -> None:
    collector.settle()
    collected.clear()
    kept = [[number] for number in range(50 * collector.YOUNG_MAX)]
    assert set(collected) == {0}
    assert 40 <= len(collected) <= 60
    assert len(kept) == 50 * collector.YOUNG_MAX


def test_garbage_in_cycles_goes_while_it_is_young() -> None:
    collector.settle()
    gone = [weakref.ref(Knot()) for _ in range(3 * collector.YOUNG_MAX)]
    assert sum(each() is not None for each in gone) <= 2 * collector.YOUNG_MAX


async def test_what_lives_on_goes_out_of_sight_and_is_looked_at_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(collector, "AWAY_EACH_S", 0.05)
    monkeypatch.setattr(collector, "WHOLE_EACH_S", 0.5)
    async with collector.settled():
        before, knot = gc.get_freeze_count(), Knot()
        gone = weakref.ref(knot)
        await until(lambda: gc.get_freeze_count() > before)
        del knot
        gc.collect()
        assert gone() is not None, "it is out of sight"
        await until(lambda: gone() is None)
