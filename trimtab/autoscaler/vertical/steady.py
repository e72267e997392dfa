"""At rest: follow slow drift, set aside what does not fit, and notice when the profile really changed."""

from __future__ import annotations

from dataclasses import replace
from math import log, sqrt
from typing import NamedTuple

from trimtab.autoscaler.vertical.curve import error
from trimtab.autoscaler.vertical.levels import fits, fold, level_at
from trimtab.autoscaler.vertical.state import ONBOARDING, Level, LimitState
from trimtab.autoscaler.vertical.tuning import LimitTuning


class Rest(NamedTuple):
    """The state after a window at rest, and by what throughput differs from what it was, if for good."""

    state: LimitState
    factor: float | None  # throughput over what it was; None: no lasting change


def watch(state: LimitState, seen: Level, now_s: float, tuning: LimitTuning) -> Rest:
    """Take in one window in which the limit in force was held."""
    known = level_at(state.levels, seen.limit)
    if known is None:
        # half of a request's time after the change a whole batch of equal ones may end, or none
        if not fits(state, seen, tuning):
            if state.odd + 1 < tuning.odd_windows_max:
                return Rest(replace(state, odd=state.odd + 1), None)
            state = replace(state, doubted=max(1, state.doubted))  # the others are of another time
        return Rest(replace(state, levels=fold(state.levels, seen, tuning), odd=0, residuals=()), None)
    off = log(seen.rate / known.rate)
    chance = error(seen, state, tuning)
    if abs(off) <= max(tuning.odd_window, tuning.odd_errors * chance):
        state = replace(state, levels=fold(state.levels, seen, tuning), odd=0)
    elif known.windows < tuning.known_windows:
        return _unsure(state, seen, known, tuning)
    if known.windows < tuning.known_windows:
        return Rest(state, None)
    last = tuning.faster_windows[1]
    doubt = sqrt(chance**2 + error(known, state, tuning) ** 2)
    band = max(tuning.changed, tuning.changed_errors * max(doubt, state.spread))
    residuals = (*state.residuals, off / band)[-last:]
    spread = state.spread + (min(abs(off), 1.0) - state.spread) / tuning.memory_windows
    state = replace(state, residuals=residuals, spread=spread)
    rested = state.rested_s is None or now_s - state.rested_s >= tuning.rest_s
    if not rested or not _changed(residuals, tuning):
        return Rest(state, None)
    return Rest(anew(state, seen.limit, slower=off < 0), seen.rate / known.rate)


def _unsure(state: LimitState, seen: Level, known: Level, tuning: LimitTuning) -> Rest:
    """Either this window or the few before it do not fit; after some more of them it is these.

    Then the exploration itself was disturbed, and what it found is worth nothing.
    """
    if state.odd + 1 < tuning.odd_windows_max:
        return Rest(replace(state, odd=state.odd + 1), None)
    factor = seen.rate / known.rate
    return Rest(anew(state, seen.limit, slower=factor < 1.0), factor)


def _changed(residuals: tuple[float, ...], tuning: LimitTuning) -> bool:
    enough, of = tuning.slower_windows
    if sum(1 for x in residuals[-of:] if x < -1.0) >= enough and residuals[-1] < 0:
        return True
    enough, of = tuning.faster_windows
    return sum(1 for x in residuals[-of:] if x > 1.0) >= enough and residuals[-1] > 0


def anew(state: LimitState, limit: int, slower: bool) -> LimitState:
    """Explore again, from the limit in force, with nothing but what holds now."""
    return replace(
        state,
        limit=limit,
        phase=ONBOARDING,
        levels=(),
        cap=0,
        unloaded_s=0.0,
        unloaded_in_flight=0.0,
        explored=0,
        down_first=slower,
        suspect=0,
        odd=0,
        waited=0,
        contradicted=False,
        residuals=(),
    )


def worth_another(state: LimitState, known: Level, now_s: float, tuning: LimitTuning) -> bool:
    """Whether an exploration whose windows contradicted each other is to be repeated, in quiet times.

    A disturbance of which it met the end left points that are true of no limit, and at rest no window
    ever comes by that would say so: where it has ended, nothing seems to change any more.
    """
    if not state.doubted or state.rested_s is None or known.windows < tuning.memory_windows - 1:
        return False
    quiet = state.odd == 0 and all(abs(residual) <= 1.0 for residual in state.residuals)
    looks = min(state.doubted, tuning.doubted_max)
    return quiet and now_s - state.rested_s >= tuning.rest_s * tuning.doubted_growth ** (looks - 1)
