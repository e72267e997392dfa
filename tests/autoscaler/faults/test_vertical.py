"""The invariants of `decide_limit` under random faults, and that the simulation finds planted bugs."""

from __future__ import annotations

import pytest

from tests.autoscaler.faults.seeds import FIRST, SEEDS
from tests.autoscaler.faults.simulation import Violated
from tests.autoscaler.faults.vertical_plants import PLANTS
from tests.autoscaler.faults.vertical_simulation import DecideLimit, LimitSimulation

EACH = 8  # seeds of the horizontal axis for one of this: each simulates hours
SHARE = 10
ONCE_BROKEN = (30103, 50101, 50108, 51083, 51140, 51444, 51563, 51919, 60015, 60101, 60143, 60306, 60444)
ONCE_BROKEN += (60544, 60803, 60949, 60967, 60980, 80669, 80709)
ONCE_BROKEN += (51193, 60502, 4000088, 7000051)
"""Seeds in which a poisonous minute, one bad pod of two, a range that was narrow while exploring or an Envoy
that was late to take a limit once left it where it was, at 1 to 79 % of the best throughput."""
SHARES = [
    range(begin, min(begin + SHARE, FIRST + max(1, SEEDS // EACH)))
    for begin in range(FIRST, FIRST + max(1, SEEDS // EACH), SHARE)
]


@pytest.mark.parametrize("seeds", SHARES, ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_faults_break_no_invariant_of_the_limit(seeds: range) -> None:
    for seed in seeds:
        LimitSimulation(seed).run()


@pytest.mark.parametrize("seed", ONCE_BROKEN)
def test_what_a_disturbed_exploration_found_is_not_kept_for_ever(seed: int) -> None:
    LimitSimulation(seed).run()


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_of_the_limit_is_found(plant: DecideLimit) -> None:
    seed, violated = first_violation(plant)
    assert violated.invariant in PLANTS[plant], violated
    assert f"seed {seed}, " in str(violated)
    LimitSimulation(seed).run()  # it was the plant


def first_violation(decide: DecideLimit) -> tuple[int, Violated]:
    for seed in range(20):
        try:
            LimitSimulation(seed, decide).run()
        except Violated as violated:
            return seed, violated
    pytest.fail("not found in 20 seeds")
