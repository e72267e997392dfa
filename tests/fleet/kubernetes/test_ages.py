"""Of thousands of endpoints whose pods start few are told of anew at a time, and none is left out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trimtab.core.clock import ManualClock
from trimtab.core.names import EndpointName
from trimtab.fleet.kubernetes.ages import EACH_S, PER_S, Ages


def test_one_is_told_of_each_second_as_of_then() -> None:
    clock = ManualClock()
    ages, name = Ages(clock), EndpointName("team", "iris")
    first = ages.as_of(name)
    clock.advance(EACH_S / 2)
    assert (ages.due(), ages.as_of(name)) == ([], first)
    clock.advance(EACH_S / 2)
    assert (ages.due(), ages.as_of(name)) == ([name], first + EACH_S)
    ages.forget(name)
    clock.advance(EACH_S)
    assert ages.due() == []


@given(st.integers(1, 5 * PER_S), st.lists(st.floats(0.01, 3.0), min_size=20, max_size=60))
def test_no_more_than_so_many_a_second_and_each_in_its_turn(many: int, steps_s: list[float]) -> None:
    clock = ManualClock()
    ages, began_s, found = Ages(clock), clock.now_s(), list[EndpointName]()
    names = [EndpointName("team", f"e{number}") for number in range(many)]
    for name in names:
        ages.as_of(name)
    for step_s in steps_s:
        clock.advance(step_s)
        due = ages.due()
        for name in due:
            ages.as_of(name)
        found += due
    assert len(found) <= PER_S * (1 + clock.now_s() - began_s) + 1e-6
    assert found == [names[at % many] for at in range(len(found))], "the one told longest ago comes first"
    apart_s = max(EACH_S, many / PER_S) + max(steps_s)
    assert len(found) >= many * int((clock.now_s() - began_s) / (apart_s + max(steps_s)))
