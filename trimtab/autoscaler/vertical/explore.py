"""Looking for the knee: up by doubling while throughput grows, then to where the curve says, then rest."""

from __future__ import annotations

from dataclasses import replace
from math import ceil, log, sqrt
from typing import NamedTuple

from trimtab.autoscaler.vertical import reasons
from trimtab.autoscaler.vertical.curve import Fit, error, fit, knee, peak_between
from trimtab.autoscaler.vertical.levels import contradicts, fits, fold, level_at
from trimtab.autoscaler.vertical.state import Level, LimitState
from trimtab.autoscaler.vertical.tuning import LimitTuning
from trimtab.core.decision import LimitCandidate


class Bounds(NamedTuple):
    """Where a limit must lie, and why throughput would not gain from more (empty: it may)."""

    floor: int
    ceiling: int
    saturated: str


class Step(NamedTuple):
    """What exploring does next: the state after it, and the limit with its reason."""

    state: LimitState
    choice: LimitCandidate
    done: bool = False


def explore(state: LimitState, seen: Level, torn: bool, bounds: Bounds, tuning: LimitTuning) -> Step:
    """The next step of an exploration in which the limit binds. `seen`: this window at the limit in force.

    `torn`: its periods are so unlike each other that a disturbance began or ended in it.
    """
    if torn or not fits(state, seen, tuning):
        state = _set_aside(state, seen, torn, tuning)
        if state.odd:
            return Step(state, LimitCandidate("disturbance", seen.limit, reasons.disturbed(seen)))
    else:
        state = replace(state, explored=state.explored + 1)
        # confirmed by a lower limit that gives what it gave; one to be tried again stays a suspect until then
        confirmed = seen.limit != state.suspect and level_at(state.levels, state.suspect) is not None
        suspect = 0 if confirmed and level_at(state.levels, seen.limit) is not None else state.suspect
        contradicted = state.contradicted or contradicts(state, seen, tuning)
        levels = fold(state.levels, seen, tuning)
        state = replace(state, levels=levels, odd=0, suspect=suspect, contradicted=contradicted)
    level = level_at(state.levels, seen.limit)
    assert level is not None  # just folded
    if collapse := _collapsed(state, level, tuning):
        return collapse
    return _up(state, level, bounds, tuning) or _settle(state, level, bounds, tuning)


def _set_aside(state: LimitState, seen: Level, torn: bool, tuning: LimitTuning) -> LimitState:
    """A window that does not fit: not folded; with too many in a row, all is measured anew.

    A torn one begins nothing: what it tells is half of what was and half of what is.
    A collapse that was to be confirmed at a lower limit was none, if this limit gives less as well.
    """
    odd = state.odd + 1
    if odd >= tuning.odd_windows_max and not torn:
        return replace(state, levels=(seen,), odd=0, suspect=0, unloaded_s=0.0, explored=1)
    kept = tuple(level for level in state.levels if level.limit != state.suspect or level.limit == seen.limit)
    return replace(state, levels=kept, odd=odd, suspect=0)


def _collapsed(state: LimitState, level: Level, tuning: LimitTuning) -> Step | None:
    """Back to the best lower limit, if throughput fell far under it: either limit or costs did it."""
    lower = [each for each in state.levels if each.limit < level.limit]
    if not lower or state.suspect or level.windows > 1:
        return None
    best = max(lower, key=lambda each: each.rate)
    doubt = sqrt(error(level, state, tuning) ** 2 + error(best, state, tuning) ** 2)
    if log(best.rate / level.rate) <= max(tuning.collapse, 3 * doubt):
        return None
    fall = log(best.rate / level.rate)
    levels, explored = state.levels, state.explored
    if fall > tuning.implausible:  # rather costs than the limit: forgotten with what it took, and tried again
        levels = tuple(each for each in levels if each is not level)
        explored = max(0, explored - 2)
    limit = max(best.limit, ceil(level.limit / tuning.step_down))
    why = reasons.collapsed(best, level)
    after = replace(state, suspect=level.limit, levels=levels, explored=explored)
    return Step(after, LimitCandidate("collapse", limit, why))


def _up(state: LimitState, level: Level, bounds: Bounds, tuning: LimitTuning) -> Step | None:
    """Double while throughput grows, or wait while that is not clear; None at the first sign of stress."""
    limit = level.limit
    if level is not state.levels[-1] or limit >= bounds.ceiling:
        return None
    double = min(bounds.ceiling, int(limit * tuning.step_up))
    lower = [each for each in state.levels if each.limit <= 0.75 * limit]
    if not lower:
        if state.down_first and limit > bounds.floor:
            down = max(bounds.floor, ceil(limit / 2))
            return Step(state, LimitCandidate("probe", down, reasons.slower(level)))
        return Step(state, LimitCandidate("onboarding", double, reasons.untried(level)))
    stressed, unsure = _stressed(state, level, lower, bounds, tuning)
    if unsure and state.explored < tuning.explore_decisions:
        return Step(state, LimitCandidate("evidence", limit, reasons.unsure(lower[-1], level)))
    if stressed or state.explored >= tuning.explore_max:
        return None
    return Step(state, LimitCandidate("onboarding", double, reasons.grows(lower[-1], level)))


def _stressed(
    state: LimitState, level: Level, lower: list[Level], bounds: Bounds, tuning: LimitTuning
) -> tuple[bool, bool]:
    """Whether throughput no longer grows up to a limit, and whether that is not clear yet."""
    before = lower[-1]
    doublings = max(0.3, log(max(1.0, level.in_flight / before.in_flight)) / log(2))
    # the lower limits together: one of them may have been lucky
    smooth = fit(lower, state, tuning)
    gain = log(level.rate / smooth.rate(before.in_flight)) / doublings
    doubt = sqrt(error(level, state, tuning) ** 2 + error(before, state, tuning) ** 2) / doublings
    wanted = log(1.0 + (tuning.gain_saturated if bounds.saturated else tuning.gain_min))
    if not bounds.saturated and all(_in_proportion(each, level, state, tuning) for each in lower):
        return False, False  # too few or too costly requests to tell
    stressed = gain <= wanted
    if state.explored > tuning.explore_decisions:
        stressed = gain <= max(wanted, tuning.gain_late) or _edge_within(lower, gain, doubt, tuning)
    unsure = abs(gain - wanted) < doubt and level.windows < 2 and not bounds.saturated
    return stressed, unsure


def _in_proportion(lower: Level, level: Level, state: LimitState, tuning: LimitTuning) -> bool:
    """Whether throughput may have grown as much as the limit. Of a few requests one doubling tells nothing,
    but eight times as many that bring no more tell, however few they are."""
    doubt = 2 * sqrt(error(level, state, tuning) ** 2 + error(lower, state, tuning) ** 2)
    return log(level.rate / lower.rate) + doubt > log(level.in_flight / lower.in_flight)


def _edge_within(lower: list[Level], gain: float, doubt: float, tuning: LimitTuning) -> bool:
    """Whether growth was in proportion up to the last doubling, and fell short in it beyond doubt."""
    if len(lower) < 2:
        return False
    one, other = lower[-2:]
    before = log(other.rate / one.rate) / log(other.in_flight / one.in_flight)
    return before >= 1.0 - 2 * tuning.edge_late and log(2) - gain > max(tuning.edge_late, doubt)


def _settle(state: LimitState, level: Level, bounds: Bounds, tuning: LimitTuning) -> Step:
    """To the knee of what was seen, unless a limit should be tried first; then to rest."""
    curve = fit(state.levels, state, tuning)
    goal = max(bounds.floor, min(knee(curve, state.levels, state, tuning), bounds.ceiling))
    late = state.explored >= tuning.explore_decisions
    down = _below(state, level, curve, bounds, tuning)
    if down is not None and state.explored < tuning.explore_max:
        return Step(state, LimitCandidate("probe", down, reasons.flat(state.levels, bounds.saturated)))
    probe = None if late else _probe(state, level, curve, goal, bounds, tuning)
    if probe is not None:
        return Step(state, probe)
    why = reasons.found(goal, state.levels, tuning, bounds.saturated)
    if abs(log(goal / level.limit)) <= tuning.near:
        done = late or error(level, state, tuning) <= tuning.sure
        return Step(state, LimitCandidate("knee", level.limit, why), done=done)
    limit = _step(goal, level.limit, tuning)
    known = level_at(state.levels, goal)
    # whether more than the highest limit tried is better is asked there
    open_above = known is state.levels[-1] and goal < bounds.ceiling
    sure = known is not None and known is not state.levels[-1] and error(known, state, tuning) <= tuning.sure
    done = limit == goal and not open_above and (late or sure)
    return Step(state, LimitCandidate("knee", limit, why), done=done)


def _probe(
    state: LimitState, level: Level, curve: Fit, goal: int, bounds: Bounds, tuning: LimitTuning
) -> LimitCandidate | None:
    """A limit that should be tried, or tried again, before the goal is believed; None if there is none."""
    levels, limit = state.levels, level.limit
    if _cut_short(state, level, bounds, tuning):
        return LimitCandidate("probe", _step(levels[-1].limit, limit, tuning), reasons.cut_short(levels[-1]))
    between = peak_between(levels, state, tuning)
    if between is not None and bounds.floor < between < bounds.ceiling:
        return LimitCandidate("probe", _step(between, limit, tuning), reasons.peak(levels, between))
    lower = _maybe_lower(curve, goal, state, tuning)
    if lower is not None and lower >= bounds.floor:
        return LimitCandidate("probe", _step(lower, limit, tuning), reasons.lower(levels, lower))
    again = _once_more(curve, goal, state, bounds, tuning)
    if again is not None:
        return LimitCandidate("probe", _step(again.limit, limit, tuning), reasons.once_more(again))
    return None


def _cut_short(state: LimitState, level: Level, bounds: Bounds, tuning: LimitTuning) -> bool:
    """Whether the highest limit tried is better than all others beyond doubt, and doubling ended there.

    The range ended it, or a window that was worth nothing has been replaced since.
    """
    top = state.levels[-1]
    lower = [each for each in state.levels if each.limit <= 0.75 * top.limit]
    if level is top or top.limit >= bounds.ceiling or not lower:
        return False
    best = max(lower, key=lambda each: each.rate)
    doubt = 2 * sqrt(error(top, state, tuning) ** 2 + error(best, state, tuning) ** 2)
    gain = log(top.rate / best.rate) / (log(top.limit / best.limit) / log(2))
    return gain > doubt + log(1.0 + (tuning.gain_saturated if bounds.saturated else tuning.gain_min))


def _maybe_lower(curve: Fit, goal: int, state: LimitState, tuning: LimitTuning) -> int | None:
    """The lowest limit not tried yet which one of the likely curves has for the knee, if under the goal."""
    for weight, each in curve.curves:
        if weight < tuning.likely:
            continue
        one = knee(Fit(((1.0, each),), curve.most), state.levels, state, tuning)
        if log(goal / one) > tuning.near and all(
            abs(log(one / level.limit)) > tuning.near for level in state.levels
        ):
            return one
    return None


def _once_more(curve: Fit, goal: int, state: LimitState, bounds: Bounds, tuning: LimitTuning) -> Level | None:
    """A limit not far above the goal of which a single window says that it is no better; None if none does.

    Where throughput fell, or chance leaves room for a good deal more, that window may have met a disturbance.
    """
    if state.explored + tuning.once_more_spare > tuning.explore_decisions:
        return None
    below = min(state.levels, key=lambda level: abs(log(level.limit / goal)))
    for above in state.levels:
        far = log(above.limit / goal)
        if (
            above.windows > 1.0
            or above.limit > bounds.ceiling
            or not tuning.near < far <= log(tuning.step_up) + tuning.worth
        ):
            continue
        off = log(above.rate / curve.rate(goal))
        doubt = 2.0 * sqrt(error(above, state, tuning) ** 2 + error(below, state, tuning) ** 2)
        if off < -max(tuning.gain_min, doubt) or off + doubt > tuning.worth:
            return above
    return None


def falls_by_few(state: LimitState, limit: int, tuning: LimitTuning) -> bool:
    """Whether few requests alone say that throughput falls to a fraction right above a limit.

    Of one core 16 complete in 20 s, and of two in flight 3 in a minute: those cost more, as likely as not.
    """
    below = min(state.levels, key=lambda level: abs(log(level.limit / limit)))
    return any(
        log(below.rate / above.rate) > tuning.implausible and error(above, state, tuning) > tuning.few
        for above in state.levels
        if below.limit < above.limit <= tuning.step_up * below.limit
    )


def _step(goal: int, limit: int, tuning: LimitTuning) -> int:
    """Towards the goal, as far as one decision may go."""
    return max(ceil(limit / tuning.step_down), min(goal, int(limit * tuning.step_up)))


def reconsider(state: LimitState, limit: int, bounds: Bounds, tuning: LimitTuning) -> LimitCandidate | None:
    """Another limit, if what was seen since at rest says that exploring was misled by chance; else None.

    Throughput at rest is known from many windows, that of the other limits from one or two each. With
    98/s at 4 in exploring, 65/s at 4 in an hour of rest, and 100/s at 6 and 8, the knee is no longer 4.
    Upwards it takes as much as a changed profile does: periods in which pods in service held their limit
    are rather those with long requests, and a limit above the knee costs latency.
    """
    known = level_at(state.levels, limit)
    if known is None or known.windows < tuning.memory_windows - 1 or len(state.levels) < 2:
        return None
    curve = fit(state.levels, state, tuning)
    goal = max(bounds.floor, min(knee(curve, state.levels, state, tuning), bounds.ceiling))
    if abs(log(goal / limit)) <= tuning.worth:
        return None
    other = min(state.levels, key=lambda each: abs(log(each.limit / goal)))
    doubt = sqrt(error(known, state, tuning) ** 2 + error(other, state, tuning) ** 2)
    if goal > limit and log(curve.rate(goal) / known.rate) <= max(
        tuning.changed, tuning.changed_errors * doubt
    ):
        return None
    return LimitCandidate("another look", _step(goal, limit, tuning), reasons.misled(goal, known))


def _below(state: LimitState, level: Level, curve: Fit, bounds: Bounds, tuning: LimitTuning) -> int | None:
    """A limit under the lowest one tried, if throughput may be no less there than at best; else None."""
    lowest = state.levels[0]
    best = max(state.levels, key=lambda each: each.rate)
    doubt = 1.5 * sqrt(error(lowest, state, tuning) ** 2 + error(best, state, tuning) ** 2)
    if lowest.limit <= bounds.floor or lowest.rate < (tuning.aim - min(doubt, 0.2)) * curve.best():
        return None
    # where requests that do not touch each other would bring as much
    guess = best.rate * state.unloaded_s if state.unloaded_s else 0.0
    wanted = max(lowest.limit / tuning.step_down, min(guess, lowest.limit / 2))
    return max(bounds.floor, ceil(level.limit / tuning.step_down), ceil(wanted))
