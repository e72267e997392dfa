"""Metrics in bands of their own: memory and cache lower the limit, GPU utilisation never does anything."""

from __future__ import annotations

import pytest

from tests.autoscaler.vertical.models import batching, cpu
from tests.autoscaler.vertical.world import Loop, World
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
