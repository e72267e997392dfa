"""Loads drawn from a seed."""

from __future__ import annotations

import numpy as np
import pytest

from bench.drawn import LENGTH_S, drawn


@pytest.mark.parametrize("seed", range(3))
def test_a_seed_always_makes_the_same_loads(seed: int) -> None:
    first, again = drawn(seed), drawn(seed)
    for name, load in first.items():
        assert load.per_second.shape == (LENGTH_S,)
        assert np.isfinite(load.per_second).all()
        assert load.per_second.min() > 0.0, name
        assert np.array_equal(load.per_second, again[name].per_second)


def test_each_load_of_another_seed_is_another_one() -> None:
    one, other = drawn(1), drawn(2)
    assert all(not np.array_equal(one[name].per_second, other[name].per_second) for name in one)


def test_batches_come_by_the_clock_and_drops_leave_something() -> None:
    loads = drawn(7)
    batches = np.flatnonzero(np.diff(loads["batches"].per_second) > 0.0)
    assert len(set(np.diff(batches))) == 1
    assert loads["drops"].per_second.max() == 1.0
    assert 0.05 <= loads["drops"].per_second.min() <= 0.5
