"""When the brief down window is enough: loads that come back slowly, or not, have shown it twice."""

from __future__ import annotations

from typing import Any

from tests.autoscaler.horizontal.test_simulated import poisson
from trimtab.autoscaler.horizontal import Tuning
from trimtab.autoscaler.horizontal.trial import Trial

TUNING = Tuning()
PER_POD = 10.0


def ramps(at_s: float) -> float:
    """From a tenth up to 200 requests/s within ten minutes, and down at once."""
    return 20 + 180 * (at_s % 600) / 600


def followed(*seen: tuple[float, float, float, float | None]) -> Trial:
    """After decisions with (asked, kept by the long window, by the brief one, ready by the brief one)."""
    trial = Trial()
    for asked, long, brief, ready in seen:
        trial = trial.followed(asked, long, brief, ready, PER_POD, TUNING)
    return trial


FELL, CAME_SLOWLY = (10.0, 100.0, 12.0, 100.0), (90.0, 100.0, 90.0, 85.0)
CAME_AT_ONCE, SAME = (90.0, 100.0, 90.0, 12.0), (90.0, 100.0, 95.0, 95.0)


def test_a_load_that_came_back_slowly_twice_is_trusted() -> None:
    assert not followed(FELL, CAME_SLOWLY, FELL).is_brief(TUNING)
    assert followed(FELL, CAME_SLOWLY, FELL, CAME_SLOWLY, FELL).is_brief(TUNING)


def test_the_long_window_is_in_force_where_nothing_fell() -> None:
    assert not followed(FELL, CAME_SLOWLY, FELL, CAME_SLOWLY, SAME).is_brief(TUNING)


def test_one_that_the_brief_window_would_not_have_been_ready_for_is_not() -> None:
    assert followed(FELL, CAME_SLOWLY, FELL, CAME_AT_ONCE) == Trial(failed=True)
    slowly = (FELL, CAME_SLOWLY) * 2
    assert not followed(*slowly, FELL, CAME_AT_ONCE, SAME, FELL).is_brief(TUNING)


def test_a_trial_that_failed_is_over_only_when_both_windows_keep_the_same() -> None:
    assert followed(FELL, CAME_AT_ONCE, FELL, CAME_SLOWLY).passed == ()
    assert followed(FELL, CAME_AT_ONCE, SAME, FELL, CAME_SLOWLY).passed == (100.0,)


def test_a_rise_that_neither_window_was_ready_for_speaks_against_none() -> None:
    slowly = (FELL, CAME_SLOWLY) * 2
    assert followed(*slowly, (900.0, 900.0, 900.0, 95.0), FELL).is_brief(TUNING)


def test_low_falls_tell_nothing_of_high_ones() -> None:
    slowly = (FELL, CAME_SLOWLY) * 2
    assert followed(*slowly, (10.0, 200.0, 12.0, 200.0)).is_brief(TUNING)
    assert not followed(*slowly, (10.0, 201.0, 12.0, 201.0)).is_brief(TUNING)


def test_less_than_a_pod_is_no_trial() -> None:
    few = ((1.0, 11.0, 2.0, 11.0), (10.0, 11.0, 10.0, 9.0))
    assert followed(*few * 2) == Trial()


def test_without_a_fall_nothing_is_learned() -> None:
    assert followed(*[SAME] * 1000) == Trial()


def test_ramps_that_begin_anew_from_below_need_no_pods_from_above(revision: Any) -> None:
    run = revision(start_s=5.0).run(poisson(ramps, 3000, 0.1, 4), 3000)
    first, fourth = run.pods_at(600 + 200), run.pods_at(4 * 600 + 200)
    assert first >= 20
    assert fourth <= 14
    down = next(d for d in run.decisions if d.at_s > 2400 + 60 and d.rule == "down")
    assert "the last 60 s" in down.reason
    assert "the last 2 times the load came back slowly" in down.reason


def test_a_load_that_is_back_sooner_than_pods_start_gets_its_long_window_again(revision: Any) -> None:
    """After four ramps a fall of four minutes, and back at once: those who come wait once, not twice."""

    def rate(at_s: float) -> float:
        if at_s < 2400:
            return ramps(at_s)
        return 200.0 if (at_s - 2400) % 300 >= 240 else 10.0

    run = revision(start_s=5.0).run(poisson(rate, 3300, 0.1, 4), 3300)
    assert run.pods_at(2400 + 230) < 5
    assert run.pods_at(2700 + 230) >= 20
    assert run.pods_at(3000 + 230) >= 20
