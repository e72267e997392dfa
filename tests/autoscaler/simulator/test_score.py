"""Late, rejected, dear: each word of the definitions, on figures that one can add up by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from trimtab.autoscaler.simulator.load import Load
from trimtab.autoscaler.simulator.models import MODELS, Model
from trimtab.autoscaler.simulator.policies.base import Setting, Tick
from trimtab.autoscaler.simulator.score import Score, late, overshoot_pods, score
from trimtab.autoscaler.simulator.timeline import Recorder

CPU, GPU = MODELS["cpu"], MODELS["gpu"]
QUICK = replace(CPU, service_time_s=0.02)


def load_of(demands_s: list[float], *, warmup_s: float = 0.0, end_s: float = 10.0) -> Load:
    """One request a second, the first at 0.5 s."""
    return Load(np.arange(len(demands_s)) + 0.5, np.array(demands_s), warmup_s, end_s)


def setting_of(offered: list[float], pods_max: int = 100) -> Setting:
    return Setting(
        knee=4,
        first_limit=4,
        pods_min=1,
        pods_max=pods_max,
        concurrency_min=1,
        concurrency_max=400,
        service_time_s=0.2,
        cold_start_s=10.0,
        phase_s=0.0,
        kind="cpu",
        offered=tuple(offered),
    )


def tick_at(at_s: float) -> Tick:
    return Tick(at_s, 0, 0, 0, 0, 0, 0.0, 0.0, 0.0, 1, ())


def recorded(
    asked: list[int], *, warmup_s: float = 0.0, wanted: list[int] | None = None, most: int = 100
) -> Recorder:
    """A recorder of so many pods in each half second; as many are wanted unless said otherwise."""
    recorder = Recorder(warmup_s, len(asked) / 2)
    pod_seconds = 0.0
    for number, pods in enumerate(asked, 1):
        pod_seconds += pods * 0.5
        recorder.add(tick_at(number / 2), pods, wanted[number - 1] if wanted else pods, most, pod_seconds)
    return recorder


def score_of(latencies_s: list[float], *, warmup_s: float = 0.0, model: Model = CPU) -> Score:
    load = load_of([0.2] * len(latencies_s), warmup_s=warmup_s)
    latencies = np.array(latencies_s, np.float32)
    return score(
        "x", 1, load, model, latencies, recorded([1] * 20, warmup_s=warmup_s), setting_of([1.0] * 10)
    )


@pytest.mark.parametrize(
    ("model", "demand_s", "latency_s", "is_late"),
    [
        # The mean service time of 0.2 s is longer than 100 ms: more than 0.2 s beyond one's own is late.
        (CPU, 0.2, 0.39, False),
        (CPU, 0.2, 0.41, True),
        (CPU, 1.5, 1.69, False),  # a long request is not late for being long
        (CPU, 0.05, 0.26, True),
        # 20 ms on average: 100 ms count.
        (QUICK, 0.02, 0.119, False),
        (QUICK, 0.02, 0.121, True),
        # Alone, a request that takes 1 s in a batch of 8 takes 0.5625 s; and 1 s more is allowed.
        (GPU, 1.0, 1.55, False),
        (GPU, 1.0, 1.57, True),
        (CPU, 0.2, np.inf, True),  # rejected
        (CPU, 0.2, np.nan, True),  # unfinished
    ],
)
def test_late_is_beyond_ones_own_unloaded_time(
    model: Model, demand_s: float, latency_s: float, is_late: bool
) -> None:
    assert late(load_of([demand_s]), model, np.array([latency_s], np.float32)).tolist() == [is_late]


def test_rejected_and_unfinished_are_late_and_the_denominator_is_arrivals() -> None:
    told = score_of([0.2, 0.2, 0.2, 0.2, 0.9, np.inf, np.inf, np.nan])
    assert told.arrivals == 8
    assert told.late_share == pytest.approx(4 / 8)
    assert told.rejected_share == pytest.approx(2 / 8)
    assert told.unfinished == 1
    assert told.p50_s == pytest.approx(0.2)  # of those that finished
    assert told.p99_s == pytest.approx(0.2 + 0.7 * 0.96)


def test_the_warm_up_is_not_scored() -> None:
    told = score_of([9.0, np.inf, np.nan, 0.2, 0.2, 0.9], warmup_s=3.0)
    assert told.arrivals == 3
    assert told.late_share == pytest.approx(1 / 3)
    assert (told.rejected_share, told.unfinished) == (0.0, 0)
    assert told.pod_hours == pytest.approx(7 / 3600)


def test_nothing_finished_has_no_quantiles() -> None:
    told = score_of([np.inf, np.nan])
    assert (told.p50_s, told.p99_s) == (None, None)
    assert told.late_share == 1.0


def test_the_least_pod_hours_carry_each_minute_at_the_knee() -> None:
    """60 s with 5 requests in flight need 2 pods of 4, the next 60 s with 1 need 1: 180 pod-seconds."""
    load = Load(np.arange(1200) / 10, np.repeat([0.5, 0.1], 600), 0.0, 120.0)
    slow = replace(CPU, service_time_s=0.5)
    recorder, finished = recorded([3] * 240), np.zeros(1200, np.float32)
    told = score("x", 1, load, slow, finished, recorder, setting_of([5.0] * 120))
    assert told.least_pod_hours == pytest.approx((120 + 60) / 3600)
    assert told.pod_hours == pytest.approx(360 / 3600)
    assert told.cost == pytest.approx(2.0)


def test_the_capped_share_is_the_time_in_which_all_pods_were_wanted() -> None:
    recorder = recorded([1] * 20, wanted=[1] * 10 + [5] * 4 + [6] + [2] * 5, most=5)
    assert recorder.capped_share == pytest.approx(5 / 20)
    assert recorder.scale_events == 3  # 1 to 5, 5 to 6, 6 to 2
    assert recorder.pods_peak == 1


def test_overshoot_is_beyond_the_busiest_5_s_of_the_last_minute() -> None:
    # 8 in flight (2 pods) but for 5 s of 40 (10 pods), from second 20 to 25; then 12 pods from 30 to 160 s.
    offered = [8.0] * 20 + [40.0] * 5 + [8.0] * 135
    pods = [2] * 60 + [12] * 260
    assert overshoot_pods(recorded(pods[: 2 * 80]), setting_of(offered)) == 2  # until 85 s: 10 were needed
    assert overshoot_pods(recorded(pods), setting_of(offered)) == 10  # later: 2


def test_a_shorter_peak_is_averaged_over_5_s() -> None:
    offered = [4.0] * 30 + [44.0] + [4.0] * 29  # 5 s with a mean of 12: 3 pods
    assert overshoot_pods(recorded([5] * 120), setting_of(offered)) == 4  # before the peak 1 was needed
    assert overshoot_pods(recorded([1] * 70 + [5] * 50), setting_of(offered)) == 2


def test_an_overshoot_of_a_moment_is_seen() -> None:
    pods = [2] * 240
    pods[122] = 7  # at 61.5 s, for half a second
    assert overshoot_pods(recorded(pods), setting_of([8.0] * 120)) == 5


def test_a_load_of_less_than_5_s_has_no_overshoot() -> None:
    assert overshoot_pods(recorded([9] * 8), setting_of([1.0] * 4)) == 0
