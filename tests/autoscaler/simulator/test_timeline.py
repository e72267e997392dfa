"""What is written down tick by tick, and the lines made from it."""

from __future__ import annotations

import numpy as np
import pytest

from trimtab.autoscaler.simulator.load import Load
from trimtab.autoscaler.simulator.models import MODELS
from trimtab.autoscaler.simulator.policies.base import TICK_S, Tick
from trimtab.autoscaler.simulator.timeline import EACH_S, Recorder

WARMUP_S, END_S = 10.0, 30.0


def tick_with(at_s: float, ready: int) -> Tick:
    return Tick(at_s, 1, 1, 0, 3, int(at_s), 0.0, 0.0, 0.0, ready, ())


@pytest.fixture
def recorder() -> Recorder:
    """Two pods are wanted and there; from 12 s on five are asked for, from 20 s on they are ready."""
    made = Recorder(WARMUP_S, END_S)
    pod_seconds = 0.0
    for step in range(1, int(40.0 / TICK_S) + 1):
        at_s = step * TICK_S
        asked, ready = 5 if at_s > 12.0 else 2, 5 if at_s >= 20.0 else 2
        pod_seconds += asked * TICK_S
        made.add(tick_with(at_s, ready), asked, asked, 5, pod_seconds)
    return made


def test_only_what_lies_between_warm_up_and_end_is_scored(recorder: Recorder) -> None:
    assert recorder.pod_seconds == pytest.approx(2 * 2 + 18 * 5)
    assert recorder.pods_peak == 5
    assert recorder.scale_events == 1
    at_s, asked = recorder.asked
    assert at_s.tolist() == np.arange(10.5, 30.1, TICK_S).tolist(), "each tick"
    assert asked.tolist() == [2] * 4 + [5] * 36
    assert recorder.capped_share == pytest.approx(18 / 20)


def test_parts_of_a_tick_are_paid_for_too() -> None:
    made = Recorder(1.2, 3.3)
    for step in range(1, 9):
        made.add(tick_with(step * TICK_S, 3), 3, 3, 9, 3 * step * TICK_S)
    assert made.pod_seconds == pytest.approx(3 * 2.1)
    assert made.asked[0].tolist() == [1.5, 2.0, 2.5, 3.0]


def test_what_is_wanted_first_is_no_change() -> None:
    made = Recorder(0.0, END_S)
    for step in range(1, 5):
        made.add(Tick(step * TICK_S, 0, 0, 0, 0, 0, 0.0, 0.0, 0.0, 3, ()), 3, 3, 9, 0.0)
    assert made.scale_events == 0


def test_a_change_with_the_end_of_the_warm_up_counts() -> None:
    made = Recorder(TICK_S, END_S)
    for step, wanted in enumerate((3, 4, 4), 1):
        made.add(Tick(step * TICK_S, 0, 0, 0, 0, 0, 0.0, 0.0, 0.0, 3, ()), 3, wanted, 9, 0.0)
    assert made.scale_events == 1


def test_the_lines_show_the_whole_run_warm_up_included(recorder: Recorder) -> None:
    load = Load(np.array([1.0, 7.0, 8.0, 29.0]), np.ones(4), WARMUP_S, END_S)
    offered = np.array([8.0] * 10 + [4.0] * 21)
    lines = recorder.timeline("x", load, MODELS["cpu"], np.array([False, True, True, True]), offered)
    assert lines.policy == "x"
    assert lines.at_s.tolist() == np.arange(EACH_S, END_S + 1, EACH_S).tolist()
    assert lines.offered_pods.tolist() == pytest.approx([2.0, 2.0, 1.0, 1.0, 1.0, 1.0])
    assert lines.ready_pods.tolist() == [2, 2, 2, 5, 5, 5]
    assert lines.asked_pods.tolist() == [2, 2, 5, 5, 5, 5]
    assert lines.queued.tolist() == [5, 10, 15, 20, 25, 30]
    assert lines.late.tolist() == [0, 2, 0, 0, 0, 1]
