"""What each limit gave, put together over windows; and which windows do not fit what is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import log, sqrt

from trimtab.autoscaler.vertical.curve import error
from trimtab.autoscaler.vertical.evidence import Window
from trimtab.autoscaler.vertical.state import Level, LimitState
from trimtab.autoscaler.vertical.tuning import LimitTuning


def level_at(levels: Sequence[Level], limit: int) -> Level | None:
    """What is known of a limit."""
    return next((level for level in levels if level.limit == limit), None)


def fold(levels: tuple[Level, ...], seen: Level, tuning: LimitTuning) -> tuple[Level, ...]:
    """The levels with one more window, older ones of the same limit fading. Ordered by limit."""
    known = level_at(levels, seen.limit)
    if known is not None:
        keep = min(1.0, (tuning.memory_windows - 1) / known.windows)
        seen = Level(
            seen.limit,
            known.in_flight_s * keep + seen.in_flight_s,
            known.completions * keep + seen.completions,
            known.pod_s * keep + seen.pod_s,
            known.windows * keep + 1.0,
        )
    return tuple(
        sorted([*(level for level in levels if level is not known), seen], key=lambda level: level.limit)
    )


def fits(state: LimitState, seen: Level, tuning: LimitTuning) -> bool:
    """Whether a window agrees with what is known: throughput at this limit, and time that grows with n.

    What does not is another mix of costs, a poisonous minute or a disturbance: no news of the limit.
    """
    mine = error(seen, state, tuning)
    for level in state.levels:
        band = max(tuning.odd_window, tuning.odd_errors * sqrt(mine**2 + error(level, state, tuning) ** 2))
        # a disturbance within the window spreads its periods, and must not excuse itself by that
        counted = tuning.odd_errors * sqrt(1.0 / seen.completions + 1.0 / level.completions)
        band = min(band, max(tuning.odd_most, counted))
        slower = log(seen.time_s / level.time_s)
        if level.limit == seen.limit and abs(log(seen.rate / level.rate)) > band:
            return False
        if level.limit < seen.limit and slower < -band:
            return False
        if level.limit > seen.limit and slower > band:
            return False
    return True


def contradicts(state: LimitState, seen: Level, tuning: LimitTuning) -> bool:
    """Whether a window that fits tells something else than the same limit gave before.

    It is folded in all the same: which of the two was disturbed, it does not say. How completions disperse
    is not asked, since a disturbance disperses them.
    """
    known = level_at(state.levels, seen.limit)
    if known is None:
        return False
    counted = tuning.contradicted_errors * sqrt(1.0 / seen.completions + 1.0 / known.completions)
    return abs(log(seen.rate / known.rate)) > max(tuning.odd_most, counted)


def is_torn(state: LimitState, window: Window, tuning: LimitTuning) -> bool:
    """Whether the periods of a window are so unlike each other that a disturbance began or ended in it.

    Of thousands of completions in a period, a tenth more or less is far beyond chance, and still no such.
    """
    if window.seen is None or window.squares <= tuning.odd_spread * _usual(state) * window.degrees:
        return False
    each = window.seen.completions / window.periods
    return window.squares > tuning.odd_drift**2 * each * window.degrees


def _usual(state: LimitState) -> float:
    """Dispersion of completions so far, and no less than that of independent ones."""
    return max(1.0, state.dispersion / max(1.0, state.dispersion_periods))


def with_noise(state: LimitState, window: Window, tuning: LimitTuning) -> LimitState:
    """The state with the window's dispersion of completions, older ones fading."""
    if not window.degrees:
        return state
    squares = min(window.squares, tuning.odd_noise * _usual(state) * window.degrees)
    keep = min(1.0, tuning.dispersion_weight / max(1.0, state.dispersion_periods))
    return replace(
        state,
        dispersion=state.dispersion * keep + squares,
        dispersion_periods=state.dispersion_periods * keep + window.degrees,
    )


def with_unloaded(state: LimitState, window: Window) -> LimitState:
    """The state with the time of a request at the least concurrency seen so far."""
    if window.time_s is None or window.in_flight is None or window.in_flight < 0.05:
        return state  # of next to no requests the time is chance
    if state.unloaded_s and window.in_flight > state.unloaded_in_flight:
        return state
    return replace(state, unloaded_s=window.time_s, unloaded_in_flight=window.in_flight)
