"""What holds for every policy whatever it sees: within the range, at the knee, the same again."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtab.autoscaler.simulator.policies.base import TICK_S, Setting, Tick, Wish
from trimtab.autoscaler.simulator.policies.catalog import make, parse

OTHERS = [
    "kpa",
    "hpa",
    "keda",
    "ray",
    "kpa:target=0.4",
    "keda:target=0.5",
    "ray:target=1",
    "clairvoyant",
    "fixed:7",
]

quick = settings(
    max_examples=60,
    deadline=None,
    # the fixtures are factories without state
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

stretches = st.lists(
    st.tuples(
        st.integers(1, 400),  # ticks
        st.integers(0, 5000),  # in flight
        st.integers(0, 50_000),  # queued
        st.integers(0, 60),  # ready
        st.integers(0, 60),  # starting
    ),
    min_size=1,
    max_size=6,
)


def ticks_of(tick, found: list[tuple[int, int, int, int, int]]) -> list[Tick]:
    at_s = (i * TICK_S for i in itertools.count(1))
    return [
        tick(next(at_s), in_flight=in_flight, queued=queued, ready=ready, starting=starting)
        for length, in_flight, queued, ready, starting in found
        for _ in range(length)
    ]


def wishes_of(text: str, given_setting: Setting, ticks: list[Tick]) -> list[Wish | None]:
    policy = make(parse(text), given_setting)
    return [policy.step(each, ()) for each in ticks]


@pytest.mark.parametrize("text", OTHERS)
@given(
    found=stretches,
    knee=st.integers(1, 200),
    phase_s=st.floats(0, 15),
    least=st.integers(0, 5),
    more=st.integers(1, 90),
)
@quick
def test_within_the_range_at_the_knee_and_the_same_again(
    text, setting, tick, found, knee, phase_s, least, more
) -> None:
    given_setting = setting(
        knee=knee, phase_s=phase_s, pods_min=least, pods_max=least + more, offered=[5.0, 900.0]
    )
    ticks = ticks_of(tick, found)
    wishes = wishes_of(text, given_setting, ticks)
    for wish in wishes:
        assert wish is None or (least <= wish.pods <= least + more and wish.limit == knee)
    assert wishes == wishes_of(text, given_setting, ticks)


@pytest.mark.parametrize("text", ["kpa", "hpa", "ray"])
def test_holds_while_no_pod_is_ready_and_nobody_asks(text, setting, tick) -> None:
    ticks = [tick(i * TICK_S, ready=0, starting=3) for i in range(1, 2000)]
    assert set(wishes_of(text, setting(pods_min=2), ticks)) == {None}


@pytest.mark.parametrize("text", OTHERS)
def test_a_steady_load_is_left_alone(text, setting, tick) -> None:
    """Once there, a constant load never changes the number again."""
    given_setting = setting(offered=[28.0] * 10, phase_s=4.4)
    policy = make(parse(text), given_setting)
    pods, changed_s = 1, 0.0
    for i in range(1, 4000):
        wish = policy.step(tick(i * TICK_S, in_flight=28.0, ready=pods), ())
        if wish is not None and wish.pods != pods:
            pods, changed_s = wish.pods, i * TICK_S
    assert changed_s < 700.0  # Ray's patience downwards, and its mean


@pytest.mark.parametrize("text", OTHERS)
def test_a_tick_costs_little(text, setting, tick) -> None:
    """28,800 ticks are 4 h: of a run that takes a second at most a tenth may be the policy's."""
    ticks = [tick(i * TICK_S, in_flight=28.0, ready=10) for i in range(1, 28_801)]
    policy = make(parse(text), setting(offered=[28.0] * 14_400))
    begun_s = time.process_time()
    for each in ticks:
        policy.step(each, ())
    assert time.process_time() - begun_s < 0.3  # measured 0.002 to 0.04; the machine may be busy
