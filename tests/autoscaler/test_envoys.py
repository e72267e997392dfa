"""How many Envoys: by what their workers' time goes into, up at once and down slowly, within the bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.autoscaler.envoys import AIM, AIM_DOWN, Sizing, State, Wanted, envoys_wanted

SIZING = Sizing(2, 10)
EACH_S = 5.0
LOOKED = State(since_s=0.0)
LATE_S = 1_000.0

shares = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0, 1), max_size=8)
sizings = st.builds(lambda least, more: Sizing(least, least + more), st.integers(1, 10), st.integers(0, 10))
counts = st.integers(0, 20)


def told(*busy: float) -> dict[str, float]:
    return {f"envoy-{index}": share for index, share in enumerate(busy)}


def want(busy: dict[str, float], count: int, silent: int = 0, state: State = LOOKED) -> Wanted:
    return envoys_wanted(state, busy, silent, count, SIZING, LATE_S)[1]


def test_the_worked_example_and_its_reason() -> None:
    wanted = want(told(0.7, 0.6), 2)
    assert wanted.count == 3
    assert wanted.why == (
        "2 used 1.30 of a worker together, the busiest 0.70; 3 would each be at most 50% busy"
    )


@pytest.mark.parametrize(
    ("busy", "silent", "count", "wanted"),
    [
        (told(0.0, 0.0), 0, 2, 2),  # never below the least
        (told(1.0, 1.0), 0, 2, 4),  # full: twice as many
        (told(1.0, 1.0), 0, 4, 4),  # the others start
        (told(*[1.0] * 8), 0, 8, 10),  # never above the most
        (told(0.5, 0.5), 0, 2, 2),
        (told(0.1, 0.1, 0.1), 0, 3, 2),
        (told(0.1, 0.1), 1, 3, 3),  # one is unknown: it may be the one that carries all
        (told(1.0, 0.9), 1, 3, 4),  # what is known is enough to grow
        ({}, 0, 5, 5),  # nobody tells: not idle
        ({}, 0, 0, 2),  # somebody took all away
        ({}, 0, 50, 10),
    ],
)
def test_what_is_wanted(busy: dict[str, float], silent: int, count: int, wanted: int) -> None:
    assert want(busy, count, silent).count == wanted


def test_a_bound_that_counts_is_told() -> None:
    assert want(told(*[1.0] * 8), 8).why.endswith("16 would each be at most 50% busy; the bound is 10")
    assert "and 1 more told nothing" in want(told(0.1), 3, 1).why
    assert want({}, 2).why.startswith("none has told how busy it is")


def test_none_goes_before_a_whole_window_was_seen() -> None:
    """Of a leader that has just begun, nobody knows what was before."""
    state, goes_at_s = State(), None
    for look in range(100):
        now_s = LATE_S + look * EACH_S
        state, wanted = envoys_wanted(state, told(0.1, 0.1, 0.1, 0.1), 0, 4, SIZING, now_s)
        if wanted.count < 4:
            goes_at_s = now_s - LATE_S
            break
        assert "none goes before 300 s" in wanted.why
    assert goes_at_s == SIZING.down_window_s


def test_a_spike_is_remembered_for_a_window_and_not_longer() -> None:
    state, count, counts = LOOKED, 2, []
    for look in range(80):
        total = 2.0 if look < 2 else 0.3
        state, wanted = envoys_wanted(
            state, told(*[total / count] * count), 0, count, SIZING, LATE_S + look * EACH_S
        )
        count = wanted.count
        counts.append(count)
    spike, window = AIM, int(SIZING.down_window_s / EACH_S)
    assert counts[0] == round(2.0 / spike)
    assert counts[window] == 4, "still within the window"
    assert counts[window + 1] == 2, "1 + 300 s after the last look at the spike"


@given(busy=shares, silent=st.integers(0, 3), count=counts, sizing=sizings, since_s=st.floats(0, LATE_S))
def test_always_within_the_bounds(
    busy: dict[str, float], silent: int, count: int, sizing: Sizing, since_s: float
) -> None:
    _, wanted = envoys_wanted(State(since_s=since_s), busy, silent, count, sizing, LATE_S)
    assert sizing.least <= wanted.count <= sizing.most


@given(busy=shares, silent=st.integers(1, 3), count=st.integers(2, 10))
def test_what_is_unknown_takes_none_away(busy: dict[str, float], silent: int, count: int) -> None:
    assert want(busy, count, silent).count >= count
    assert want({}, count).count == count


@given(busy=shares, more=st.floats(0, 1), count=st.integers(2, 10))
def test_more_load_never_wants_fewer(busy: dict[str, float], more: float, count: int) -> None:
    loaded = {envoy: min(1.0, share + more) for envoy, share in busy.items()}
    assert want(loaded, count).count >= want(busy, count).count


@given(load=st.floats(0, 12), count=st.integers(2, 10), looks=st.integers(150, 200))
def test_a_steady_load_comes_to_rest_where_it_fits(load: float, count: int, looks: int) -> None:
    """Whatever there was before; an Envoy carries at most all of its worker's time."""
    state, counts = State(), []
    for look in range(looks):
        busy = told(*[min(1.0, load / count)] * count)
        state, wanted = envoys_wanted(state, busy, 0, count, SIZING, look * EACH_S)
        count = wanted.count
        counts.append(count)
    assert len(set(counts[70:])) == 1, "it moves no more"
    assert count == SIZING.most or load / count <= AIM + 1e-6
    assert count == SIZING.least or load / (count - 1) > AIM_DOWN - 1e-6, "one fewer would not do"


@given(loads=st.lists(st.floats(0, 1), min_size=70, max_size=150))
def test_at_an_edge_it_does_not_swing(loads: list[float]) -> None:
    """A load between what brings the third Envoy and what lets it go takes none away."""
    state, count, changes = State(), 2, 0
    for look, load in enumerate(loads):
        total = 2 * (AIM_DOWN + load * (AIM - AIM_DOWN) * 1.5)
        state, wanted = envoys_wanted(state, told(*[total / count] * count), 0, count, SIZING, look * EACH_S)
        changes += wanted.count != count
        count = wanted.count
    assert changes <= 1 + len(loads) * EACH_S // SIZING.down_window_s


def test_what_is_remembered_is_bounded() -> None:
    state = State()
    sizing = Sizing(2, 10, down_window_s=1e9)
    for look in range(1_100):
        state, _ = envoys_wanted(state, told(0.1), 0, 2, sizing, look * EACH_S)
    assert len(state.enough) == 1_000
