"""Metrics in bands of their own: memory and cache lower the limit, GPU utilisation never does anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import log2
from typing import Any

import pytest

from tests.autoscaler.vertical.models import batching, cpu
from tests.autoscaler.vertical.world import Loop, World
from trimtab.autoscaler.vertical import DEFAULT, Learned, LimitState, learned, resume
from trimtab.autoscaler.vertical.metrics import Metrics
from trimtab.autoscaler.vertical.stress import press, saturated
from trimtab.core.signals import GpuSignal

GB = 1e9


def test_memory_that_grows_with_the_limit_lowers_it_for_good() -> None:
    world = World(
        cpu(32, 0.2),
        pods=2,
        limit=4,
        memory_limit_bytes=10 * GB,
        metrics=lambda limit, n: {"memory_bytes": 2 * GB + 0.5 * GB * n},
    )
    loop = Loop(world).run(60)
    assert 8 <= loop.limit <= 15  # 9 GB hold 14
    assert loop.changes(40) == 0
    lowered = next(d for d in loop.decisions if d.rule == "memory")
    assert lowered.reason.startswith("goes from 16 to 12: memory is at 100% of what the pod may use")


def test_memory_that_is_full_at_any_limit_costs_one_step() -> None:
    world = World(
        cpu(8, 0.2),
        pods=2,
        limit=8,
        memory_limit_bytes=10 * GB,
        metrics=lambda limit, n: {"memory_bytes": 9.3 * GB},
    )
    loop = Loop(world).run(60)
    assert [d.rule for d in loop.decisions].count("memory") == 1
    assert loop.limit >= 6


def test_a_full_cache_with_a_queue_in_the_server_lowers_to_what_it_runs() -> None:
    loop = Loop(World(batching(40, 1.0, 0.5), pods=2, limit=32)).onboard(4)
    before = loop.limit
    loop.world.metrics = lambda limit, n: {"cache_used": min(1.0, n / 20), "queued": max(0.0, n - 20)}
    loop.run(6)
    assert loop.limit < before
    assert any("the key-value cache is" in d.reason for d in loop.decisions)
    loop.run(30)
    assert 12 <= loop.limit <= 22


def test_a_full_cache_without_a_queue_is_well_used() -> None:
    world = World(cpu(8, 0.2), pods=2, limit=8, metrics=lambda limit, n: {"cache_used": 0.97, "queued": 0.0})
    assert Loop(world).run(12).limit == 8


def gpu_memory(limit: int, in_flight: float) -> dict[str, object]:
    """16 of 80 GB for the model, and 2 more for each request."""
    used = min(79.9, 16.0 + 2.0 * in_flight)
    return {"gpu": GpuSignal(memory_used_bytes=used * GB, memory_free_bytes=(80.0 - used) * GB)}


def test_gpu_memory_that_grows_with_the_limit_holds_it_down() -> None:
    loop = Loop(World(batching(60, 1.0, 0.3), pods=2, limit=8, metrics=gpu_memory)).run(60)
    assert 16 <= loop.limit <= 28  # 72 GB hold 28
    assert loop.changes(40) == 0
    lowered = next(d for d in loop.decisions if d.rule == "gpu memory")
    assert lowered.reason == (
        "goes from 32 to 24: the GPU's memory is 100% full, and grew with the requests in flight"
    )
    assert dict(lowered.inputs)["gpu_memory_share"] == pytest.approx(0.999, abs=0.01)
    again = resume(Learned.from_json(learned(loop.state).to_json()))
    assert again.gpu_memory_least == pytest.approx(0.4, abs=0.02), "after a restart too"


@pytest.mark.parametrize("share", [0.9, 0.97, 0.995])
def test_gpu_memory_taken_at_the_start_is_no_stress(share: float) -> None:
    """As vLLM and TensorFlow do. A little more or less of it is none either."""
    full = Loop(
        World(
            batching(8, 0.5, 0.5),
            pods=2,
            limit=1,
            metrics=lambda limit, n: {
                "gpu": GpuSignal(
                    memory_used_bytes=(share - 0.01 + 0.001 * min(n, 10)) * 80 * GB,
                    memory_free_bytes=(1.01 - share - 0.001 * min(n, 10)) * 80 * GB,
                )
            },
        )
    ).run(20)
    plain = Loop(World(batching(8, 0.5, 0.5), pods=2, limit=1)).run(20)
    assert full.limits() == plain.limits()


def slow_growth(n: float) -> float:
    """Beyond 6 throughput rises by 4 % with each doubling."""
    return min(n, 6) / 0.1 * (1 + 0.06 * log2(max(1.0, n / 6)))


SATURATED: dict[str, Callable[[float], dict[str, Any]]] = {
    "cores": lambda n: {"cpu_cores": 4.0 * n},
    "compute": lambda n: {"gpu": GpuSignal(tensor_active=0.9 * n, fp16_active=0.1)},
    "half precision": lambda n: {"gpu": GpuSignal(tensor_active=0.0, fp16_active=0.9 * n)},
    "bandwidth": lambda n: {"gpu": GpuSignal(memory_bandwidth=0.8 * n)},
    "I/O": lambda n: {"io_wait": 0.8 * n},
}


@pytest.mark.parametrize("what", SATURATED)
def test_what_is_saturated_lets_a_small_gain_be_chance(what: str) -> None:
    def metrics(limit: int, in_flight: float) -> dict[str, object]:
        return SATURATED[what](min(1.0, in_flight / 6))

    free = Loop(World(slow_growth, pods=3, limit=1)).run(11)
    busy = Loop(World(slow_growth, pods=3, limit=1, metrics=metrics)).run(11)
    assert max(busy.limits()) < max(free.limits())
    assert busy.limit <= 10
    assert any(" saturated" in d.reason or "tasks wait for I/O" in d.reason for d in busy.decisions)


@pytest.mark.parametrize("what", ["compute", "half precision", "bandwidth"])
def test_what_saturates_a_gpu_that_others_share_is_not_this_pods(what: str) -> None:
    def metrics(limit: int, in_flight: float) -> dict[str, object]:
        gpu = SATURATED[what](1.0)["gpu"]
        return {
            "gpu": replace(gpu, pods=3, memory_used_bytes=(0.5 + 0.01 * limit) * GB, memory_free_bytes=1e6)
        }

    free = Loop(World(slow_growth, pods=3, limit=1)).run(11)
    shared = Loop(World(slow_growth, pods=3, limit=1, metrics=metrics)).run(11)
    assert shared.limits() == free.limits()
    inputs = dict(shared.decisions[-1].inputs)
    assert inputs["gpu_pods"] == 3
    assert inputs["gpu_memory_share"] == pytest.approx(1.0, abs=0.01), "shown all the same"


def test_a_gpu_that_is_no_longer_told_of_stays_what_it_was() -> None:
    """An exporter that is away for a minute is unknown, and no relief."""
    state = press(LimitState(), Metrics(compute=0.9, gpu_pods=1.0), DEFAULT)
    assert saturated(state.pressed, Metrics(compute=0.9, gpu_pods=1.0))
    state = press(state, Metrics(), DEFAULT)
    assert [each.metric for each in state.pressed] == ["compute"]


@pytest.mark.parametrize("utilisation", [0.2, 0.9, 1.0, None])
def test_gpu_utilisation_decides_nothing(utilisation: float | None) -> None:
    world = World(
        batching(8, 0.5, 0.5),
        pods=2,
        limit=2,
        metrics=lambda limit, n: {"gpu": GpuSignal(utilisation=utilisation, engine_active=0.95)},
    )
    plain = Loop(World(batching(8, 0.5, 0.5), pods=2, limit=2)).run(12)
    assert Loop(world).run(12).limits() == plain.limits()


@pytest.mark.parametrize("each", [1e8, 2e7, 5e6])
@pytest.mark.parametrize("kept", [False, True], ids=["given back", "kept"])
def test_a_doubling_that_memory_has_no_room_for_is_not_tried(each: float, kept: bool) -> None:
    """Twice the requests that took 84 % are killed. There is room for 8, 40 and 160 of them, not for 300."""
    most = 0.0

    def used(limit: int, in_flight: float) -> dict[str, object]:
        nonlocal most
        now = 2e8 + each * in_flight
        most = max(most, now)
        return {"memory_bytes": most if kept else now}

    loop = Loop(World(cpu(300, 3.0), pods=1, limit=1, memory_limit_bytes=1e9, metrics=used)).run(40)
    assert most < 0.9 * 1e9
    assert loop.state.phase == "resting"
    assert 0.5 <= loop.limit * each / 1e9 <= 0.7, "with 200 MB of its own it is short of where memory presses"


def test_memory_that_the_first_requests_took_once_holds_nothing_down() -> None:
    """Caches fill up: 30 % more with the second request, and nothing with the next hundred."""
    loop = Loop(
        World(
            cpu(64, 0.5),
            pods=1,
            limit=1,
            memory_limit_bytes=1e9,
            metrics=lambda limit, n: {"memory_bytes": 3e8 if limit < 2 else 6e8},
        )
    ).run(12)
    assert loop.limit == pytest.approx(64, abs=2)
