"""The invariants of `decide` under random faults. `TRIMTAB_FAULT_SEEDS=5000 make test ARGS=…` runs more."""

from __future__ import annotations

import pytest

from tests.autoscaler.faults.load import draw_load
from tests.autoscaler.faults.plan import KINDS, ON_SIGNALS, draw_plan
from tests.autoscaler.faults.seeds import SHARES, name_of
from tests.autoscaler.faults.simulation import Simulation, Violated
from tests.autoscaler.faults.world import World
from trimtab.autoscaler.horizontal import Signals, State, Tuning, decide
from trimtab.core.decision import Decision

ONCE_BROKEN = (1021, 1214)
"""Seeds in which two surges announced a third for the time of rest, and in which more was kept spare than
growth allows, as the brief down window ended."""


@pytest.mark.parametrize("seeds", SHARES, ids=name_of)
def test_faults_break_no_invariant(seeds: range) -> None:
    for seed in seeds:
        Simulation(seed).run()


@pytest.mark.parametrize("seed", ONCE_BROKEN)
def test_what_once_broke_an_invariant_does_not_again(seed: int) -> None:
    Simulation(seed).run()


def test_a_seed_is_always_the_same_world() -> None:
    def decisions(seed: int) -> list[Decision]:
        made: list[Decision] = []

        def noted(state: State, signals: Signals, now_s: float, tuning: Tuning) -> tuple[State, Decision]:
            after, decision = decide(state, signals, now_s, tuning)
            made.append(decision)
            return after, decision

        Simulation(seed, noted).run()
        return made

    once = decisions(7)
    assert once == decisions(7)
    assert once != decisions(8)
    assert len(once) > 120


def test_the_seeds_of_every_run_hold_every_kind_of_fault() -> None:
    plans = [draw_plan(seed) for seed in range(150)]
    assert {event.kind for plan in plans for event in plan.events} == set(KINDS)
    assert {kind for plan in plans for spell in plan.spells for kind, _ in spell.chances} == set(ON_SIGNALS)


def test_the_worlds_differ_in_what_matters() -> None:
    worlds = [World(draw_plan(seed)) for seed in range(150)]
    assert {len(world.envoys) for world in worlds} == {1, 2, 3}
    assert min(world.traffic.service_s for world in worlds) < 0.05
    assert max(world.traffic.service_s for world in worlds) > 5.0
    assert max(max(world.load) / world.settings.target for world in worlds) > 30
    assert {world.fleet.machine is None for world in worlds} == {True, False}


def test_load_rests_once_the_faults_are_over() -> None:
    for seed in range(20):
        plan = draw_plan(seed)
        load = draw_load(World(plan).rng, plan.faulty_s, plan.last_s, 50.0)
        assert len(load) == plan.last_s + 1
        assert min(load) >= 0
        assert max(load) <= 50.0
        assert len(set(load[plan.faulty_s :])) == 1


def test_a_failure_says_all_that_is_needed_to_see_it_again() -> None:
    def sheds(state: State, signals: Signals, now_s: float, tuning: Tuning) -> tuple[State, Decision]:
        return decide(State(pods=1), signals, now_s, tuning)

    with pytest.raises(Violated) as caught:
        Simulation(3, sheds).run()
    said = str(caught.value)
    assert said.startswith("seed 3, ")
    assert f"s: {caught.value.invariant}: " in said
    assert "Last decisions:\n" in said
    assert "TRIMTAB_FAULT_SEEDS=1 TRIMTAB_FAULT_FIRST=3 make test" in said
