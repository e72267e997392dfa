"""What a start typically takes."""

from __future__ import annotations

import pytest

from trimtab.autoscaler.starts import STARTS_MAX, typical_start_s


@pytest.mark.parametrize(
    ("took_s", "typical_s"),
    [
        ([], None),
        ([7.0], 7.0),
        ([3.0, 200.0], 200.0),
        ([200.0, 3.0, 4.0], 4.0),
        ([3.0] * 9 + [200.0], 3.0),
        ([200.0] + [3.0] * 9, 3.0),
        ([3.0] * 100 + [20.0] * (STARTS_MAX // 2), 20.0),
        ([20.0] * 100 + [3.0] * (STARTS_MAX // 2 + 1), 3.0),
    ],
)
def test_a_start_that_is_unlike_the_others_does_not_count(
    took_s: list[float], typical_s: float | None
) -> None:
    assert typical_start_s(took_s) == typical_s
