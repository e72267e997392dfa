"""Rhythm: surges that come by the clock, as batches and polls do.

Three surges, each as long after the last one as that was after the one before it, are taken for a rhythm.
Then the next one's time is known: pods are started before it and for it, and none is kept spare for it in
between. One that does not come ends the rhythm, and with it the trust. Two are a guess: pods are there when a
third would be due, which costs half a minute of them, and what is kept spare otherwise stays too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from trimtab.autoscaler.horizontal.tuning import Tuning

LATEST = 2  # surges of which one is the last of a rhythm: another may have come in between by chance


class Beat(Protocol):
    """What is looked at of a surge."""

    @property
    def first_s(self) -> float:
        """When it began (observed seconds)."""

    @property
    def reached(self) -> float:
        """To how many slots it rose."""

    @property
    def is_steep(self) -> bool:
        """Whether it came at once: on a slope there is no time at which a surge begins."""


class Rhythm(NamedTuple):
    """The next surge of a rhythm. Times in observed seconds."""

    since_s: float  # from when to when pods are to be there for it, or starting
    until_s: float
    period_s: float
    reached: float  # slots, the most of those before it
    beats_s: tuple[float, ...] = ()  # when those began; empty for a guess

    def moved(self, by_s: float) -> Rhythm:
        """The same on another clock of observed seconds."""
        beats_s = tuple([at_s + by_s for at_s in self.beats_s])
        return self._replace(since_s=self.since_s + by_s, until_s=self.until_s + by_s, beats_s=beats_s)

    def is_due(self, at_s: float) -> bool:
        """Whether it may come now, or before pods are ready that are asked for now."""
        return self.since_s <= at_s <= self.until_s

    def explains(self, first_s: float) -> bool:
        """Whether a surge that began then is of this rhythm, or the one that it announced."""
        return first_s in self.beats_s or self.is_due(first_s)


def find(surges: Sequence[Beat], at_s: float, lead_s: float, tuning: Tuning) -> Rhythm | None:
    """The rhythm of these surges, oldest first, or a guess at one; None if the next is not still to come.

    `lead_s`: how long before that pods must be asked for. Of several periods that fit, the shortest.
    """
    steep = [surge for surge in surges if surge.is_steep]
    guess: Rhythm | None = None
    for last in reversed(steep[-LATEST:]):
        over: set[float] = set()  # of what ended: twice its period would fit its beats too, and three times
        for before in reversed(steep):
            period_s = last.first_s - before.first_s
            unlike = before.first_s in over or not _alike(before, last, tuning)
            if period_s < tuning.rhythm_least_s or unlike:
                continue
            beats = _beats(steep, last, period_s, tuning)
            began_s = tuple([beat.first_s for beat in beats]) if len(beats) >= tuning.rhythm_beats else ()
            if last.first_s + period_s + tuning.rhythm_slack_s < at_s:
                over.update(began_s)
            elif began_s:
                return _next(beats, period_s, lead_s, tuning)._replace(beats_s=began_s)
            else:
                guess = guess or _next(beats, period_s, lead_s, tuning)
    return guess


def _next(beats: Sequence[Beat], period_s: float, lead_s: float, tuning: Tuning) -> Rhythm:
    """What is expected after these surges, the last one first."""
    next_s = beats[0].first_s + period_s
    since_s, until_s = next_s - tuning.rhythm_slack_s - lead_s, next_s + tuning.rhythm_slack_s
    return Rhythm(since_s, until_s, period_s, max([beat.reached for beat in beats]))


def _beats(steep: Sequence[Beat], last: Beat, period_s: float, tuning: Tuning) -> list[Beat]:
    """Back from the last one, those like it of which each came so long before the next."""
    beats = [last]
    for surge in reversed(steep):
        apart_s = beats[-1].first_s - surge.first_s
        if abs(apart_s - period_s) <= tuning.rhythm_slack_s and _alike(surge, last, tuning):
            beats.append(surge)
    return beats


def _alike(one: Beat, other: Beat, tuning: Tuning) -> bool:
    return max(one.reached, other.reached) <= tuning.rhythm_height * min(one.reached, other.reached)
