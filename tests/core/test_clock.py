"""Clocks: one that counts, and one that stands still until it is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.core.clock import Clock, ManualClock, SystemClock


def test_the_system_clock_does_not_go_back() -> None:
    clock: Clock = SystemClock()
    readings = [clock.now_s() for _ in range(100)]
    assert readings == sorted(readings)
    assert clock.wall_s() > 1_700_000_000


@given(st.lists(st.floats(0, 1e6), max_size=10))
def test_a_manual_clock_moves_both_hands_and_only_when_told(steps: list[float]) -> None:
    clock = ManualClock(now_s=5.0, wall_s=100.0)
    for step in steps:
        clock.advance(step)
    assert clock.now_s() == clock.now_s() == pytest.approx(5.0 + sum(steps))
    assert clock.wall_s() == pytest.approx(100.0 + sum(steps))


def test_a_clock_does_not_go_back() -> None:
    clock = ManualClock()
    before = clock.now_s()
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-0.1)
    assert clock.now_s() == before
