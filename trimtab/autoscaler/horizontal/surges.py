"""Surges: by how much the load has risen sooner than a pod can start, and what to keep for it.

No rule that waits for a rise can serve it sooner than pods start. What can be known is how this load
behaves: each rise over what was prepared one start time ago (less what a request takes: who waits for so
long is in time) is remembered, and spare slots are kept for the largest one of late, or for the second
largest of a longer time: what came twice comes again. Loads without surges pay nothing. Sizes are in
√load, between a crowd that is so many requests whatever the load and one that is so many times the load.
Those that come by the clock are expected at their time, and not in between (`rhythm`).
A spike that is gone at once may be followed by a higher one, on top of what is held for it. A surge that
stayed is a level: the next one like it reaches that again, or little more, and what is held for it is enough.
One that goes on and on, as on a ramp, has shown how large its rises become: less is kept beyond them.
"""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

from trimtab.autoscaler.horizontal.rhythm import Rhythm, find
from trimtab.autoscaler.horizontal.tuning import Tuning

SURGES_MAX = 24  # kept; two count
STEEP_S = (
    15.0  # a steep one comes within so long, three decisions: on a slope pods that start soon are in time
)
STEEP = 0.5  # share of the rise that comes within that
STEEP_FROM = 0.6  # and from less than this share of what it reaches: chance alone rises by less
PREPARED_MAX = 64  # decisions within the longest start time that is looked at, urgent ones included


class Surge(NamedTuple):
    """One rise, or several within a start time of each other."""

    at_s: float  # observed seconds, of the last rise
    size: float  # largest rise, in √load
    begun: float  # least load that one began from, as a share of what it reached
    rise: float  # the largest rise itself, in slots
    reached: float  # most slots that it asked for, and the load that rose on from it
    first_s: float  # observed seconds, of its first rise
    jump: bool = False  # to a multiple of the load: rather a new level, unless it comes again
    stayed: bool = False  # at what it reached, rather than gone at once
    is_steep: bool = False  # came at once and from far below: on a slope there is no time at which it begins


class Prepared(NamedTuple):
    """What a decision saw: slots that were held, headroom included, and those that the load asked for."""

    at_s: float
    held: float
    asked: float
    brief: float = 0.0  # slots that the brief down window alone would have held


class Surges(NamedTuple):
    """What is remembered of one revision's surges."""

    seen: tuple[Surge, ...] = ()
    prepared: tuple[Prepared, ...] = ()  # by each decision, back to `surge_apart_s` before the lead
    stays_s: float = 0.0  # for how long the load was near what the last surge reached
    rhythm: Rhythm | None = None  # of those that come by the clock; its next one may be past

    def due(self, at_s: float) -> Rhythm | None:
        """The rhythm whose next surge is due, if one is."""
        return self.rhythm if self.rhythm is not None and self.rhythm.is_due(at_s) else None

    def brief_at(self, at_s: float) -> float | None:
        """Slots that the brief down window alone would have held then; None if that is not known any more."""
        before = _before(self.prepared, at_s)
        return before.brief if before else None

    def moved(self, by_s: float) -> Surges:
        """The same on another clock of observed seconds; what was prepared is the other's."""
        seen = [each._replace(at_s=each.at_s + by_s, first_s=each.first_s + by_s) for each in self.seen]
        rhythm = self.rhythm.moved(by_s) if self.rhythm else None
        return Surges(tuple(seen), stays_s=self.stays_s, rhythm=rhythm)


def learn(
    surges: Surges,
    asked: float,
    held: float,
    at_s: float,
    lead_s: float,
    tuning: Tuning,
    brief: float = 0.0,
) -> Surges:
    """After a decision at `at_s` (observed seconds) in which the load asked for slots, of `held` ones.

    `lead_s`: for how long pods that are started now will come too late. `brief`: see `Prepared`.
    """
    lead_s = min(lead_s, tuning.surge_lead_max_s)
    seen, stays_s = _stayed(surges, asked, at_s, tuning)
    prepared = _since(surges.prepared, at_s - lead_s - tuning.surge_apart_s)
    prepared = (*prepared, Prepared(at_s, held, asked, brief))
    before = _before(prepared, at_s - lead_s)
    if at_s > tuning.slow_window_s and before is not None:  # what is usual is known
        rise = asked - before.held
        if rise > tuning.surge_least and rise > tuning.surge_noise * (root := sqrt(max(1.0, before.held))):
            jump = asked >= tuning.surge_ratio_max * prepared[0].held
            begun = min([each.asked for each in prepared]) / asked
            new = Surge(at_s, rise / root, begun, rise, asked, at_s, jump, is_steep=_is_steep(prepared))
            seen, stays_s = _with(seen, new, lead_s, tuning), 0.0
    return Surges(seen, prepared, stays_s, _rhythm(surges, seen, at_s, lead_s, tuning))


def _is_steep(prepared: tuple[Prepared, ...]) -> bool:
    """Whether what rose in this time came at once, from far below."""
    *_, now = prepared
    least = min([each.asked for each in prepared])
    lately = min([each.asked for each in prepared if each.at_s >= now.at_s - STEEP_S])
    return least <= STEEP_FROM * now.asked and now.asked - lately >= STEEP * (now.asked - least)


def _rhythm(
    surges: Surges, seen: tuple[Surge, ...], at_s: float, lead_s: float, tuning: Tuning
) -> Rhythm | None:
    """The rhythm of the surges. One that is due stays so until its time is over: it has just begun."""
    known = surges.rhythm
    is_over = known is not None and at_s > known.until_s
    if is_over or (seen is not surges.seen and not surges.due(at_s)):
        return find(seen, at_s, tuning.rhythm_lead * lead_s, tuning)
    return known


def _stayed(surges: Surges, asked: float, at_s: float, tuning: Tuning) -> tuple[tuple[Surge, ...], float]:
    """The surges, the last of which stayed once its load was near for long enough; how long it was.

    While the load rises further, as on a ramp, it has not arrived yet.
    """
    if not surges.seen or surges.seen[-1].stayed or not surges.prepared:
        return surges.seen, surges.stays_s
    *others, last = surges.seen
    if asked > last.reached + tuning.surge_noise * sqrt(last.reached):
        return (*others, last._replace(reached=asked)), 0.0
    if asked < tuning.surge_stays * last.reached:
        return surges.seen, surges.stays_s
    stays_s = surges.stays_s + at_s - surges.prepared[-1].at_s
    if stays_s < tuning.surge_apart_s:
        return surges.seen, stays_s
    return (*others, last._replace(stayed=True)), stays_s


def _before(prepared: tuple[Prepared, ...], at_s: float) -> Prepared | None:
    for each in reversed(prepared):
        if each.at_s <= at_s:
            return each
    return None


def _since(prepared: tuple[Prepared, ...], at_s: float) -> tuple[Prepared, ...]:
    """What was prepared at that time and since, but for what would be too much to keep."""
    first = max(0, len(prepared) - PREPARED_MAX)
    while first + 1 < len(prepared) and prepared[first + 1].at_s <= at_s:
        first += 1
    return prepared[first:]


def _with(seen: tuple[Surge, ...], new: Surge, lead_s: float, tuning: Tuning) -> tuple[Surge, ...]:
    """Together with those of the window; a rise that goes on is one surge."""
    last = seen[-1] if seen else None
    if last is not None and new.at_s - last.at_s <= lead_s + tuning.surge_apart_s:
        both = Surge(
            new.at_s,
            max(last.size, new.size),
            min(last.begun, new.begun),
            max(last.rise, new.rise),
            max(last.reached, new.reached),
            last.first_s,
            last.jump or new.jump,
            is_steep=last.is_steep,
        )
        return (*seen[:-1], both)
    kept = [surge for surge in seen if surge.at_s > new.at_s - tuning.rhythm_window_s]
    return (*kept[1 - SURGES_MAX :], new)


def spare(surges: Surges, recent: float, held: float, at_s: float, tuning: Tuning) -> float:
    """Slots to keep beside the `held` ones for the next surge, with a load that asked for `recent` ones.

    A surge that began near what it reached, as on a ramp, is not due while the load is far below.
    """
    if not surges.seen:
        return 0.0
    expected = surges.due(at_s)
    share = recent / max(1.0, held)
    due = []
    latest = 0.0
    for surge in surges.seen:
        passed_s = at_s - surge.at_s
        if passed_s >= tuning.surge_window_s or share < tuning.surge_begin * surge.begun:
            continue
        if surges.rhythm is not None and surges.rhythm.explains(surge.first_s):
            continue
        slots = _slots(surge, held, tuning)
        due.append(slots)
        if passed_s < tuning.surge_recent_s and not surge.jump:
            latest = max(latest, slots)
    again = sorted(due)[-2] if len(due) > 1 else 0.0
    slots = max(latest, again)
    return max(slots, expected.reached - held) if expected else slots


def _slots(surge: Surge, held: float, tuning: Tuning) -> float:
    """Slots beside the `held` ones for another surge like this one."""
    slots = _factor(surge, tuning) * surge.size * sqrt(max(1.0, held))
    if surge.stayed:
        slots = min(slots, surge.reached + tuning.surge_margin * surge.rise - held)
    return max(0.0, min(slots, tuning.surge_spare_max * held))


def _factor(surge: Surge, tuning: Tuning) -> float:
    """How many times a surge's largest rise is kept.

    By Pareto's law with exponent 2 the next rise exceeds f times the largest of n in one case of (n + 1) f².
    Of one alone `surge_factor` is kept; of a slope, which rises again every `surge_apart_s`, what makes the
    same odds: surge_factor × √(2 / (n + 1)). The rises of a steep one are one event.
    """
    if surge.is_steep:
        return tuning.surge_factor
    rises = 1.0 + (surge.at_s - surge.first_s) / tuning.surge_apart_s
    return max(1.0, tuning.surge_factor * sqrt(2.0 / (rises + 1.0)))
