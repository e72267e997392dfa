"""The made-up loads have the form that their names say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trimtab.autoscaler.simulator.shapes import SHAPES, parse_trace
from trimtab.autoscaler.simulator.traces import Counts, Rates
from trimtab.core.errors import InvalidInput


def rates(text: str) -> Rates:
    trace = parse_trace(text)
    assert isinstance(trace, Rates)
    assert trace.name == text
    assert (trace.per_second >= 0).all()
    assert (trace.per_second > 0).any()
    return trace


def test_a_step_goes_up_by_its_factor_at_once_and_stays() -> None:
    per_second = rates("step:10").per_second
    assert per_second[599:601].tolist() == [1, 10]
    assert (per_second == 10).sum() == 1200
    assert per_second[-600:].tolist() == [1.0] * 600


def test_a_drop_lasts_less_than_five_minutes() -> None:
    per_second = rates("drop:0.95").per_second
    low = np.flatnonzero(per_second < 1)
    assert per_second[low] == pytest.approx(np.full(480, 0.05))
    assert low[239] - low[0] == 239


def test_a_sawtooth_climbs_slowly_and_falls_at_once() -> None:
    steps = np.diff(rates("sawtooth").per_second)
    assert (steps > 0).sum() > 500 * (steps < 0).sum()
    assert steps.min() < -0.85


def test_a_flash_crowd_is_there_within_seconds_for_two_minutes() -> None:
    per_second = rates("flash").per_second
    assert (per_second == 15).sum() == 3 * 122  # the last of the rise and the first of the fall are as high
    first = int(np.argmax(per_second == 15))
    assert per_second[first - 5] == 1


def test_a_day_has_its_low_at_night_and_the_same_noise_each_time() -> None:
    day = rates("diurnal").per_second
    hours = day.reshape(8, -1).mean(axis=1)
    assert hours.argmax() in (3, 4)
    assert hours[[0, 7]].max() < 0.5 * hours.max()
    assert (day == rates("diurnal").per_second).all()
    assert (
        0.05 < np.std(np.log(day / (0.6 - 0.4 * np.cos(2 * np.pi * np.arange(day.size) / day.size)))) < 0.25
    )


def test_a_drop_may_leave_nothing() -> None:
    assert rates("drop:1").per_second.min() == 0.0


def test_a_number_left_out_is_the_usual_one() -> None:
    assert (rates("step").per_second == rates("step:10").per_second).all()


def test_anything_else_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "stepping.csv"
    file.write_text("t,count\n0,1\n60,2\n")
    assert isinstance(parse_trace(str(file)), Counts)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("stp:10", "did you mean `step`?"),
        ("/no/where.csv", "step:10, drop:0.95, sawtooth, flash, diurnal"),
        ("step:0", "above 0"),
        ("step:x", "above 0"),
        ("step:", "above 0"),
        ("drop:1.01", "up to 1"),
        ("drop:nan", "up to 1"),
        ("flash:3", "write `flash`"),
    ],
)
def test_a_mistake_comes_with_a_hint(text: str, hint: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_trace(text)
    assert hint in caught.value.hint


def test_every_shape_is_named_in_the_hint() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_trace("none")
    assert all(name in caught.value.hint for name in SHAPES)
