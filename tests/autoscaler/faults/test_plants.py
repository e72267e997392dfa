"""The fault simulation finds bugs: each planted one within the seeds of an ordinary run, by its own name."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.autoscaler.faults.plants import PLANTS
from tests.autoscaler.faults.simulation import Decide, Simulation, Violated

SEEDS = range(150)  # of an ordinary run, in which `decide` itself breaks nothing


@pytest.mark.parametrize("name", PLANTS)
def test_a_planted_bug_is_found(name: str, record_property: Callable[[str, object], None]) -> None:
    plant = PLANTS[name]
    seed, violated = first_violation(plant.decide)
    record_property("seed", seed)
    record_property("invariant", violated.invariant)
    assert violated.invariant in plant.breaks, violated
    assert f"seed {seed}, " in str(violated)
    Simulation(seed).run()  # it was the plant


def first_violation(decide: Decide) -> tuple[int, Violated]:
    for seed in SEEDS:
        try:
            Simulation(seed, decide).run()
        except Violated as violated:
            return seed, violated
    pytest.fail(f"not found in {len(SEEDS)} seeds")
