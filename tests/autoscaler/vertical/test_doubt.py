"""A knee that was found in a disturbance is looked for once more when it is quiet; and not for ever."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.autoscaler.vertical.models import cpu
from tests.autoscaler.vertical.world import Loop, World
from trimtab.autoscaler.vertical import DEFAULT, RESTING, Learned, LimitState, learned, resume
from trimtab.autoscaler.vertical.explore import Bounds, explore, falls_by_few
from trimtab.autoscaler.vertical.levels import contradicts
from trimtab.autoscaler.vertical.state import Level
from trimtab.autoscaler.vertical.steady import watch, worth_another

WIDE = Bounds(1, 1000, "")
QUIET = Level(4, 4 * 600.0, 12_000.0, 600.0, 20.0)  # 20/s at 4 for ten minutes
AT_REST = LimitState(limit=4, phase=RESTING, levels=(QUIET,), doubted=1, rested_s=0.0)


def level(limit: int, rate: float, span_s: float = 30.0) -> Level:
    """One window of one pod."""
    return Level(limit, limit * span_s, rate * span_s, span_s, 1.0)


@pytest.mark.parametrize("windows", [30, 32, 34])
def test_a_disturbance_that_ends_just_after_the_knee_was_found_in_it(windows: int) -> None:
    """Every request costs twelve times as much for a quarter of an hour, and 16 or 32 look best in it."""
    loop = Loop(World(cpu(8, 1.6), pods=1, limit=1, seed=3)).onboard().run(32)
    loop.world.cost = 12.0
    loop.run(windows)
    loop.world.cost = 1.0
    loop.run(86)
    assert (loop.state.phase, loop.state.doubted) == (RESTING, 0)
    assert loop.limit == pytest.approx(8, abs=1)
    assert any("contradicted each other" in c.why for d in loop.decisions for c in d.candidates)


def test_two_windows_contradict_each_other_if_neither_costs_nor_chance_explain_it() -> None:
    state = LimitState(levels=(level(8, 2.67, 15.0),))
    assert contradicts(state, level(8, 0.05, 20.0), DEFAULT), "40 completions and 1"
    assert not contradicts(state, level(8, 1.0), DEFAULT), "a factor of 2.7 is costs"
    assert not contradicts(LimitState(levels=(level(8, 0.1),)), level(8, 0.4), DEFAULT), "3 and 12 are chance"
    assert not contradicts(state, level(16, 0.05), DEFAULT), "another limit"


def test_a_fall_to_a_fraction_is_doubted_once_if_few_requests_tell_of_it() -> None:
    one, three, thirty = level(1, 0.6, 20.0), level(2, 0.06, 50.0), level(2, 0.6, 50.0)
    assert falls_by_few(LimitState(levels=(one, three)), 1, DEFAULT)
    assert not falls_by_few(LimitState(levels=(level(1, 6.0), thirty)), 1, DEFAULT), "many tell of it"
    assert not falls_by_few(LimitState(levels=(level(1, 0.2), three)), 1, DEFAULT), "locks may do that"
    assert not falls_by_few(LimitState(levels=(one, replace(three, limit=8))), 1, DEFAULT), "and so may those"


def test_a_torn_window_begins_nothing() -> None:
    """The fourth in a row that does not fit starts anew, unless the disturbance began or ended in it."""
    state = LimitState(limit=32, levels=(level(8, 10.0), level(16, 19.0), level(32, 14.0)), odd=3)
    torn = explore(state, level(32, 7.6), True, WIDE, DEFAULT)
    assert (torn.choice.rule, torn.state.odd, torn.state.levels) == ("disturbance", 4, state.levels)
    assert explore(torn.state, level(32, 0.5), False, WIDE, DEFAULT).state.levels == (level(32, 0.5),)
    assert explore(torn.state, level(32, 14.0), False, WIDE, DEFAULT).state.levels[:2] == state.levels[:2]


def test_windows_at_rest_that_fit_nothing_that_was_seen_raise_doubt() -> None:
    state = LimitState(limit=16, phase=RESTING, levels=(level(9, 0.42, 60), level(18, 0.47, 60)))
    for _ in range(DEFAULT.odd_windows_max):
        assert not state.doubted
        state = watch(state, level(16, 5.0), 0.0, DEFAULT).state
    assert state.doubted == 1


def test_it_waits_until_it_has_been_quiet_for_a_quarter_of_an_hour() -> None:
    assert not worth_another(AT_REST, QUIET, 890.0, DEFAULT)
    assert worth_another(AT_REST, QUIET, 900.0, DEFAULT)
    for unquiet in ({"odd": 1}, {"residuals": (0.1, -1.1, 0.2)}, {"doubted": 0}, {"rested_s": None}):
        assert not worth_another(replace(AT_REST, **unquiet), QUIET, 900.0, DEFAULT)
    assert not worth_another(AT_REST, replace(QUIET, windows=4.0), 900.0, DEFAULT)


def test_where_it_is_never_quiet_it_is_looked_at_more_and_more_seldom() -> None:
    waits_s = []
    for doubted in range(1, 8):
        state, now_s = replace(AT_REST, doubted=doubted), 0.0
        while not worth_another(state, QUIET, now_s, DEFAULT):
            now_s += 900.0
        waits_s.append(now_s)
    assert waits_s == [900 * times for times in (1, 4, 16, 64, 256, 256, 256)]


def test_the_doubt_survives_a_restart() -> None:
    state = replace(AT_REST, contradicted=True, doubted=2)
    again = resume(Learned.from_json(learned(state).to_json()))
    assert (again.contradicted, again.doubted) == (True, 2)


def test_what_a_metric_left_of_the_limit_is_kept() -> None:
    loop = Loop(World(cpu(8, 0.1), pods=2, limit=1)).onboard().run(40)
    loop.state = replace(loop.state, doubted=1, cap=8)
    assert loop.run(30).state.doubted == 0
    assert max(loop.limits()[-30:]) == 8
