"""Room that is kept warm: as much as recent growth would have needed, and never more than its bound."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.autoscaler.warmroom import Room, Shape, Start, fit, room
from trimtab.core.spec import Resources

GIB = 1 << 30
SMALL = Shape("small", Resources(1.0, 4 * GIB), 10)
GPU = Shape("gpu", Resources(4.0, 16 * GIB, (("nvidia.com/gpu", 1),)), 2)
IRIS, LLM = Resources(0.3, GIB), Resources(2.0, 8 * GIB, (("nvidia.com/gpu", 1),))
LEAD_S, OVER_S, NOW_S = 120.0, 1800.0, 10_000.0


def held(starts: list[Start], now_s: float = NOW_S) -> list[int]:
    return [each.pods for each in room(starts, [SMALL, GPU], now_s, lead_s=LEAD_S, over_s=OVER_S)]


def burst(at_s: float, pods: int, takes: Resources = IRIS) -> list[Start]:
    return [Start(at_s + number, takes) for number in range(pods)]


def test_the_worked_example() -> None:
    starts = burst(NOW_S - 1000, 12)
    assert held(starts) == [4, 0]
    assert held(starts, NOW_S + OVER_S) == [0, 0]


@pytest.mark.parametrize(
    ("starts", "pods"),
    [
        ([], [0, 0]),
        (burst(NOW_S - 10, 1), [1, 0]),
        (burst(NOW_S - 900, 6) + burst(NOW_S - 300, 3), [2, 0]),  # the larger of two that are apart
        (
            burst(NOW_S - 300, 3) + burst(NOW_S - 200, 3),
            [2, 0],
        ),  # both: no node would be there yet
        (burst(NOW_S - 10, 1, LLM) + burst(NOW_S - 10, 3), [1, 1]),
        (burst(NOW_S - 10, 5, LLM), [0, 2]),  # its bound
        (burst(NOW_S + 50, 3), [1, 0]),  # told by a clock that is ahead
    ],
)
def test_how_much_is_held(starts: list[Start], pods: list[int]) -> None:
    assert held(starts) == pods


def test_reasons_are_told() -> None:
    starts = [*burst(NOW_S - 10, 5, LLM), Start(NOW_S, Resources(64.0))]
    small, gpu = room(starts, [SMALL, GPU], NOW_S, lead_s=LEAD_S, over_s=OVER_S)
    assert gpu == Room(
        "gpu",
        2,
        "of the last 30 min at most 5 such pods were asked for within 120 s, which take 5; its bound is 2; "
        "1 pods were larger than any placeholder",
    )
    assert "at most 0 such pods" in small.why


def test_what_fits_in_what() -> None:
    assert fit(IRIS, SMALL.holds) == 3
    assert fit(Resources(0.1), Resources(0.3)) == 3, "floats are no reason to hold more"
    assert fit(LLM, SMALL.holds) == 0
    assert fit(replace(IRIS, memory_bytes=3 * GIB), SMALL.holds) == 1
    assert fit(Resources(2.0), SMALL.holds) == 0


sizes = st.builds(Resources, st.sampled_from([0.05, 0.3, 0.5, 1.0, 3.0]), st.sampled_from([0, GIB, 5 * GIB]))
starts_of = st.lists(st.builds(Start, st.floats(0, NOW_S), sizes), max_size=30)


@given(starts_of)
def test_it_is_enough_for_each_burst_there_was_and_within_its_bound(starts: list[Start]) -> None:
    """Whatever was asked for within any lead fits in what is held, unless the bound says less."""
    shape = replace(SMALL, pods_max=12)
    (found,) = room(starts, [shape], NOW_S, lead_s=LEAD_S, over_s=OVER_S)
    assert 0 <= found.pods <= shape.pods_max
    if found.pods == shape.pods_max:
        return
    recent = [start for start in starts if start.at_s > NOW_S - OVER_S and fit(start.takes, shape.holds)]
    for begin in recent:
        within = [s for s in recent if begin.at_s <= s.at_s < begin.at_s + LEAD_S]
        cpu = sum(start.takes.cpu for start in within)
        assert cpu <= found.pods * shape.holds.cpu + 1e-9


@given(starts_of, st.builds(Start, st.floats(0, NOW_S), sizes))
def test_one_more_start_never_makes_it_less(starts: list[Start], one: Start) -> None:
    assert all(more >= less for more, less in zip(held([*starts, one]), held(starts), strict=True))
