"""Who gets pods when not all fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.autoscaler.fairness import Ask, share

ASK = st.builds(Ask, floor=st.integers(0, 4), held=st.integers(0, 20), wanted=st.integers(0, 30))
ASKS = st.dictionaries(st.sampled_from("abcdefgh"), ASK, min_size=1)
SIZED = st.dictionaries(
    st.sampled_from("abcdefgh"),
    st.builds(Ask, st.integers(0, 4), st.integers(0, 20), st.integers(0, 30), st.integers(1, 9)),
    min_size=1,
)
ROOM = st.integers(0, 120)


@pytest.mark.parametrize(
    ("room", "asks", "shares"),
    [
        (8, {"a": Ask(1, 6, 9), "b": Ask(1, 0, 4), "c": Ask(1, 0, 1)}, {"a": 4, "b": 3, "c": 1}),
        (8, {"a": Ask(1, 3, 9), "b": Ask(1, 4, 9), "c": Ask(1, 1, 1)}, {"a": 3, "b": 4, "c": 1}),
        (8, {"a": Ask(1, 8, 8), "b": Ask(3, 0, 3)}, {"a": 5, "b": 3}),
        (8, {"a": Ask(6, 6, 8), "b": Ask(1, 0, 8)}, {"a": 6, "b": 2}),
        (2, {"a": Ask(3, 2, 3), "b": Ask(3, 0, 3)}, {"a": 1, "b": 1}),
        (20, {"a": Ask(1, 0, 5), "b": Ask(1, 0, 6)}, {"a": 5, "b": 6}),
        (100, {"a": Ask(1, 10, 10, 10), "b": Ask(1, 0, 1, 40)}, {"a": 6, "b": 1}),
    ],
    ids=["filling", "the odd pod", "a floor", "unequal floors", "floors do not fit", "enough", "sizes"],
)
def test_floors_first_then_the_least_served(room: int, asks: dict[str, Ask], shares: dict[str, int]) -> None:
    assert share(room, asks) == shares


@given(ROOM, SIZED)
def test_never_more_than_there_is_nor_than_is_wanted(room: int, asks: dict[str, Ask]) -> None:
    shares = share(room, asks)
    assert sum(shares[key] * ask.size for key, ask in asks.items()) <= room
    assert all(0 <= shares[key] <= max(ask.floor, ask.wanted) for key, ask in asks.items())
    assert share(room, dict(reversed(asks.items()))) == shares, "whatever their order"


@given(ROOM, SIZED)
def test_nobody_has_more_than_its_floor_while_another_has_less(room: int, asks: dict[str, Ask]) -> None:
    shares = share(room, asks)
    if any(shares[key] < ask.floor for key, ask in asks.items()):
        assert all(shares[key] <= ask.floor for key, ask in asks.items())


@given(ROOM, SIZED)
def test_nothing_that_would_fit_is_kept_back(room: int, asks: dict[str, Ask]) -> None:
    shares = share(room, asks)
    left = room - sum(shares[key] * ask.size for key, ask in asks.items())
    floors_met = all(shares[key] >= ask.floor for key, ask in asks.items())
    for key, ask in asks.items():
        short = shares[key] < (max(ask.floor, ask.wanted) if floors_met else ask.floor)
        assert not short or ask.size > left


@given(ROOM, ASKS)
def test_nobody_could_have_more_but_from_one_that_has_less_still(room: int, asks: dict[str, Ask]) -> None:
    """Max-min: who is short has at most one pod less than whoever has more than its floor."""
    shares = share(room, asks)
    for key, ask in asks.items():
        if shares[key] < max(ask.floor, ask.wanted):
            for other, its in asks.items():
                assert shares[other] <= max(its.floor, shares[key] + 1)


@given(ROOM, ASKS, st.integers(1, 20))
def test_more_room_takes_from_nobody_and_a_larger_ask_gives_to_nobody(
    room: int, asks: dict[str, Ask], more: int
) -> None:
    shares, roomier = share(room, asks), share(room + more, asks)
    assert all(roomier[key] >= shares[key] for key in asks)
    greedy = min(asks)
    asks_more = share(room, asks | {greedy: replace(asks[greedy], wanted=asks[greedy].wanted + more)})
    assert asks_more[greedy] >= shares[greedy]
    assert all(asks_more[key] <= shares[key] for key in asks if key != greedy)


@given(ROOM, ASKS)
def test_who_holds_no_more_than_its_fair_share_keeps_it(room: int, asks: dict[str, Ask]) -> None:
    """With what they hold within the room, an even split is nobody's loss."""
    even = room // len(asks)
    shares = share(room, asks)
    if all(ask.floor <= even for ask in asks.values()):
        assert all(shares[key] >= min(even, ask.held, ask.wanted) for key, ask in asks.items())
