"""Once the knee is known it is left alone: noise, a poisonous minute, one bad pod; but not a new profile."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.autoscaler.vertical.models import Costs, batching, cpu, hundredfold, lognormal, slower
from tests.autoscaler.vertical.world import REVISION, Loop, World
from trimtab.autoscaler.vertical import Learned, LimitSignals, LimitState, decide_limit, learned, resume
from trimtab.core.signals import PodSignal

COSTS: dict[str, Costs] = {"cv 0.3": lognormal(0.3), "cv 1.5": lognormal(1.5), "hundredfold": hundredfold}
HOUR = 120  # decisions


def rare(rng: np.random.Generator, size: int) -> np.ndarray:
    """One request of fifty costs a hundred times as much."""
    return np.where(rng.random(size) < 0.02, 33.6, 0.336)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("costs", [*COSTS.values(), rare], ids=[*COSTS, "one of fifty"])
def test_no_change_in_three_hours_of_stationary_traffic(costs: Costs, seed: int) -> None:
    loop = Loop(World(batching(8, 1.0, 0.5), costs, pods=2, limit=4, seed=seed)).onboard().run(3 * HOUR)
    for begin in range(0, 2 * HOUR, 10):
        window = loop.decisions[-3 * HOUR :][begin : begin + HOUR]
        assert sum(d.limit != d.limit_before for d in window) <= 1


def test_quiet_where_equal_requests_of_half_a_minute_complete_in_step() -> None:
    """The first window at the limit found may see the end of a whole batch, five times what it gives."""
    even = lognormal(0.0001)
    loop = Loop(World(batching(59, 30.0, 0.5), even, pods=3, limit=1)).onboard().run(HOUR)
    assert loop.changes(HOUR) <= 1
    assert loop.limit == pytest.approx(57, abs=2)


@pytest.mark.parametrize("load", [0.6, 0.9, 1.2])
def test_no_change_with_poisson_arrivals(load: float) -> None:
    world = World(cpu(4, 0.4), lognormal(1.5), pods=2, limit=4, seed=5)
    loop = Loop(world).onboard()
    world.offered_per_s = load * 2 * world.best()[1]
    world.next_arrival_s = world.now_s
    loop.run(HOUR)
    assert loop.changes(HOUR) == 0


@pytest.mark.parametrize("costs", COSTS.values(), ids=COSTS)
@pytest.mark.parametrize("pods", [1, 5])
def test_a_poisonous_minute_moves_nothing(costs: Costs, pods: int) -> None:
    loop = Loop(World(cpu(4, 0.1), costs, pods=pods, limit=2)).onboard().run(10)
    before = loop.limit
    loop.world.cost = 100.0
    loop.run(2)
    loop.world.cost = 1.0
    loop.run(30)
    assert set(loop.limits()[-32:]) == {before}
    assert any(
        "does not" in d.reason or "set aside" in d.reason or "complete none" in d.reason
        for d in loop.decisions[-32:]
    )


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_poisonous_minute_while_onboarding_delays_it_only(at: int) -> None:
    loop = Loop(World(cpu(8, 0.1), pods=2, limit=1)).run(at)
    loop.world.cost = 100.0
    loop.run(2)
    loop.world.cost = 1.0
    loop.run(25)
    assert loop.state.phase == "resting"
    assert loop.limit == 8


@pytest.mark.parametrize("pods", [2, 5])
def test_a_slow_pod_is_left_out_and_named(pods: int) -> None:
    loop = Loop(World(cpu(4, 0.1), pods=pods, limit=2)).onboard().run(10)
    before = loop.limit
    loop.world.fleet[0].rate = slower(loop.world.rate, 4)
    loop.run(40)
    assert set(loop.limits()[-40:]) == {before}
    assert "left out: iris-0 (takes " in loop.decisions[-1].reason
    assert "times as long as the others)" in loop.decisions[-1].reason


def test_one_slow_pod_of_two_does_not_excuse_itself_by_its_few_completions() -> None:
    """Three in 30 s, where the other answers thirty."""
    done = {"iris-0": (0.0, 1.0), "iris-1": (4.0, 6.0)}
    told = tuple(
        PodSignal(REVISION, pod, at_s, 5.0, in_flight=4.0, completions=done[pod][int(at_s // 5) % 2])
        for pod in done
        for at_s in (15.0, 20.0, 25.0, 30.0, 35.0, 40.0)
    )
    _, decision = decide_limit(LimitState(), LimitSignals(REVISION, told, ready_pods=2, limit=4), 40.0)
    assert "left out: iris-0 (takes 10 times as long as the others)" in decision.reason


def test_onboarding_beside_a_noisy_neighbour() -> None:
    world = World(cpu(4, 0.1), pods=5, limit=1)
    world.fleet[2].rate = slower(world.rate, 3)
    assert Loop(world).onboard().limit == 4


def test_a_pod_whose_gpu_fails_is_left_out_and_named() -> None:
    loop = Loop(World(batching(8, 0.5, 0.5), pods=5, limit=4)).onboard().run(10)
    before = loop.limit
    loop.world.fleet[3].rate = lambda n: 50.0 * n  # errors are quick
    loop.world.fleet[3].failing = True
    loop.run(20)
    assert set(loop.limits()[-20:]) == {before}
    assert "left out: iris-3 (fails 90% of its requests)" in loop.decisions[-1].reason


def test_a_dependency_three_times_slower_for_good_is_noticed() -> None:
    """Requests wait three times as long and need no more processor: three times as many fit."""
    world = World(lambda n: min(n / 0.4, 20.0), pods=3, limit=4)
    loop = Loop(world).onboard().run(40)
    assert loop.limit == 8
    world.rate = lambda n: min(n / 1.2, 20.0)
    for pod in world.fleet:
        pod.rate = world.rate
    loop.run(40)
    assert loop.limit == pytest.approx(24, abs=1)
    assert any("changed for good" in c.why for d in loop.decisions for c in d.candidates)
    loop.run(HOUR)
    assert loop.changes(HOUR) == 0


def test_less_hardware_is_noticed() -> None:
    world = World(cpu(12, 0.2), pods=3, limit=4)
    loop = Loop(world).onboard().run(40)
    for pod in world.fleet:
        pod.rate = cpu(4, 0.2)
    loop.run(40)
    assert loop.limit == 4


def test_the_same_requests_at_twice_the_cost_end_where_they_were() -> None:
    loop = Loop(World(cpu(8, 0.1), pods=3, limit=4)).onboard().run(40)
    loop.world.cost = 2.0
    loop.run(60)
    assert loop.limit == 8
    assert loop.changes(60) <= 10


def test_goes_on_quietly_from_what_was_learned() -> None:
    loop = Loop(World(cpu(8, 0.1), pods=2, limit=1)).onboard().run(10)
    stored = learned(loop.state).to_json()
    assert len(stored) < 2000
    again = Loop(World(cpu(8, 0.1), pods=1, limit=1, seed=9), resume(Learned.from_json(stored))).run(HOUR)
    assert again.decisions[0].reason == "goes from 1 to 8: 8 is not in force yet, 1 is"
    assert set(again.limits()) == {8}


def test_onboarding_goes_on_where_it_was() -> None:
    loop = Loop(World(cpu(32, 0.1), pods=2, limit=1)).run(4)
    assert loop.limit == 16
    stored = Learned.from_json(learned(loop.state).to_json())
    again = Loop(World(cpu(32, 0.1), pods=2, limit=16, seed=2), resume(stored)).run(6)
    assert again.limit == 32


def test_no_growth_while_the_load_is_what_binds() -> None:
    world = World(cpu(64, 0.5), pods=1, limit=8, offered_per_s=8.0)
    loop = Loop(world).run(20)
    assert set(loop.limits()) == {8}
    assert {d.rule for d in loop.decisions} <= {"load", "settling"}
    assert "the limit does not bind (" in loop.decisions[-1].reason
    assert loop.decisions[-1].binds == "load"


def test_a_ceiling_that_was_lower_for_a_while_does_not_stay() -> None:
    loop = Loop(World(cpu(16, 0.1), pods=2, limit=1, ceiling=4)).run(20)
    assert (loop.state.phase, loop.limit) == ("resting", 4)
    loop.world.ceiling = 1000
    assert loop.run(12).limit == 16


@pytest.mark.parametrize("at_once", [True, False], ids=["clamped before", "by the decision"])
def test_a_range_narrowed_at_rest_and_widened_again(at_once: bool) -> None:
    """The control plane lets a new range count at once, before the next decision."""
    loop = Loop(World(cpu(16, 0.1), pods=2, limit=1)).onboard().run(10)
    loop.world.ceiling = 4
    loop.world.limit = 4 if at_once else 16
    loop.run(60)
    assert set(loop.limits()[-60:]) == {4}
    assert loop.decisions[-1].reason == (
        "stays at 4: the knee was found at 16; held by the range's maximum at 4"
    )
    assert loop.decisions[-1].binds == "the range's maximum"
    assert learned(loop.state).limit == 16
    loop.world.ceiling = 1000
    loop.world.limit = 16 if at_once else 4
    loop.run(40)
    assert set(loop.limits()[-40:]) == {16}, "at once, and nothing is looked for again"


@pytest.mark.parametrize("windows", [1, 2, 12])
@pytest.mark.parametrize("ceiling", [4, 16])
def test_a_range_narrowed_while_onboarding_and_widened_again(ceiling: int, windows: int) -> None:
    """It comes to rest at the end of the range, or has not yet: either way it doubles on once it may."""
    loop = Loop(World(cpu(64, 0.2), pods=2, limit=1)).run(4)
    assert loop.limit == 16
    loop.world.ceiling, loop.world.limit = ceiling, min(16, ceiling)
    assert loop.run(windows).limit <= ceiling
    loop.world.ceiling = 1000
    assert loop.run(16).limit == pytest.approx(64, abs=2)


def test_a_profile_that_changed_under_a_narrow_range_is_learned() -> None:
    loop = Loop(World(cpu(16, 0.1), pods=2, limit=1)).onboard().run(40)
    loop.world.ceiling = loop.world.limit = 4
    loop.run(20)
    for pod in loop.world.fleet:
        pod.rate = cpu(2, 0.1)
    loop.run(40)
    assert (loop.limit, loop.state.limit) == (2, 2)
    loop.world.ceiling = 1000
    assert set(loop.run(20).limits()[-20:]) == {2}


def test_what_was_stored_before_a_field_was_added_is_read() -> None:
    content = json.loads(learned(Loop(World(cpu(4, 0.1), pods=2, limit=1)).onboard().state).to_json())
    del content["held_at"]
    stored = Learned.from_json(json.dumps(content | {"disturbed": True}))
    assert (stored.limit, stored.held_at) == (4, 0)
