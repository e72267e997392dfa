"""The mean number held: gauges and sums together are about as good as the better of the two, and bounded."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.control.signals.held import Held, Span

PERIOD_S = 5.0
ROUNDS = 400


def spans(rate_per_s: float, duration_s: float, rng: np.random.Generator) -> list[tuple[Span, float]]:
    """Poisson arrivals of exponential durations, seen as a pod's page shows them; with the true mean."""
    count = rng.poisson(rate_per_s * (ROUNDS * PERIOD_S + 20 * duration_s))
    came = rng.uniform(-20 * duration_s, ROUNDS * PERIOD_S, count)
    went = came + rng.exponential(duration_s, count)
    return [_span(came, went, number * PERIOD_S) for number in range(ROUNDS)]


def _span(came: np.ndarray, went: np.ndarray, start_s: float) -> tuple[Span, float]:
    end_s = start_s + PERIOD_S
    before, now = (float(((came <= at) & (went > at)).sum()) for at in (start_s, end_s))
    done = (went > start_s) & (went <= end_s)
    time_s, count = float((went - came)[done].sum()), float(done.sum())
    inside = np.clip(np.minimum(went, end_s) - np.maximum(came, start_s), 0, None).sum()
    lag_s = time_s / count if count else inf
    return Span(PERIOD_S, before, now, time_s, lag_s, count + now), float(inside) / PERIOD_S


def error(found: list[float], true: list[float]) -> float:
    return float(np.sqrt(np.mean((np.array(found) - np.array(true)) ** 2)))


@pytest.mark.parametrize(
    ("rate_per_s", "duration_s", "worst"),
    # The error allowed, as a share of the better of gauge alone and sum alone.
    [(100, 0.05, 1.1), (40, 0.2, 1.1), (8, 1.0, 1.1), (50, 2.0, 1.0), (1, 5.0, 1.3), (0.2, 60.0, 1.1)],
)
def test_it_is_as_good_as_the_better_of_both(rate_per_s: float, duration_s: float, worst: float) -> None:
    seen = spans(rate_per_s, duration_s, np.random.default_rng(7))
    held, true = Held(), [mean for _, mean in seen]
    fused = [held.mean(span) for span, _ in seen]
    gauges = [((span.gauge_before or 0) + (span.gauge_now or 0)) / 2 for span, _ in seen]
    sums = [(span.time_s or 0) / PERIOD_S for span, _ in seen]
    assert None not in fused
    known = [mean for mean in fused if mean is not None]
    assert error(known, true) <= worst * min(error(gauges, true), error(sums, true))
    assert np.mean(known) == pytest.approx(np.mean(true), rel=0.06)


def test_streams_count_while_they_run_and_not_again_when_they_end() -> None:
    held = Held()
    running = Span(PERIOD_S, 25, 25, time_s=25.0, lag_s=0.05, present_max=525)
    for _ in range(60):
        assert held.mean(running) == 25.0
    ended = Span(PERIOD_S, 25, 24, time_s=325.0, lag_s=325 / 501, present_max=525)
    assert held.mean(ended) == pytest.approx(24.5, abs=0.5), "the sum alone says 65"


def test_short_requests_are_counted_by_their_sum_whatever_the_gauge_happens_to_see() -> None:
    for gauge in (0, 9):
        assert Held().mean(Span(PERIOD_S, gauge, 0, time_s=25.0, lag_s=0.05, present_max=500)) == (
            pytest.approx(5.0, abs=0.01)
        )


def test_one_of_both_is_enough_and_none_is_unknown() -> None:
    assert Held().mean(Span(PERIOD_S, None, None, None, inf)) is None
    assert Held().mean(Span(PERIOD_S, None, None, 10.0, 1.0)) == 2.0
    assert Held().mean(Span(PERIOD_S, 2, 4, None, inf)) == 3.0
    assert Held().mean(Span(PERIOD_S, None, 4, None, inf)) == 4.0
    assert Held().mean(Span(PERIOD_S, 4, 4, 0.0, inf)) == 4.0, "nothing completed"
    assert Held().mean(Span(PERIOD_S, 0, 0, 0.0, inf)) == 0.0


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.floats(0.001, 100)), max_size=30))
def test_it_is_never_negative_and_never_more_than_were_there(rounds: list[tuple[int, int, float]]) -> None:
    held, before = Held(), 0
    for completed, now, duration_s in rounds:
        lag_s = duration_s if completed else inf
        present = completed + now
        mean = held.mean(Span(PERIOD_S, before, now, completed * duration_s, lag_s, present))
        assert mean is not None
        assert 0 <= mean <= max(present, (before + now) / 2)
        before = now
