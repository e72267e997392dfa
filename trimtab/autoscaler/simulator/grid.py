"""The periods of a trace of counts, found from the times of its rows, of which some may be off.

rows at 0, 60, 120, 121, 300 s: the commonest step is 60 s. The row at 121 s is the third period's, as
one that was written a little late, and the periods from 180 s and from 240 s had no request.
"""

from __future__ import annotations

from math import gcd
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SPREAD = 1.05
"""Steps that differ by no more are one step: who counts each minute may be some seconds late."""

SLACK = 0.1
"""Of a period: a row that lies no farther from a period's begin is that period's."""

STRAYS_MAX = 0.1
"""Most of the rows that may lie elsewhere: with more of them these are no periods."""

EXACT_DIGITS = 6
"""Of a second: a time of this century as a float is no more exact."""


class Grid(NamedTuple):
    """Periods that follow each other without gaps."""

    start_s: float
    period_s: float

    def periods(self, times_s: Floats) -> Floats:
        """The times in periods from the start."""
        return (times_s - self.start_s) / self.period_s

    def indices(self, times_s: Floats) -> NDArray[np.int64]:
        """In which period each time lies."""
        return (self.periods(times_s) + SLACK).astype(np.int64)

    def strays(self, times_s: Floats) -> NDArray[np.int64]:
        """Indices of the times that lie within a period rather than at its begin."""
        periods = self.periods(times_s)
        return np.flatnonzero(np.abs(periods - np.rint(periods)) > SLACK)

    def suits(self, times_s: Floats) -> bool:
        """Whether few times stray."""
        return self.strays(times_s).size <= STRAYS_MAX * times_s.size


def grid_of(times_s: Floats) -> Grid:
    """The periods of two or more rising times, of which most may be absent.

    The commonest step is the period, those alike being one; where they vary their mean fits better than any
    of them. Where hardly two rows are neighbours, steps of 60 and 61 periods are alike, and more common than
    any step of one: there the period is what steps have in common.
    """
    steps_s = np.diff(times_s)
    alike_s = _commonest(steps_s)
    mean_s = float(steps_s.sum() / max(1.0, np.rint(steps_s / alike_s).sum()))
    grids = [_begun(times_s, period_s) for period_s in (alike_s, mean_s, _in_common(steps_s) or alike_s)]
    best = min(grids[:2], key=lambda grid: grid.strays(times_s).size)
    return best if best.suits(times_s) else min(grids, key=lambda grid: grid.strays(times_s).size)


def _commonest(steps_s: Floats) -> float:
    """The median of the largest group of steps within SPREAD of each other.

    Of two as large it is that of the shortest: absent periods make steps of two and more.
    """
    rising_s = np.sort(steps_s)
    alike = np.searchsorted(rising_s, rising_s * SPREAD, "right") - np.arange(rising_s.size)
    first = int(alike.argmax())
    return _exact(float(rising_s[first + alike[first] // 2]))


def _in_common(steps_s: Floats) -> float:
    """The largest step of which all others are multiples, but for those that occur once; 0 if all do."""
    units, number = np.unique(np.rint(steps_s * 10**EXACT_DIGITS).astype(np.int64), return_counts=True)
    return gcd(*units[number > 1].tolist()) / 10.0**EXACT_DIGITS


def _begun(times_s: Floats, period_s: float) -> Grid:
    """The grid on which the first row lies that is followed by another: a lonely one may be the stray."""
    period_s = _exact(period_s) if period_s < 10.0**-EXACT_DIGITS else period_s
    followed = np.flatnonzero(np.abs(np.diff(times_s) / period_s - 1.0) < SPREAD - 1.0)
    begin_s = float(times_s[followed[0]]) if followed.size else float(times_s[0])
    before = np.ceil((begin_s - times_s[0]) / period_s - SLACK)
    return Grid(begin_s - period_s * float(before), period_s)


def _exact(step_s: float) -> float:
    """Without what a float's error adds; never 0."""
    return max(10.0**-EXACT_DIGITS, round(step_s, EXACT_DIGITS))
