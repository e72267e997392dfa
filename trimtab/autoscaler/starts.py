"""What the start of a pod typically takes, so that one that takes far longer is told from the others."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median_high

STARTS_MAX = 10
"""How many starts are looked at, the newest: five that are slower, in a row, are how starts are now."""


def typical_start_s(took_s: Sequence[float]) -> float | None:
    """The median of the newest starts, of two the longer; `took_s` oldest first. None: none is known.

    Not the slowest: nine starts of 3 s and one of 200 s would make a down window of 1000 s out of 300 s,
    and one that has stalled would be waited for ten minutes.
    """
    return median_high(took_s[-STARTS_MAX:]) if took_s else None
