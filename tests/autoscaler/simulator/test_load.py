"""Scaling, spreading, copying and the warm-up: counted, not looked at."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.autoscaler.simulator import load as loads
from trimtab.autoscaler.simulator.arrivals import DISPLACED_S, halved
from trimtab.autoscaler.simulator.load import Load, Window, build_load, least_pod_seconds, offered_per_second
from trimtab.autoscaler.simulator.models import MODELS
from trimtab.autoscaler.simulator.traces import Counts, Rates, Requests, Trace
from trimtab.core.errors import InvalidInput

CPU = MODELS["cpu"]  # 4 in flight, 0.2 s: a pod does 20 a second, 1,200 a minute
EVEN = replace(CPU, service_time_cv=0.0)
MINUTES = Counts("minutes", 1000.0, 60.0, np.array([10.0, 40.0, 20.0, 0.0, 30.0]))


def per_minute(load: Load) -> list[int]:
    """Requests in each minute after the warm-up."""
    since_s = load.times_s[load.times_s >= load.warmup_s] - load.warmup_s
    return np.bincount((since_s // 60).astype(int)).tolist()


def requests(times_s: list[float], costs: list[float] | None = None) -> Requests:
    return Requests("rows", np.array(times_s), np.array(costs or [1.0] * len(times_s)))


def test_the_busiest_minute_needs_the_pods_asked_for() -> None:
    load = build_load(MINUTES, EVEN, peak_pods=20)
    assert per_minute(load) == [6000, 24000, 12000, 0, 18000]
    assert load.times_s[0] >= 0
    assert (np.diff(load.times_s) >= 0).all()
    assert load.times_s[-1] < load.end_s == 300


def test_a_fraction_of_a_request_is_one_now_and_then() -> None:
    counts = Counts("thin", 0.0, 60.0, np.full(4000, 1.0))
    load = build_load(counts, EVEN, peak_pods=1.5 / 1200)
    each = np.bincount((load.times_s // 60).astype(int), minlength=4000)
    assert set(each.tolist()) == {1, 2}
    assert each.mean() == pytest.approx(1.5, abs=0.05)


def test_more_speed_is_the_same_in_less_time() -> None:
    load = build_load(MINUTES, EVEN, peak_pods=10, window=Window(speed=5.0))
    assert load.end_s == 60
    assert load.times_s.size == 12000  # all of it lies within the busiest, the only, minute


@pytest.mark.parametrize("period_s", [90.0, 300.0, 3600.0, 86400.0])
def test_longer_periods_are_spread_evenly_over_minutes_and_bursty_within(period_s: float) -> None:
    periods = Counts("periods", 0.0, period_s, np.array([1.0, 3.0]))
    load = build_load(periods, EVEN, peak_pods=1)
    parts = int(np.ceil(period_s / 60))
    each = np.histogram(load.times_s, 2 * parts, (0.0, load.end_s))[0]
    per_part = 1200 * period_s / parts / 60  # all that a pod does
    assert each[parts:].tolist() == [per_part] * parts
    assert each[:parts] == pytest.approx(np.full(parts, per_part / 3))
    assert load.times_s[-1] < load.end_s == 2 * period_s


def test_within_a_minute_of_an_hour_the_cascade_is_that_of_a_minute() -> None:
    hours = Counts("hours", 0.0, 3600.0, np.full(20, 100.0))
    load = build_load(hours, EVEN, peak_pods=5)
    leaves = np.bincount((load.times_s // 1.875).astype(int), minlength=20 * 60 * 32)
    chance = 1 / leaves.mean()
    wanted = np.sqrt((1 + 1 / 41) ** 5 - 1)
    assert np.sqrt(leaves.var() / leaves.mean() ** 2 - chance) == pytest.approx(wanted, rel=0.05)


def test_a_window_within_an_hour_slowed_down_needs_no_more_memory_than_itself() -> None:
    hours = Counts("hours", 0.0, 3600.0, np.full(24, 100.0))
    load = build_load(hours, EVEN, peak_pods=0.1, window=Window(3600.0, 3601.0, speed=1e-5))
    assert load.end_s == pytest.approx(1e5)
    assert load.times_s.size == pytest.approx(0.1 * 20 * 1e5, rel=0.05)


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=20), st.integers(0, 99))
def test_the_cascade_conserves_counts(counts: list[int], seed: int) -> None:
    parts = halved(np.array(counts), 20.0, np.random.default_rng(seed))
    assert parts.reshape(-1, 2).sum(axis=1).tolist() == counts
    assert (parts >= 0).all()


@pytest.mark.parametrize(("burst_a", "effective_a"), [(20.0, 20), (None, 20), (5.0, 5)])
def test_counts_are_as_bursty_within_a_minute_as_asked_for(burst_a: float | None, effective_a: int) -> None:
    """Five halvings with p ~ Beta(A, A): a leaf's relative variance is (1 + 1 / (2 A + 1))^5 - 1."""
    counts = Counts("even", 0.0, 60.0, np.full(1000, 100.0))
    load = build_load(counts, EVEN, peak_pods=5, burst_a=burst_a)
    leaves = np.bincount((load.times_s // 1.875).astype(int), minlength=1000 * 32)
    wanted = np.sqrt((1 + 1 / (2 * effective_a + 1)) ** 5 - 1)
    chance = 1 / leaves.mean()  # of whole requests, beside that of the shares
    assert leaves.mean() == 187.5
    assert np.sqrt(leaves.var() / leaves.mean() ** 2 - chance) == pytest.approx(wanted, rel=0.05)


def test_copies_of_a_request_stay_near_it() -> None:
    load = build_load(requests([0.0, 100.0, 200.0]), EVEN, peak_pods=1)
    assert load.times_s.size == 3 * 1200
    for at_s in (0.0, 100.0, 200.0):
        near = load.times_s[np.abs(load.times_s - at_s) <= DISPLACED_S]
        assert near.size == 1200
    middle = load.times_s[1200:2400] - 100
    assert middle.mean() == pytest.approx(0, abs=0.15)
    assert middle.std() == pytest.approx(DISPLACED_S / np.sqrt(3), rel=0.1)


def test_a_factor_below_one_thins_requests() -> None:
    load = build_load(requests(np.arange(0, 600, 0.01).tolist()), EVEN, peak_pods=1.25)  # of 5 per pod
    assert load.times_s.size == pytest.approx(15_000, rel=0.02)


def test_dear_requests_take_longer_and_their_mean_is_the_models() -> None:
    load = build_load(requests([10.0, 30.0, 50.0], [1.0, 1.0, 7.0]), EVEN, peak_pods=1)
    dear = load.times_s > 35
    assert load.demands_s[dear] == pytest.approx(np.full(dear.sum(), 0.2 * 7 / 3))
    assert load.demands_s.mean() == pytest.approx(0.2, rel=0.01)
    assert load.demands_s.sum() / 40 == pytest.approx(4, rel=0.01)  # in a minute of 40 s


def test_demands_vary_as_the_model_says() -> None:
    demands_s = build_load(Rates("r", np.full(600, 1.0)), CPU, peak_pods=20).demands_s
    assert demands_s.mean() == pytest.approx(0.2, rel=0.01)
    assert demands_s.std() / demands_s.mean() == pytest.approx(CPU.service_time_cv, rel=0.02)
    assert demands_s.min() > 0


def test_made_up_rates_arrive_at_random() -> None:
    load = build_load(Rates("r", np.full(3000, 1.0)), EVEN, peak_pods=2)
    each = np.bincount(load.times_s.astype(int), minlength=3000)
    assert each.mean() == pytest.approx(40, rel=0.02)
    assert each.var() == pytest.approx(40, rel=0.1)


def test_the_window_alone_sets_the_scale_and_what_is_before_it_warms_up() -> None:
    load = build_load(MINUTES, EVEN, peak_pods=1, warmup_s=120, window=Window(1120.0, 1240.0))
    assert (load.warmup_s, load.end_s) == (120, 240)
    assert per_minute(load) == [1200]  # 20 in the trace; then a minute without any
    assert [(load.times_s < 60).sum(), ((load.times_s >= 60) & (load.times_s < 120)).sum()] == [600, 2400]


def test_a_window_may_begin_within_a_period() -> None:
    load = build_load(MINUTES, EVEN, peak_pods=1, window=Window(1090.0, 1120.0))
    assert load.end_s == 30
    assert load.times_s.size == pytest.approx(600, rel=0.3)  # a pod's work in the half of a bursty minute


@pytest.mark.parametrize(
    ("trace", "window"),
    [
        (Rates("r", np.full(600, 3.0)), Window(0.0, 10.0)),
        (Rates("r", np.full(2400, 3.0)), Window(speed=120.0)),
        (MINUTES, Window(1060.0, 1080.0)),
        (MINUTES, Window(1000.0, 1180.0, speed=9.0)),
        (requests(np.arange(0, 300, 0.1).tolist()), Window(0.0, 25.0)),
        (Rates("r", np.concatenate([np.full(180, 1.0), np.full(40, 3.0)])), Window()),
    ],
)
def test_the_busiest_minute_is_as_long_as_it_is(trace: Trace, window: Window) -> None:
    """Windows under a minute, by --from and --to or by --speed; and a short last minute."""
    load = build_load(trace, EVEN, peak_pods=20, window=window)
    edges_s = np.append(np.arange(0.0, load.end_s, 60.0), load.end_s)
    pods = np.histogram(load.times_s, edges_s)[0] / np.diff(edges_s) / 20  # a pod does 20 a second
    assert pods.max() == pytest.approx(20, rel=0.1)


def test_a_moment_at_the_end_is_no_minute() -> None:
    """The last request of a trace ends it, here a moment after a whole minute."""
    load = build_load(requests([0.0, 5.0, 10.0, 30.0, 50.0, 60.0]), EVEN, peak_pods=1)
    assert load.times_s.size == pytest.approx(6 * 1200 / 5, rel=0.2)


@pytest.mark.parametrize(
    "trace", [MINUTES, Rates("r", np.full(300, 3.0)), requests(np.arange(0, 300, 0.1).tolist())]
)
def test_a_warm_up_that_the_trace_lacks_is_steady_at_its_first_minute(trace: Trace) -> None:
    load = build_load(trace, EVEN, peak_pods=20, warmup_s=600)
    first = (load.times_s[load.times_s >= 600] < 660).sum()
    assert load.warmup_s == 600
    assert np.histogram(load.times_s, 10, (0, 600))[0] == pytest.approx(np.full(10, first), rel=0.1)


def test_a_part_of_the_warm_up_comes_from_the_trace() -> None:
    load = build_load(MINUTES, EVEN, peak_pods=40, warmup_s=180, window=Window(1120.0))
    minutes = np.histogram(load.times_s, 4, (0, 240))[0]
    assert minutes[1:].tolist() == [16000, 64000, 32000]
    assert minutes[0] == pytest.approx(16000, rel=0.05)


def test_seeds_decide_and_nothing_else() -> None:
    one, same, other = (build_load(MINUTES, CPU, peak_pods=2, seed=seed) for seed in (1, 1, 2))
    assert (one.times_s == same.times_s).all()
    assert (one.demands_s == same.demands_s).all()
    assert not np.array_equal(one.times_s, other.times_s)


def test_another_variation_leaves_arrivals_as_they_are() -> None:
    one, other = (build_load(MINUTES, model, peak_pods=2) for model in (CPU, EVEN))
    assert (one.times_s == other.times_s).all()


@pytest.mark.parametrize("window", [Window(5000.0), Window(None, 900.0), Window(1200.0, 1100.0)])
def test_a_window_beside_the_trace_is_refused(window: Window) -> None:
    with pytest.raises(InvalidInput, match="nothing of the trace") as caught:
        build_load(MINUTES, CPU, peak_pods=1, window=window)
    assert "from 1000 to 1300" in caught.value.hint


def test_a_window_without_requests_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no request"):
        build_load(MINUTES, CPU, peak_pods=1, window=Window(1180.0, 1240.0))


def test_a_load_that_does_not_fit_into_memory_is_refused() -> None:
    with pytest.raises(InvalidInput, match=f"{loads.REQUESTS_MAX * 2} requests"):
        build_load(Rates("r", np.ones(60)), CPU, peak_pods=loads.REQUESTS_MAX * 2 / 1200)


def test_so_is_a_warm_up_that_does_not_fit() -> None:
    with pytest.raises(InvalidInput, match="requests"):
        build_load(Rates("r", np.ones(60)), CPU, peak_pods=100, warmup_s=loads.REQUESTS_MAX / 1000)


@pytest.mark.parametrize(
    ("trace", "window"),
    [(requests([3.0]), Window()), (MINUTES, Window(speed=1e6)), (MINUTES, Window(1001.0, 1001.5))],
)
def test_a_moment_is_no_load(trace: Trace, window: Window) -> None:
    with pytest.raises(InvalidInput, match="lasts"):
        build_load(trace, CPU, peak_pods=1, window=window)


def test_a_span_that_nobody_waits_for_is_refused() -> None:
    """A wrong time of some years makes no gap that is seen while reading, but a span that takes memory."""
    for trace, window in (
        (requests([0.0, 200 * 86400.0]), Window()),
        (Counts("sparse", 0.0, 60.0, np.eye(1, 150 * 1440)[0]), Window()),
        (MINUTES, Window(speed=1e-6)),
    ):
        with pytest.raises(InvalidInput, match="days, from") as caught:
            build_load(trace, CPU, peak_pods=1, window=window)
        assert "--from and --to" in caught.value.hint
    assert build_load(requests([0.0, 200 * 86400.0]), CPU, peak_pods=1, window=Window(None, 60.0)).end_s == 60


@pytest.mark.parametrize("window", [Window(60.0), Window(None, 60.0)])
def test_seconds_on_a_trace_of_dates_are_refused(window: Window) -> None:
    dated = Counts("dated", 804556800.0, 60.0, np.full(5, 10.0))
    with pytest.raises(InvalidInput, match="`60` is no date") as caught:
        build_load(dated, CPU, peak_pods=1, window=window)
    assert "1995-07-01T00:00:00 to 1995-07-01T00:05:00" in caught.value.hint


def test_windows_in_words() -> None:
    assert Window.parse("1970-01-01T00:01", "90", 2.0) == Window(60.0, 90.0, 2.0)
    assert Window.parse() == Window()
    with pytest.raises(InvalidInput) as caught:
        Window.parse(until="tomorrow")
    assert caught.value.where == "--to"
    with pytest.raises(InvalidInput, match="230 years from 1970") as caught:
        Window.parse(since="1700000000000")
    assert "milliseconds" in caught.value.hint


def test_what_is_offered_is_held_as_long_as_it_takes() -> None:
    load = Load(np.array([0.5, 2.0]), np.array([2.0, 0.25]), 0.0, 4.0)
    assert offered_per_second(load, CPU) == pytest.approx([0.5, 1.0, 0.75, 0.0])


def test_offered_adds_up_to_the_work() -> None:
    load = build_load(Rates("r", np.concatenate([np.ones(60), np.zeros(9)])), CPU, peak_pods=3)
    assert offered_per_second(load, CPU).sum() == pytest.approx(load.demands_s.sum())


def test_the_least_is_counted_by_minutes_after_the_warm_up() -> None:
    times_s = np.repeat([0.0, 60.0, 130.0, 190.0], [9000, 1200, 2401, 1])
    load = Load(times_s, np.full(times_s.size, 0.2), 60.0, 210.0)
    assert least_pod_seconds(load, CPU) == 60 * 1 + 60 * 3 + 30 * 1
    assert least_pod_seconds(load, CPU, pods_min=2) == 60 * 2 + 60 * 3 + 30 * 2
