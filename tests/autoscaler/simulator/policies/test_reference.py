"""Fixed numbers, and what can be had by whoever knows the load."""

from __future__ import annotations

import numpy as np
import pytest

from trimtab.autoscaler.simulator.load import build_load
from trimtab.autoscaler.simulator.models import MODELS
from trimtab.autoscaler.simulator.policies.base import Wish
from trimtab.autoscaler.simulator.policies.catalog import parse
from trimtab.autoscaler.simulator.policies.reference import Clairvoyant, Fixed, plan
from trimtab.autoscaler.simulator.run import run_policy
from trimtab.autoscaler.simulator.traces import Rates


def test_fixed_says_so_once_and_within_the_range(setting, tick) -> None:
    policy = Fixed(setting(pods_max=10), 12)
    assert [policy.step(tick(i / 2), ()) for i in (1, 2)] == [Wish(10, 4), None]
    assert Fixed(setting(pods_min=3), 1).step(tick(0.5), ()) == Wish(3, 4)


def test_clairvoyant_asks_a_cold_start_and_its_spread_before(setting) -> None:
    offered = [3.0] * 100 + [30.0] * 100
    wanted = plan(setting(offered=offered, cold_start_s=20.0))
    assert wanted[72] == 1
    assert wanted[73] == 9  # 30 + 0.5 √30 by 4; 27 s ahead: 1.3 starts and one second
    assert wanted[199] == 9


def test_clairvoyant_keeps_pods_over_a_dip_not_longer_than_a_start(setting) -> None:
    def offered(dip: int) -> list[float]:
        return [30.0] * 100 + [3.0] * dip + [30.0] * 100

    assert min(plan(setting(offered=offered(25), cold_start_s=20.0))) == 9
    assert min(plan(setting(offered=offered(60), cold_start_s=20.0))) == 1


def test_clairvoyant_lets_what_may_wait_flow_into_the_next_second(setting) -> None:
    """A second with twice the load: late after 0.2 s in the class cpu, but not where requests take 2 s."""
    offered = [16.0] * 50 + [32.0] + [16.0] * 50
    assert max(plan(setting(offered=offered))) == 9
    assert max(plan(setting(offered=offered, service_time_s=2.0))) == 6


def test_clairvoyant_decides_each_second_and_knows_no_more_than_the_load(setting, tick) -> None:
    policy = Clairvoyant(setting(offered=[8.0] * 10, phase_s=13.3))
    made = [(i / 2, policy.step(tick(i / 2), ())) for i in range(1, 50)]
    wishes = [(at_s, wish) for at_s, wish in made if wish is not None]
    assert [at_s for at_s, _ in wishes[:3]] == [0.5, 1.5, 2.5]
    assert wishes[-1] == (24.5, Wish(3, 4))  # after the load's end as in its last second
    with pytest.raises(ValueError, match="offered"):
        Clairvoyant(setting())


@pytest.mark.parametrize("name", ["cpu", "gpu", "io"])
@pytest.mark.parametrize("cold_start_s", [2.0, 60.0])
def test_clairvoyant_is_hardly_ever_late_at_little_cost(name: str, cold_start_s: float) -> None:
    """Ten times the load and back, at random times within: nobody could be much better."""
    model = MODELS[name]
    shape = np.concatenate((np.full(300, 1.0), np.full(300, 10.0), np.full(300, 1.0)))
    load = build_load(Rates("step", shape), model, peak_pods=20, warmup_s=120.0, seed=5)
    score = run_policy(parse("clairvoyant"), load, model, cold_start_s=cold_start_s, seed=5).score
    assert score.late_share < 0.002
    assert score.cost < 1.4 + cold_start_s / 300  # of the 300 busy seconds, so many are start-up


def test_the_largest_ahead_is_what_a_plain_search_finds(setting) -> None:
    generator = np.random.default_rng(1)
    offered = generator.gamma(2.0, 10.0, 200).tolist()
    given = setting(offered=offered, cold_start_s=7.0, service_time_s=1.6, knee=1)
    width, ahead = 4, 11
    means = [sum(offered[i : i + width]) / len(offered[i : i + width]) for i in range(200)]
    for second, pods in enumerate(plan(given)):
        load = max(means[max(0, second - width) : second + ahead + 1])
        assert abs(pods - (load + 0.5 * load**0.5)) <= 1.0
