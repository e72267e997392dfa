"""The compiled engine against a slow and obvious one, and against what queueing theory says."""

from __future__ import annotations

from math import factorial

import numpy as np
import pytest

from tests.autoscaler.simulator.reference import Reference
from trimtab.autoscaler.simulator.engine import Engine
from trimtab.autoscaler.simulator.kernel import (
    ARRIVALS,
    COMPLETIONS,
    IN_FLIGHT,
    IN_FLIGHT_S,
    QUEUED,
    QUEUED_S,
    REJECTED,
    REQUEST_TIME_S,
)
from trimtab.autoscaler.simulator.models import MODELS

FLAT = np.ones(65)  # requests do not slow each other down
REQUESTS = 200


def of(times_s: list[float], demands_s: list[float], *, pods: int = 1, queue_max: int = 100) -> Engine:
    engine = Engine(np.array(times_s), np.array(demands_s), FLAT, queue_max)
    for _ in range(pods):
        engine.add()
    return engine


def play(seed: int, both: tuple[Engine, Reference], limit_max: int) -> None:
    """The same random comings and goings for both, checked at each of them."""
    engine, reference = both
    rng = np.random.default_rng([seed, 1])
    there: list[int] = []
    while reference.now_s < 40.0:
        limit = int(rng.integers(1, limit_max + 1))
        until_s = reference.now_s + rng.exponential(0.5)
        for each in both:
            each.advance(until_s, limit)
        counts = engine.counts
        held = sum(reference.held(pod) for pod in there)
        assert (counts[IN_FLIGHT], counts[QUEUED]) == (held, len(reference.queue))
        assert [engine.held(pod) for pod in there] == [reference.held(pod) for pod in there]
        _change(rng, both, there)
    for each in both:  # what is there ends, unless nobody takes it
        each.advance(2_000.0, limit_max)


def _change(rng: np.random.Generator, both: tuple[Engine, Reference], there: list[int]) -> None:
    """A pod comes, drains, goes, or becomes slow, hangs or recovers."""
    kind = rng.choice(["add", "add", "drain", "remove", "factor"]) if there else "add"
    pod = int(rng.choice(there)) if there else -1
    factor = float(rng.choice([0.0, 0.3, 1.0]))
    for each in both:
        if kind == "add":
            pod = each.add()
        elif kind == "drain":
            each.drain(pod)
        elif kind == "remove":
            each.remove(pod)
        else:
            each.set_factor(pod, factor)
    if kind == "add":
        there.append(pod)
    elif kind == "remove":
        there.remove(pod)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("seed", range(12))
def test_every_latency_is_that_of_the_slow_and_obvious_queue(kind: str, seed: int) -> None:
    rng = np.random.default_rng([seed, 0])
    limit_max, queue_max = int(rng.integers(1, 13)), int(rng.choice([5, 20, 1000]))
    times_s = np.cumsum(rng.exponential(rng.choice([0.05, 0.2]), REQUESTS))
    demands_s = rng.exponential(0.5, REQUESTS)
    speeds = MODELS[kind].speeds(limit_max)
    both = Engine(times_s, demands_s, speeds, queue_max), Reference(times_s, demands_s, speeds, queue_max)
    play(seed, both, limit_max)
    engine, reference = both
    np.testing.assert_allclose(engine.latencies, np.array(reference.latencies), rtol=1e-5, atol=1e-5)
    assert reference.most_held <= limit_max
    done = engine.latencies[np.isfinite(engine.latencies)]
    assert done.size == engine.counts[COMPLETIONS] > 0
    assert engine.sums[REQUEST_TIME_S] == pytest.approx(done.sum(), rel=1e-4)


def test_more_pods_may_come_than_there_was_room_for() -> None:
    engine = of([0.0, 0.1, 0.2, 0.3], [1.0] * 4, pods=1, queue_max=2)
    engine.advance(0.5, 1)
    assert np.isinf(engine.latencies[3])
    assert np.isnan(engine.latencies[:3]).all()
    for _ in range(100):
        engine.add()
    engine.advance(10.0, 1)
    assert np.isfinite(engine.latencies[:3]).all()


def test_first_come_first_served_and_never_more_than_the_limit() -> None:
    engine = of([0.0, 0.1, 0.2, 0.3, 0.4], [1.0] * 5, pods=1)
    engine.advance(0.5, 2)
    assert engine.held(0) == 2
    assert engine.counts[QUEUED] == 3
    engine.advance(9.0, 2)
    np.testing.assert_allclose(engine.latencies, [1.0, 1.0, 1.8, 1.8, 2.6], rtol=1e-6)


def test_a_lower_limit_gives_a_pod_no_more_and_takes_nothing_away() -> None:
    engine = of([0.0] * 6, [1.0] * 6, pods=1)
    engine.advance(0.5, 4)
    engine.advance(1.5, 1)
    assert engine.held(0) == 1
    engine.advance(9.0, 1)
    np.testing.assert_allclose(np.sort(engine.latencies), [1.0, 1.0, 1.0, 1.0, 2.0, 3.0], rtol=1e-6)


def test_a_full_queue_rejects_and_counts_it() -> None:
    engine = of([0.0] * 8, [1.0] * 8, pods=1, queue_max=3)
    engine.advance(9.0, 2)
    counts = engine.counts
    assert (counts[ARRIVALS], counts[REJECTED], counts[COMPLETIONS]) == (5, 3, 5)
    assert np.isinf(engine.latencies).tolist() == [False] * 5 + [True] * 3


def test_no_pod_is_idle_while_a_request_waits() -> None:
    """Work conservation: the work done by three pods of limit 1 is what the time and the load allow."""
    rng = np.random.default_rng(5)
    times_s, demands_s = np.cumsum(rng.exponential(0.2, 500)), rng.exponential(1.0, 500)
    engine = Engine(times_s, demands_s, FLAT, 1000)
    pods = [engine.add() for _ in range(3)]
    for second in range(1, 100):
        engine.advance(float(second), 1)
        counts = engine.counts
        assert counts[QUEUED] == 0 or counts[IN_FLIGHT] == 3
    engine.advance(1e4, 1)
    assert sum(engine.pod_sums()[pod][1] for pod in pods) == pytest.approx(demands_s.sum())
    assert sum(engine.pod_sums()[pod][2] for pod in pods) == 500
    # Little: request-seconds in pods and queue are the sum of the latencies.
    assert engine.sums[IN_FLIGHT_S] + engine.sums[QUEUED_S] == pytest.approx(engine.sums[REQUEST_TIME_S])


def test_what_a_removed_pod_held_waits_again_before_all_others() -> None:
    engine = of([0.0, 0.1, 0.2], [1.0] * 3, pods=1)
    engine.advance(0.5, 2)
    engine.remove(0)
    assert (engine.counts[IN_FLIGHT], engine.counts[QUEUED]) == (0, 3)
    engine.advance(1.0, 2)
    engine.add()
    engine.advance(9.0, 2)  # both begin anew at 1.0, the third at 2.0
    np.testing.assert_allclose(engine.latencies, [2.0, 1.9, 2.8], rtol=1e-6)


def test_what_the_queue_has_no_room_for_when_a_pod_goes_is_lost() -> None:
    engine = of([0.0, 0.1, 0.2], [1.0] * 3, pods=1, queue_max=1)
    engine.advance(0.5, 2)
    engine.remove(0)
    assert np.isinf(engine.latencies).tolist() == [True, True, False]


def test_a_pod_that_hangs_keeps_what_it_holds_until_it_recovers() -> None:
    engine = of([0.0, 0.1], [1.0, 1.0], pods=2)
    engine.advance(0.5, 1)
    engine.set_factor(0, 0.0)
    engine.advance(5.0, 1)
    assert np.isnan(engine.latencies[0])
    assert engine.latencies[1] == pytest.approx(1.0)
    engine.set_factor(0, 1.0)
    engine.advance(9.0, 1)
    assert engine.latencies[0] == pytest.approx(5.5)


def test_a_slow_pod_takes_longer_for_what_is_left() -> None:
    engine = of([0.0], [1.0])
    engine.advance(0.5, 1)
    engine.set_factor(0, 0.25)
    engine.advance(9.0, 1)
    assert engine.latencies[0] == pytest.approx(0.5 + 0.5 / 0.25)


def test_a_draining_pod_ends_what_it_holds_and_gets_nothing() -> None:
    engine = of([0.0, 0.6], [1.0, 1.0])
    engine.advance(0.5, 4)
    engine.drain(0)
    engine.advance(3.0, 4)
    assert engine.latencies[0] == pytest.approx(1.0)
    assert (engine.held(0), engine.counts[QUEUED]) == (0, 1)


def test_without_a_pod_requests_wait_and_are_counted() -> None:
    engine = of([0.0, 1.0, 2.0], [1.0] * 3, pods=0, queue_max=2)
    engine.advance(5.0, 1)
    counts = engine.counts
    assert (counts[ARRIVALS], counts[QUEUED], counts[REJECTED], counts[IN_FLIGHT]) == (2, 2, 1, 0)
    assert engine.sums[QUEUED_S] == pytest.approx(5.0 + 4.0)
    engine.add()
    engine.advance(9.0, 1)
    np.testing.assert_allclose(engine.latencies, [6.0, 6.0, np.inf], rtol=1e-6)


def test_the_last_pod_may_go_and_the_next_one_come() -> None:
    engine = of([0.0, 4.0], [1.0, 1.0], pods=1)
    engine.advance(2.0, 1)
    engine.remove(0)
    engine.advance(6.0, 1)
    assert engine.counts[QUEUED] == 1
    assert engine.add() == 1, "a number is never used again"
    engine.advance(9.0, 1)
    assert engine.latencies[1] == pytest.approx(3.0)


# -- theory -------------------------------------------------------------------------------------


def erlang_c(servers: int, load: float) -> float:
    """Probability that a request has to wait in M/M/c (Erlang, 1917); `load` in requests in service."""
    own = load**servers / factorial(servers) * servers / (servers - load)
    return own / (sum(load**k / factorial(k) for k in range(servers)) + own)


def poisson(rate: float, number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Arrivals at `rate` and exponential demands of mean 1."""
    rng = np.random.default_rng(seed)
    return np.cumsum(rng.exponential(1 / rate, number)), rng.exponential(1.0, number)


@pytest.mark.parametrize(("servers", "used"), [(1, 0.5), (4, 0.8), (20, 0.9)])
def test_mean_wait_and_who_waits_are_those_of_mmc(servers: int, used: float) -> None:
    """400,000 requests; waits of neighbours go together, which leaves some 3 % of doubt at 90 %: 8 % here."""
    load = servers * used
    times_s, demands_s = poisson(load, 400_000, 7)
    engine = Engine(times_s, demands_s, FLAT, 100_000)
    for _ in range(servers):
        engine.add()
    engine.advance(1e9, 1)
    waits_s = engine.latencies - demands_s
    waits = erlang_c(servers, load)
    assert (waits_s > 1e-3).mean() == pytest.approx(waits, rel=0.08)
    assert waits_s.mean() == pytest.approx(waits / (servers - load), rel=0.08)


@pytest.mark.parametrize("used", [0.5, 0.8])
@pytest.mark.parametrize("spread", ["exponential", "constant", "twofold"])
def test_a_pod_that_is_shared_is_mg1_ps(used: float, spread: str) -> None:
    """Mean latency of processor sharing is demand / (1 - load), whatever the demands' spread (Kleinrock)."""
    times_s, demands_s = poisson(used, 300_000, 11)
    if spread == "constant":
        demands_s[:] = 1.0
    elif spread == "twofold":
        demands_s[:] = np.random.default_rng(3).choice([0.5, 5.5], demands_s.size, p=[0.9, 0.1])
    speeds = 1.0 / np.maximum(np.arange(1001), 1)
    engine = Engine(times_s, demands_s, speeds, 1000)
    engine.add()
    engine.advance(1e9, 1000)
    assert engine.latencies.mean() == pytest.approx(1.0 / (1.0 - used), rel=0.06)
    short = demands_s <= 0.5  # each request is slowed down alike, on average
    if short.any():
        slowed = (engine.latencies[short] / demands_s[short]).mean()
        assert slowed == pytest.approx(1.0 / (1.0 - used), rel=0.06)


def test_a_batch_gets_through_what_its_speeds_say() -> None:
    """A saturated gpu pod at its knee of 8 does 8 a second; at 16 no more, at 4 less."""
    gpu = MODELS["gpu"]
    done = {}
    for limit in (4, 8, 16):
        engine = Engine(np.zeros(10_000), np.ones(10_000), gpu.speeds(16), 10_000)
        engine.add()
        engine.advance(100.0, limit)
        done[limit] = engine.counts[COMPLETIONS] / 100.0
    assert done[8] == pytest.approx(8.0, rel=0.02)
    assert done[16] == pytest.approx(8.0, rel=0.02)
    assert done[4] == pytest.approx(4 * gpu.speed(4), rel=0.02)
