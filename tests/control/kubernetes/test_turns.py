"""Who tells much delays nobody, and pushes nobody out."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.control.kubernetes.turns import Turns
from trimtab.core.names import EndpointName

NAMES = [EndpointName(namespace, name) for namespace in "abc" for name in ("iris", "rose", "wine")]
FLAPS, QUIET = EndpointName("noisy", "flaps"), EndpointName("quiet", "iris")

Item = tuple[EndpointName, int]
# A name is put, None takes.
steps = st.lists(st.one_of(st.sampled_from(NAMES), st.none()), max_size=120)
bounds = st.tuples(st.integers(1, 20), st.integers(1, 8))


def emptied(turns: Turns[Item]) -> list[Item]:
    return [turns.take() for _ in range(len(turns))]


def filled(turns: Turns[Item], name: EndpointName, count: int) -> None:
    for number in range(count):
        turns.put(name, (name, number))


def test_one_that_flaps_delays_nobody() -> None:
    turns: Turns[Item] = Turns(1_000, 1_000)
    filled(turns, FLAPS, 900)
    filled(turns, QUIET, 2)
    assert [name for name, _ in emptied(turns)[:4]] == [FLAPS, QUIET, FLAPS, QUIET]


def test_one_that_flaps_pushes_out_its_own() -> None:
    turns: Turns[Item] = Turns(10, 10)
    filled(turns, QUIET, 1)
    filled(turns, FLAPS, 99)
    turns.put(QUIET, (QUIET, 1))
    told = emptied(turns)
    assert [number for name, number in told if name == QUIET] == [0, 1]
    assert [number for name, number in told if name == FLAPS] == list(range(91, 99)), "the newest"


def test_many_endpoints_of_a_namespace_have_one_turn_together() -> None:
    turns: Turns[Item] = Turns(100, 10)
    for number in range(20):
        filled(turns, EndpointName("noisy", f"many-{number}"), 1)
    filled(turns, QUIET, 3)
    assert [name == QUIET for name, _ in emptied(turns)[:7]] == [False, True] * 3 + [False]


def test_in_a_namespace_endpoints_take_turns() -> None:
    turns: Turns[Item] = Turns(100, 10)
    filled(turns, FLAPS, 5)
    filled(turns, other := EndpointName("noisy", "other"), 2)
    assert [name for name, _ in emptied(turns)] == [FLAPS, other, FLAPS, other, FLAPS, FLAPS, FLAPS]


def test_of_nothing_nothing_is_taken() -> None:
    turns: Turns[Item] = Turns(1, 1)
    with pytest.raises(IndexError, match="nothing waits"):
        turns.take()


@given(steps, bounds)
def test_bounds_hold_and_what_waits_of_one_is_the_newest_in_order(
    played: list[EndpointName | None], most: tuple[int, int]
) -> None:
    all_max, each_max = most
    turns: Turns[Item] = Turns(all_max, each_max)
    put: dict[EndpointName, int] = defaultdict(int)
    taken: dict[EndpointName, int] = defaultdict(lambda: -1)
    for step in played:
        if step is not None:
            turns.put(step, (step, put[step]))
            put[step] += 1
        elif len(turns):
            name, number = turns.take()
            assert number > taken[name], "in the order in which they came"
            taken[name] = number
        assert len(turns) <= all_max
    left: dict[EndpointName, list[int]] = defaultdict(list)
    for name, number in emptied(turns):
        left[name].append(number)
    for name, numbers in left.items():
        assert len(numbers) <= each_max
        assert numbers == list(range(put[name] - len(numbers), put[name])), "the oldest were lost"


@given(steps)
def test_a_turn_comes_after_one_of_each_other_namespace_and_endpoint(
    played: list[EndpointName | None],
) -> None:
    turns: Turns[Item] = Turns(1_000, 1_000)
    waits: Counter[EndpointName] = Counter()
    others: dict[str, list[str]] = defaultdict(list)  # namespaces whose turn it was since this one's
    for step in played:
        if step is not None:
            turns.put(step, (step, 0))
            waits[step] += 1
        elif len(turns):
            name, _ = turns.take()
            waits[name] -= 1
            others[name.namespace].clear()
            for other in {each.namespace for each in +waits} - {name.namespace}:
                others[other].append(name.namespace)
                assert len(others[other]) == len(set(others[other])), "nobody had two turns while it waited"


@given(steps, st.integers(3, 20))
def test_who_has_no_more_than_its_share_loses_nothing(
    played: list[EndpointName | None], all_max: int
) -> None:
    """Of three namespaces a third each; what others put is never at its price."""
    turns: Turns[Item] = Turns(all_max, all_max)
    share = all_max // 3
    waits: Counter[str] = Counter()
    for number, step in enumerate(played):
        if step is None and len(turns):
            waits[turns.take()[0].namespace] -= 1
        elif step is not None and (step.namespace == "c" or waits[step.namespace] < share):
            turns.put(step, (step, number))  # `c` puts whenever it likes
            waits[step.namespace] += 1
            waits["c"] -= waits.total() - len(turns)  # whatever was lost was its own
    left = Counter(name.namespace for name, _ in emptied(turns))
    assert {each: left[each] for each in "ab"} == {each: waits[each] for each in "ab"}
