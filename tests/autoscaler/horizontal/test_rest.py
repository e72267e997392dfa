"""What rests: nothing but a request changes how many pods it has, however often it is decided on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import event, given, target
from hypothesis import strategies as st

from tests.autoscaler.conftest import REVISION, signal_at
from trimtab.autoscaler.horizontal import REST_WITHIN_S, Rest, Signals, State, Tuning, decide, rest
from trimtab.autoscaler.horizontal.rhythm import Rhythm
from trimtab.autoscaler.horizontal.tuning import shortened
from trimtab.core.decision import Decision
from trimtab.core.spec import ConcurrencyRange

Make = Callable[..., Signals]
Second = dict[str, float]


class Life:
    """A revision whose pods are there at once, decided on from the seconds that it lives through."""

    def __init__(self, low: int, limit: int, tuning: Tuning) -> None:
        self.state, self.now_s, self.pods = State(), 0.0, -(-low // limit)
        self.tuning = tuning
        self._fixed: dict[str, Any] = {
            "concurrency": ConcurrencyRange(low, 10_000),
            "target_concurrency": limit,
        }
        self.given = Signals(REVISION)
        self.decision: Decision | None = None
        self.rests = False

    def lives(self, seconds: int, apart_s: int, second: Second) -> Iterator[int]:
        """The pods that each decision gives, so many seconds apart."""
        for _ in range(seconds // apart_s):
            yield self.hears([second] * apart_s)

    def hears(self, seconds: Sequence[Second]) -> int:
        """The pods that the decision gives to which all of these are new."""
        batch = [signal_at(self.now_s + 1.0 + i, **second) for i, second in enumerate(seconds)]
        self.now_s += len(seconds)
        self.given = Signals(REVISION, tuple(batch), ready_pods=self.pods, start_time_s=5.0, **self._fixed)
        self.state, decision = decide(self.state, self.given, self.now_s, self.tuning)
        self.decision, self.pods = decision, decision.pods
        self.rests = rest(self.state, self.given, decision, self.tuning) is Rest.UNTIL_ASKED
        return decision.pods


def _second(rate: int, service_s: float) -> Second:
    return {
        "arrivals": rate,
        "completions": rate,
        "in_flight": round(rate * service_s),
        "request_time_s": rate * service_s,
    }


_loads = st.lists(
    st.tuples(st.integers(5, 200), st.integers(0, 300), st.sampled_from((0.01, 0.3, 2.0))), max_size=5
)


@given(
    loads=_loads,
    low=st.sampled_from((0, 1, 8)),
    limit=st.sampled_from((1, 4, 64)),
    apart_s=st.sampled_from((1, 5, 60)),
    tuning=st.sampled_from((Tuning(), shortened(20.0))),
)
def test_who_rests_is_given_the_same_by_each_decision_until_somebody_asks(
    loads: list[tuple[int, int, float]], low: int, limit: int, apart_s: int, tuning: Tuning
) -> None:
    life = Life(low, limit, tuning)
    for seconds, rate, service_s in loads:
        for _ in life.lives(seconds, 5, _second(rate, service_s)):
            pass
    idle = 0
    while not life.rests and idle < 200:
        idle += len(list(life.lives(5, 5, {})))
    event(f"rests: {life.rests}")
    target(float(idle))
    if life.rests:
        pods = life.pods
        for given_pods in life.lives(600, apart_s, {}):
            assert given_pods == pods
            assert life.rests


@pytest.mark.parametrize("low", [0, 1])
def test_an_endpoint_that_nobody_ever_asked_rests(low: int) -> None:
    life = Life(low, 1, Tuning())
    assert set(life.lives(10, 5, {})) == {low}
    assert life.rests


def test_who_is_asked_once_rests_no_more(signals: Make) -> None:
    life = Life(1, 1, Tuning())
    list(life.lives(10, 5, {}))
    list(life.lives(5, 5, _second(1, 0.01)))
    assert not life.rests


def test_a_load_rests_once_it_is_gone_and_its_pods_are() -> None:
    life = Life(1, 1, Tuning())
    list(life.lives(600, 5, _second(100, 0.1)))
    assert life.pods > 5
    assert not life.rests
    list(life.lives(60, 5, {}))
    assert not life.rests
    list(life.lives(1_200, 5, {}))
    assert (life.pods, life.rests) == (1, True)


def test_who_may_need_more_by_what_its_window_holds_does_not_rest() -> None:
    life = Life(1, 1, Tuning())
    list(life.lives(10, 5, {}))
    assert rest(life.state, life.given, life.decision) is Rest.UNTIL_ASKED
    held = life.state._replace(peaks=((5.0, 0.5), (10.0, 0.0)))
    assert rest(held, life.given, life.decision) is Rest.NONE


def test_of_whom_nobody_tells_anything_rests_until_somebody_does() -> None:
    life = Life(1, 1, Tuning())
    list(life.lives(100, 5, _second(50, 0.1)))
    held = life.pods
    assert held > 1
    for silent_s in range(5, 600, 5):
        quiet = Signals(REVISION, (), ready_pods=held, concurrency=ConcurrencyRange(1, 10_000))
        life.state, decision = decide(life.state, quiet, life.now_s + silent_s)
        assert decision.pods == held
        told = rest(life.state, quiet, decision)
        assert told is (Rest.UNTIL_TOLD if silent_s >= Tuning().forget_s else Rest.NONE)


def test_who_was_not_asked_rests_on_while_what_told_so_grows_old() -> None:
    life = Life(1, 1, Tuning())
    list(life.lives(10, 5, {}))
    for silent_s in range(5, 100, 5):
        quiet = replace(life.given, revision_signals=())
        life.state, decision = decide(life.state, quiet, life.now_s + silent_s)
        assert decision.pods == 1
        told = rest(life.state, quiet, decision)
        assert told is (Rest.UNTIL_TOLD if silent_s >= Tuning().forget_s else Rest.UNTIL_ASKED)


def test_who_lacks_a_pod_does_not_rest(signals: Make) -> None:
    life = Life(8, 1, Tuning())
    list(life.lives(10, 5, {}))
    given = signals(signal_at(11.0), concurrency=ConcurrencyRange(8, 10), ready_pods=3, room=0)
    state, decision = decide(life.state, given, 11.0)
    assert decision.pods == 3
    assert rest(state, given, decision) is Rest.NONE


def test_who_lacks_a_pod_does_not_rest_though_nobody_tells_anything(signals: Make) -> None:
    given = signals(concurrency=ConcurrencyRange(3, 10), ready_pods=1, room=0)
    state, decision = decide(State(), given, 100.0)
    assert decision.pods == state.pods == 1
    assert rest(state, given, decision) is Rest.NONE
    there_is_room = replace(given, room=9)
    state, decision = decide(State(), there_is_room, 100.0)
    assert decision.pods == 3
    assert rest(state, there_is_room, decision) is Rest.UNTIL_TOLD


def test_who_is_asked_by_the_clock_does_not_rest(signals: Make) -> None:
    life = Life(1, 1, Tuning())
    list(life.lives(10, 5, {}))
    given = signals(signal_at(11.0))
    known = life.state.surges._replace(rhythm=Rhythm(1e6, 2e6, 300.0, 50.0))
    state, decision = decide(life.state._replace(surges=known), given, 11.0)
    assert decision.pods == 1
    assert rest(state, given, decision) is Rest.NONE


PERIOD_S, SURGE_S = 900, 30


def _pods_before_surges(rest_s: int, phase_s: int, many: int) -> list[int]:
    """How many there are just before each surge; they come by the clock, `phase_s` after a rest's begin."""
    life, before, unheard = Life(1, 4, Tuning()), list[int](), list[Second]()
    begins_s = PERIOD_S - 2 * SURGE_S + phase_s
    for second in range(PERIOD_S * many):
        since_s = second % PERIOD_S - begins_s
        surges = 0 <= since_s < SURGE_S
        if since_s == -1:
            before.append(life.pods)
        unheard.append(_second(20, 1.0) if surges else {})
        if len(unheard) >= (rest_s if life.rests and not surges else 5):
            life.hears(unheard)
            unheard.clear()
    return before


@pytest.mark.parametrize("phase_s", [0, 4, 9, 14])
def test_surges_by_the_clock_are_foreseen_though_it_rests_between_them(phase_s: int) -> None:
    """Neither is a second of that clock missed, nor whether a surge came at once."""
    awake = _pods_before_surges(5, phase_s, 5)
    assert awake[:2] == [1, 1], "void: it never rested"
    assert min(awake[2:]) > 1, "void: nothing was foreseen"
    assert _pods_before_surges(int(REST_WITHIN_S[Rest.UNTIL_ASKED]), phase_s, 5) == awake
