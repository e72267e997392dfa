"""Signals that come late, twice, out of order, not at all, or wild; from one Envoy and from several."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.autoscaler.horizontal.tuning import DEFAULT
from trimtab.autoscaler.horizontal.windows import (
    Evidence,
    View,
    absorb,
    by_second,
    push_peak,
    share_left,
)
from trimtab.core.signals import RevisionSignal

Make = Callable[..., RevisionSignal]


def seen(*signals: RevisionSignal, now_s: float = 110.0, before: View | None = None) -> View:
    return absorb(before.envoys if before else (), signals, now_s, DEFAULT, service_time_s=0.1)


def asked(view: View, seconds: int = 20) -> list[float]:
    return list(by_second(view, seconds, DEFAULT).asked)


def test_no_signal_is_nothing_known() -> None:
    assert seen().newest_s == -inf


def test_seconds_before_the_first_signal_are_unknown_not_zero(signal: Make) -> None:
    assert asked(seen(signal(108.0, arrivals=7), signal(109.0, arrivals=9))) == [7, 9]


def test_a_hole_repeats_what_was_before_it(signal: Make) -> None:
    view = seen(signal(104.0, arrivals=7), signal(107.0, arrivals=9), signal(108.0, arrivals=1))
    assert asked(view) == [7, 7, 7, 9, 1]


def test_a_period_of_two_seconds_is_a_rate(signal: Make) -> None:
    assert asked(seen(signal(108.0, arrivals=8, period_s=2.0))) == [4]


def test_two_in_one_second_by_jitter_share_it_with_the_hole_beside(signal: Make) -> None:
    view = seen(signal(104.9, arrivals=4), signal(105.45, arrivals=8), signal(107.0, arrivals=5))
    assert sum(asked(view)) == pytest.approx(4 + 8 + 5, abs=4)


def test_order_and_repetition_do_not_matter(signal: Make) -> None:
    signals = [signal(100.0 + i, arrivals=i * 3, completions=i) for i in range(8)]
    straight = seen(*signals)
    assert seen(*reversed(signals), *signals) == straight
    again = seen(*signals, before=straight)
    assert again.envoys == straight.envoys
    assert again.evidence == Evidence()


def test_two_versions_of_one_second_are_settled_the_same_in_either_order(signal: Make) -> None:
    one, other = signal(105.0, arrivals=3), signal(105.0, arrivals=30)
    assert seen(one, other) == seen(other, one)


def test_a_late_signal_takes_its_place(signal: Make) -> None:
    first = seen(signal(104.0, arrivals=1), signal(106.0, arrivals=3))
    assert asked(seen(signal(105.0, arrivals=2), before=first)) == [1, 2, 3]


def test_one_that_is_older_than_the_window_is_dropped(signal: Make) -> None:
    first = seen(signal(100.0, arrivals=1))
    late = seen(signal(70.0, arrivals=50), before=first)
    assert (late.envoys, late.evidence.completions) == (first.envoys, 0)


def test_several_envoys_are_summed_whatever_the_phase_of_their_flushes(signal: Make) -> None:
    one = [signal(100.0 + i, arrivals=10) for i in range(5)]
    two = [signal(100.4 + i, arrivals=5, envoy="e2") for i in range(5)]
    assert asked(seen(*one, *two)) == [15] * 5


def test_a_stale_envoy_keeps_its_share_then_fades_then_is_gone(signal: Make) -> None:
    both = seen(signal(100.0, arrivals=10), signal(100.0, arrivals=6, envoy="e2"), now_s=100.0)
    totals = []
    for at_s in (105.0, 110.0, 115.0, 120.0, 125.0, 131.0):
        both = seen(signal(at_s, arrivals=10), now_s=at_s, before=both)
        totals.append(asked(both)[-1])
    assert totals == pytest.approx([16, 16, 14.5, 13, 11.5, 10])
    assert [history.envoy for history in both.envoys] == ["e1"]


def test_a_share_fades_between_fresh_and_forgotten() -> None:
    assert [share_left(age, DEFAULT) for age in (0.0, 10.0, 20.0, 30.0, 99.0)] == [1, 1, 0.5, 0, 0]


@pytest.mark.parametrize(
    "wild",
    [
        {"arrivals": -1},
        {"arrivals": 10**12},
        {"in_flight": 10**12},
        {"queued": -3},
        {"request_time_s": nan},
        {"request_time_s": inf},
        {"period_s": 0.0},
        {"period_s": -1.0},
        {"period_s": 1e9},
        {"at_s": nan},
        {"at_s": 1e9},
        {"at_s": -inf},
    ],
)
def test_what_cannot_have_been_observed_is_no_signal(signal: Make, wild: dict[str, float]) -> None:
    assert seen(signal(105.0)._replace(**wild)).envoys == ()


def test_rejected_requests_count_up_to_the_accepted_ones(signal: Make) -> None:
    view = seen(signal(104.0, arrivals=10, rejected=4), signal(105.0, arrivals=10, rejected=900))
    assert asked(view) == [14, 20]


def test_quiet_seconds_are_those_whose_requests_met_no_queue(signal: Make) -> None:
    view = seen(
        signal(101.0, completions=1),
        signal(102.0, completions=10, queued=1),
        signal(103.0, completions=100),  # began while one was queued
        signal(104.0, completions=1000),
    )
    assert view.evidence.quiet_completions == 1001


def test_gauges_are_read_by_second_too(signal: Make) -> None:
    view = seen(*[signal(100.0 + i, in_flight=i) for i in range(6)])
    assert by_second(view, 5, DEFAULT).in_flight == (1, 2, 3, 4, 5)


def test_history_is_bounded(signal: Make) -> None:
    view = View((), -inf, -inf, seen().evidence)
    for second in range(1000):
        view = seen(signal(float(second)), now_s=float(second), before=view)
    assert len(view.envoys[0].samples) <= DEFAULT.up_window_s + 3


def test_no_second_counts_for_more_than_is_believed(signal: Make) -> None:
    view = absorb((), (signal(109.0, arrivals=10**6),), 110.0, DEFAULT, asked_max_per_s=50.0)
    assert asked(view) == [50.0]


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 9)), max_size=60))
def test_a_peak_is_the_largest_value_of_its_window(steps: list[tuple[int, int]]) -> None:
    peaks: tuple[tuple[float, float], ...] = ()
    at_s, pushed = 0.0, []
    for gap_s, value in steps:
        at_s += gap_s
        pushed.append((at_s, value))
        peaks = push_peak(peaks, at_s, float(value), 60.0)
        assert peaks[0][1] == max(v for when, v in pushed if when > at_s - 60.0)
        assert list(peaks) == sorted(peaks, key=lambda peak: -peak[1])
