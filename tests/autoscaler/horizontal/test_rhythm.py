"""Surges by the clock: when the next one is expected, and when nothing is."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.autoscaler.horizontal.test_surges import START_S, lived
from trimtab.autoscaler.horizontal.rhythm import Rhythm, find
from trimtab.autoscaler.horizontal.surges import SURGES_MAX, Surges, learn, spare
from trimtab.autoscaler.horizontal.tuning import DEFAULT

SLACK_S = DEFAULT.rhythm_slack_s


class At(NamedTuple):
    """A surge as the rhythm sees it."""

    first_s: float
    reached: float = 50.0
    is_steep: bool = True


def batches(period_s: float, until_s: float, *, lasts_s: float = 30.0) -> list[tuple[float, float]]:
    """A load of 10 slots that rises to 50 each period, from the first one on."""
    loads, at_s = [(0.0, 10.0)], period_s
    while at_s < until_s:
        loads += [(at_s, 50.0), (at_s + lasts_s, 10.0)]
        at_s += period_s
    return loads


def test_three_surges_as_far_apart_are_a_rhythm() -> None:
    rhythm = find([At(600.0), At(1_200.0), At(1_800.0)], 1_810.0, 15.0, DEFAULT)
    assert rhythm == Rhythm(
        2_400.0 - SLACK_S - 15.0, 2_400.0 + SLACK_S, 600.0, 50.0, (1_800.0, 1_200.0, 600.0)
    )
    assert rhythm.explains(600.0)
    assert rhythm.explains(2_395.0)


def test_two_are_a_guess_that_explains_neither() -> None:
    guess = find([At(600.0), At(1_200.0, 60.0)], 1_210.0, 15.0, DEFAULT)
    assert guess == Rhythm(1_800.0 - SLACK_S - 15.0, 1_800.0 + SLACK_S, 600.0, 60.0)
    assert not guess.explains(600.0)


def test_slopes_other_heights_and_other_distances_are_no_rhythm() -> None:
    for beats in (
        [At(600.0), At(1_200.0, is_steep=False), At(1_800.0)],
        [At(600.0), At(1_200.0, 120.0), At(1_800.0)],
        [At(600.0), At(1_150.0), At(1_800.0)],
    ):
        guess = find(beats, 1_810.0, 0.0, DEFAULT)
        assert guess is None or not guess.beats_s
    assert find([At(600.0), At(1_200.0, 120.0)], 1_210.0, 0.0, DEFAULT) is None


def test_one_by_chance_in_between_breaks_no_rhythm() -> None:
    among = [At(600.0), At(900.0, 40.0), At(1_200.0), At(1_800.0), At(1_950.0)]
    rhythm = find(among, 2_000.0, 0.0, DEFAULT)
    assert rhythm is not None
    assert (rhythm.period_s, rhythm.until_s) == (600.0, 2_400.0 + SLACK_S)


def test_one_that_did_not_come_ends_it() -> None:
    three = [At(600.0), At(1_200.0), At(1_800.0)]
    in_time = find(three, 2_400.0 + SLACK_S, 0.0, DEFAULT)
    assert in_time is not None
    assert in_time.beats_s
    assert find(three, 2_401.0 + SLACK_S, 0.0, DEFAULT) is None


@pytest.mark.parametrize("count", [5, 10, SURGES_MAX])
def test_multiples_of_its_period_are_not_believed_then(count: int) -> None:
    """They would hold pods for nothing at every further beat, eleven of them after 24 surges."""
    surges = [At(600.0 * number) for number in range(1, count + 1)]
    last_s = surges[-1].first_s
    assert find(surges, last_s, 0.0, DEFAULT) is not None
    for later_s in range(600, 600 * count, 100):
        assert find(surges, last_s + later_s + SLACK_S + 1.0, 0.0, DEFAULT) is None


@given(
    period_s=st.floats(DEFAULT.rhythm_least_s + SLACK_S, 4_000.0),
    begin_s=st.floats(0.0, 1e6),
    jitter_s=st.lists(st.floats(-SLACK_S / 4, SLACK_S / 4), min_size=3, max_size=SURGES_MAX),
)
def test_jitter_of_a_decision_hides_no_rhythm(period_s: float, begin_s: float, jitter_s: list[float]) -> None:
    surges = [At(begin_s + number * period_s + off_s) for number, off_s in enumerate(jitter_s)]
    rhythm = find(surges, surges[-1].first_s, 0.0, DEFAULT)
    assert rhythm is not None
    truly_s = begin_s + len(surges) * period_s
    assert rhythm.since_s <= truly_s <= rhythm.until_s


def test_pods_are_kept_for_the_next_batch_when_it_is_due_and_none_in_between() -> None:
    surges = lived(batches(900.0, 3_000.0), 3_000.0)
    assert surges.rhythm is not None
    between = spare(surges, 10.0, 10.0, 3_200.0, DEFAULT)
    due = spare(surges, 10.0, 10.0, 3_600.0 - START_S, DEFAULT)
    assert between == 0.0
    assert due == pytest.approx(40.0), "up to the 50 that those before have reached"


def test_one_that_begins_is_held_for_until_its_time_is_over() -> None:
    surges = lived(batches(900.0, 4_000.0), 3_605.0)
    assert surges.due(3_605.0), "it has begun a decision ago"
    assert spare(surges, 50.0, 50.0, 3_605.0, DEFAULT) == 0.0, (
        "nor is it a surprise that announces a higher one"
    )
    later = lived(batches(900.0, 4_000.0), 3_700.0)
    assert later.rhythm is not None
    assert later.rhythm.until_s == pytest.approx(4_500.0 + SLACK_S, abs=SLACK_S)


def test_a_guess_keeps_pods_for_the_third_and_leaves_what_is_spare_otherwise() -> None:
    surges = lived(batches(900.0, 2_000.0), 2_000.0)
    assert surges.rhythm is not None
    assert spare(surges, 10.0, 10.0, 2_300.0, DEFAULT) > 0.0, "twice within half an hour"
    lone = lived(batches(2_000.0, 5_000.0), 5_000.0)
    assert spare(lone, 10.0, 10.0, 5_900.0, DEFAULT) == 0.0
    assert spare(lone, 10.0, 10.0, 6_000.0 - START_S, DEFAULT) == pytest.approx(40.0)


def test_a_ramp_that_repeats_is_no_rhythm_however_long_a_start_takes() -> None:
    """Where pods take a minute, a ramp of ten rises by much within it; but not at once."""
    surges = Surges()
    for at_s in range(0, 3_000, 5):
        asked = 10.0 + 90.0 * (at_s % 600) / 600.0
        since_s = max(0, at_s - 300)
        held = max(10.0 + 90.0 * (then_s % 600) / 600.0 for then_s in range(since_s, at_s + 5, 5))
        surges = learn(surges, asked, held, float(at_s), 60.0, DEFAULT)
        assert surges.rhythm is None
    assert len(surges.seen) >= 3


def test_batches_that_end_are_surges_as_any_other() -> None:
    surges = lived(batches(600.0, 2_000.0), 2_450.0)
    assert surges.rhythm is None or not surges.rhythm.beats_s
    assert spare(surges, 10.0, 10.0, 2_450.0, DEFAULT) > 0.0, "twice within half an hour"


def test_another_clock_moves_it() -> None:
    surges = lived(batches(900.0, 3_000.0), 3_000.0)
    moved = surges.moved(-2_000.0)
    assert spare(moved, 10.0, 10.0, 1_590.0, DEFAULT) == pytest.approx(40.0)
    assert spare(moved, 10.0, 10.0, 1_200.0, DEFAULT) == 0.0


def test_a_steady_load_looks_for_none() -> None:
    surges = Surges()
    for second in range(0, 2_000, 5):
        surges = learn(surges, 20.0, 20.0, float(second), START_S, DEFAULT)
    assert surges.rhythm is None
