"""Quantiles and sums from Envoy's histograms."""

from __future__ import annotations

import math
from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.envoy.histogram import BOUNDS_MS, Histogram, bin_end_ms, histogram_of

milliseconds = st.floats(min_value=0.0, max_value=3.5e6)
values = st.lists(milliseconds, min_size=1, max_size=200)


def as_envoy_counts(latencies_ms: list[float]) -> Histogram:
    """What Envoy makes of latencies: whole ms, bins of two digits, each under the first bound it may be."""
    counts = [0] * (len(BOUNDS_MS) + 1)
    total = 0.0
    for latency in latencies_ms:
        whole = math.floor(latency)
        width = 10.0 ** (math.floor(math.log10(whole)) - 1) if whole else 0.0
        begin = math.floor(whole / width + 1e-9) * width if whole else 0.0
        counts[bisect_left(BOUNDS_MS, begin)] += 1
        total += begin + width / 2
    return Histogram(BOUNDS_MS, tuple(counts), total)


def nearest_rank_s(latencies_ms: list[float], q: float) -> float:
    return sorted(latencies_ms)[max(0, math.ceil(q * len(latencies_ms)) - 1)] / 1e3


@pytest.mark.parametrize(
    ("bound", "end"),
    [(0.5, 1), (1, 2), (7, 8), (9, 10), (10, 11), (12, 13), (160, 170), (1500, 1600), (9e3, 9100)],
)
def test_a_bucket_ends_with_the_bin_of_its_bound(bound: float, end: float) -> None:
    assert bin_end_ms(bound) == pytest.approx(end)


def test_bounds_are_beginnings_of_bins_and_rise() -> None:
    assert list(BOUNDS_MS) == sorted(set(BOUNDS_MS))
    for bound in BOUNDS_MS[1:]:
        width = max(1.0, 10.0 ** (math.floor(math.log10(bound)) - 1))
        assert bound / width == pytest.approx(round(bound / width)), bound


def test_one_value_is_found_in_its_bucket() -> None:
    found = as_envoy_counts([1555.0])
    assert found.count == 1
    assert 1.3 <= found.quantile_s(0.5) <= 1.6


def test_requests_below_a_millisecond_still_take_time() -> None:
    assert as_envoy_counts([0.4] * 1000).total_s == pytest.approx(0.45)
    assert 0 < as_envoy_counts([0.4] * 1000).quantile_s(0.5) < 1e-3


def test_above_the_last_bound_the_last_bound_is_said() -> None:
    assert Histogram((10.0, 20.0), (0, 0, 5), 1e6).quantile_s(0.99) == pytest.approx(21e-3)


@given(values, st.floats(min_value=0.01, max_value=1.0))
def test_quantiles_are_within_a_bucket_of_the_truth(latencies_ms: list[float], q: float) -> None:
    truth_s = nearest_rank_s(latencies_ms, q)
    # 2e-3: whole ms below 10; the widest bucket elsewhere is a doubling (20 min to 1 h six times)
    ratio = 7.0 if truth_s > 300 else 2.0
    found_s = as_envoy_counts(latencies_ms).quantile_s(q)
    assert truth_s / ratio - 2e-3 <= found_s <= truth_s * ratio + 2e-3


@given(values)
def test_quantiles_never_fall(latencies_ms: list[float]) -> None:
    found = as_envoy_counts(latencies_ms)
    quantiles = [found.quantile_s(q / 20) for q in range(21)]
    assert quantiles == sorted(quantiles)


@given(values)
def test_the_sum_is_right_within_half_a_bin(latencies_ms: list[float]) -> None:
    truth_s = sum(latencies_ms) / 1e3
    assert as_envoy_counts(latencies_ms).total_s == pytest.approx(
        truth_s, rel=0.051, abs=1e-3 * len(latencies_ms)
    )


@given(values, values)
def test_two_added_are_all_values_together(first: list[float], second: list[float]) -> None:
    both = as_envoy_counts(first).plus(as_envoy_counts(second))
    assert both.counts == as_envoy_counts(first + second).counts


def test_different_bounds_do_not_add() -> None:
    with pytest.raises(ValueError, match="different bounds"):
        Histogram((1.0,), (1, 0), 1.0).plus(Histogram((2.0,), (1, 0), 1.0))


def test_an_empty_histogram_has_no_quantile() -> None:
    with pytest.raises(ValueError, match="no quantile"):
        Histogram((1.0,), (0, 0), 0.0).quantile_s(0.5)


@pytest.mark.parametrize(
    ("bounds", "counts", "total"),
    [
        ([1.0, 1.0], [0, 0, 0], 0.0),
        ([2.0, 1.0], [0, 0, 0], 0.0),
        ([1.0], [0], 0.0),
        ([1.0], [0, 1], math.nan),
    ],
)
def test_what_cannot_be_a_histogram_is_refused(bounds: list[float], counts: list[int], total: float) -> None:
    with pytest.raises(ValueError, match=r"bounds|counts"):
        histogram_of(bounds, counts, total)
