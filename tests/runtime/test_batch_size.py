"""How many rows are worth predicting together."""

from __future__ import annotations

import pytest

from trimtab.runtime.mlflow.batch_size import BATCH_S_MAX, SURE, BatchSize


def took(fixed_ms: float, each_ms: float, rows: int) -> float:
    return (fixed_ms + each_ms * rows) / 1000


def settled(fixed_ms: float, each_ms: float) -> BatchSize:
    """After many batches as large as allowed."""
    size = BatchSize([(rows, took(fixed_ms, each_ms, rows)) for rows in (1, 16)])
    for _ in range(2000):
        size.note(size.rows_max, took(fixed_ms, each_ms, size.rows_max))
    return size


@pytest.mark.parametrize(
    ("fixed_ms", "each_ms", "least", "most"),
    [
        (1.0, 0.1, 63, 255),
        (1.0, 1.0, 7, 31),
        (4.0, 0.002, 1023, 16383),  # a forest
        (10.0, 0.0, 4095, 16383),
    ],
)
def test_it_grows_while_that_brings_more_rows_per_second(
    fixed_ms: float, each_ms: float, least: int, most: int
) -> None:
    assert least <= settled(fixed_ms, each_ms).rows_max <= most


def test_no_batch_takes_longer_than_its_bound() -> None:
    size = settled(80, 2)
    assert took(0, 2, size.rows_max) <= BATCH_S_MAX


def test_a_size_that_was_slow_once_is_tried_again() -> None:
    size = BatchSize([(1, 0.001), (16, 0.016)])
    for rows in (1, 2, 4, 8, 16, 32) * 40:
        size.note(rows, took(0.1, 1.0, rows))
    small = size.rows_max
    for _ in range(5000):
        size.note(size.rows_max, took(1.0, 0.01, size.rows_max))
    assert small < 8
    assert size.rows_max >= 255


def test_it_pays_until_one_by_one_is_proven_to_be_as_fast() -> None:
    size = BatchSize([(1, 0.010), (16, 0.020)])
    for _ in range(SURE - 1):
        size.note(1, 0.001)
        size.note(8, 0.008)
        assert size.pays
    for _ in range(2 * SURE):
        size.note(1, 0.001)
        size.note(8, 0.008)
        size.note(16, 0.016)
    assert not size.pays


def test_a_stall_in_the_middle_of_some_batches_changes_nothing() -> None:
    size = settled(1.0, 0.1)
    before = size.rows_max
    for count in range(300):
        size.note(8, took(1.0, 0.1, 8) + (0.005 if count % 3 == 0 else 0.0))
        size.note(1, took(1.0, 0.1, 1))
    assert size.pays
    assert size.rows_max == before
