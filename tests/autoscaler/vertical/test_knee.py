"""The limit is found for models of every kind; the truth is found by trying all limits."""

from __future__ import annotations

import numpy as np
import pytest

from tests.autoscaler.vertical.models import (
    Rate,
    batching,
    cpu,
    hundredfold,
    hyperbolic,
    lognormal,
    rounded,
    thrashing,
    usl,
)
from tests.autoscaler.vertical.world import Loop, World, replaced
from trimtab.autoscaler.vertical import LimitSignals

KINDS: dict[str, Rate] = {
    "one core": cpu(1, 0.05),
    "two cores": cpu(2, 0.05),
    "three cores": cpu(3, 0.1),
    "four cores": cpu(4, 0.1),
    "eight cores": cpu(8, 0.2),
    "twelve cores": cpu(12, 0.2),
    "batches of 8, half of the time shared": batching(8, 0.5, 0.5),
    "batches of 8, nearly free": batching(8, 0.5, 0.2),
    "batches of 16": batching(16, 0.3, 0.1),
    "batches of 32": batching(32, 1.0, 0.7),
    "a smooth knee": rounded(8, 0.2),
    "locks": usl(0.1, 0.03, 0.001),
    "thrashing beyond 4": thrashing(4, 0.1, 1.0),
    "thrashing beyond 6": thrashing(6, 0.1, 2.0),
    "waiting for others, 100": cpu(100, 2.0),
    "waiting for others, 300": cpu(300, 2.0),
}


@pytest.mark.parametrize("start", [1, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_within_ten_decisions_at_the_smallest_limit_near_the_best(kind: str, start: int) -> None:
    loop = Loop(World(KINDS[kind], pods=2, limit=start)).run(11)
    assert loop.changes(1) == 0  # the tenth was the last to move it
    best, _ = loop.world.best()
    assert loop.world.rate(loop.limit) == pytest.approx(loop.world.rate(best), rel=0.05)
    assert loop.latency_share() <= 1.12  # while requests always wait: one of eight too many


@pytest.mark.parametrize("half", [4, 20])
def test_smooth_saturation(half: int) -> None:
    """It never ends: 97 % of the best in the range needs most of the range."""
    loop = Loop(World(hyperbolic(100, half), pods=2, limit=1, ceiling=64)).run(11)
    assert loop.changes(1) == 0
    assert loop.world.rate(loop.limit) == pytest.approx(loop.world.rate(loop.world.best()[0]), rel=0.05)
    assert loop.latency_share() <= 1.1


@pytest.mark.parametrize("seed", range(12))
def test_models_drawn_at_random(seed: int) -> None:
    rng = np.random.default_rng(seed)
    knee, service_s = int(np.exp(rng.uniform(0, np.log(64)))), float(np.exp(rng.uniform(np.log(0.05), 0)))
    kinds = [
        cpu(knee, service_s),
        batching(knee, service_s, rng.uniform(0.1, 0.9)),
        thrashing(knee, service_s, 0.5),
    ]
    rate = kinds[seed % 3]
    start = int(rng.integers(1, 9))
    loop = Loop(World(rate, lognormal(0.3), pods=3, limit=start, seed=seed)).run(12)
    assert loop.world.rate(loop.limit) >= 0.9 * loop.world.rate(loop.world.best()[0])
    assert loop.latency_share() <= 1.3  # one request of three or four


@pytest.mark.parametrize("costs", [lognormal(1.5), hundredfold], ids=["cv 1.5", "hundredfold"])
@pytest.mark.parametrize("kind", ["four cores", "eight cores", "batches of 8, half of the time shared"])
def test_noise_costs_some_precision_and_no_more(kind: str, costs: object) -> None:
    shares, latencies = [], []
    for seed in range(6):
        loop = Loop(World(KINDS[kind], costs, pods=3, limit=1, seed=seed)).run(11)  # type: ignore[arg-type]
        shares.append(loop.rate_share())
        latencies.append(loop.latency_share())
        assert loop.state.phase == "resting"
    assert np.mean(shares) >= 0.95
    assert min(shares) >= 0.85
    assert np.mean(latencies) <= 1.15


@pytest.mark.parametrize("start", [16, 64])
@pytest.mark.parametrize("knee", [1, 4, 12])
def test_a_first_guess_that_is_far_too_high_is_lowered(knee: int, start: int) -> None:
    loop = Loop(World(cpu(knee, 0.1), pods=2, limit=start)).run(14)
    assert loop.limit in {knee, round(knee * 1.3)}
    assert min(loop.limits()) >= max(1, knee // 4)


def test_works_from_envoy_alone() -> None:
    loop = Loop(World(cpu(6, 0.1), pods=3, limit=1, pods_report=False)).run(11)
    assert loop.limit == 6


def test_saturated_cores_end_the_doubling_sooner() -> None:
    """Beyond 6 throughput rises by 4 % with each doubling: not while the cores have nothing left."""

    def rate(n: float) -> float:
        return min(n, 6) / 0.1 * (1 + 0.06 * np.log2(max(1.0, n / 6)))

    free = Loop(World(rate, pods=3, limit=1)).run(11)
    busy = Loop(
        World(rate, pods=3, limit=1, metrics=lambda limit, n: {"cpu_cores": 4.0 * min(1.0, n / 6)})
    ).run(11)
    assert max(free.limits()) > max(busy.limits())
    assert busy.limit <= 10


@pytest.mark.parametrize("service_s", [5.0, 30.0])
@pytest.mark.parametrize("seed", range(3))
def test_few_long_requests_do_not_let_the_limit_run_away(seed: int, service_s: float) -> None:
    """Three a window tell nothing of one doubling, but eight times as many in flight without more do."""
    loop = Loop(World(cpu(1, service_s), pods=3, limit=1, seed=seed)).run(60)
    assert max(loop.limits()) <= 16
    assert loop.limit <= 4


@pytest.mark.parametrize("seed", range(1, 4))
def test_requests_of_minutes_that_began_together_do_not_let_the_limit_run_away(seed: int) -> None:
    """What completes two minutes after a doubling beyond the knee was let in before it, all at once: more
    than the limit gives. It once ended at nine to seventeen times the knee, of 50."""
    loop = Loop(World(cpu(50, 120.0), pods=3, limit=1, seed=seed)).onboard(120)
    assert loop.state.phase == "resting"
    assert 0.95 * 50 <= loop.limit <= 2.2 * 50
    assert any("began before the change to" in d.reason for d in loop.decisions)


def test_where_requests_are_said_to_take_longer_than_they_do_it_waits_twenty_minutes_at_most() -> None:
    def told(signals: LimitSignals) -> LimitSignals:
        return replaced(signals, request_time_s=1e5)

    loop = Loop(World(cpu(6, 0.1), pods=2, limit=1)).run(40 + 11, told)
    assert (loop.state.phase, loop.limit) == ("resting", 6)
    assert sum("began before the change" in d.reason for d in loop.decisions) == 40


@pytest.mark.parametrize("seed", range(3))
def test_a_doubling_that_brought_little_is_the_last_once_the_decisions_are_used_up(seed: int) -> None:
    loop = Loop(World(cpu(300, 5.0), pods=1, limit=1, seed=seed)).run(40)
    assert max(loop.limits()) == 512
    assert loop.limit == pytest.approx(300, rel=0.15)
