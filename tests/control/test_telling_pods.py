"""A pod that is ready is told to Envoy at once, also while the looks at other endpoints take their time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from trimtab.control import reconcile
from trimtab.core.names import EndpointName
from trimtab.xds import snapshot
from trimtab.xds.snapshot import Snapshot
from trimtab.xds.world import World

IRIS, WINE = EndpointName("default", "iris"), EndpointName("default", "wine")


async def backends_become(plane: Any, count: int) -> None:
    async with asyncio.timeout(5):
        while True:
            plane.envoy.take()
            if len(plane.envoy.backends(IRIS)) == count:
                return
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("breaks", [False, True])
async def test_a_pod_that_got_ready_waits_for_no_look(
    plane: Any, spec: Any, monkeypatch: pytest.MonkeyPatch, breaks: bool
) -> None:
    plane.apply(spec(1), IRIS)
    plane.apply(spec(1, name="wine"), WINE)
    await plane.until(lambda: len(plane.envoy.backends(IRIS)) == 1)
    (revision,) = plane.reconciler._endpoints.revisions(IRIS).values()
    await plane.fleet.start_pod(revision.revision)
    reached, forever, views = asyncio.Event(), asyncio.Event(), plane.reconciler._views

    async def stuck(*_: object) -> None:
        reached.set()
        await forever.wait()

    def broken() -> Any:
        monkeypatch.setattr(plane.reconciler, "_views", views)
        plane.fleet.changed.set()
        raise OSError("the fleet cannot be seen")

    for name in (IRIS, WINE):
        plane.reconciler.live(name).still = None
    monkeypatch.setattr(plane.reconciler, "_endpoint", stuck)
    tasks = [asyncio.create_task(work) for work in (plane.reconciler.look(), plane.reconciler.tell_pods())]
    try:
        await reached.wait()
        plane.fleet.tick()
        if breaks:
            monkeypatch.setattr(plane.reconciler, "_views", broken)
        plane.fleet.changed.set()
        await backends_become(plane, 2)
        assert breaks or plane.envoy.news_at_s == plane.clock.now_s(), "for who measures how long that takes"
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_takes_long_to_build_is_not_waited_for(
    plane: Any, spec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new leader builds the routes of all endpoints; decisions go on meanwhile, and are told after that."""
    built, real = asyncio.Event(), plane.reconciler._publisher._built

    async def slow(world: World, new: int) -> Snapshot:
        await built.wait()
        return await real(world, new)

    monkeypatch.setattr(plane.reconciler._publisher, "_built", slow)
    monkeypatch.setattr(reconcile, "TOLD_WITHIN_S", 0.01)
    plane.apply(spec(1), IRIS)
    await plane.look(2)
    assert len(plane.fleet.alive(1, IRIS)) == 1
    plane.fleet.tick()
    for _ in range(3):
        await plane.look()
    assert len(plane.reconciler._telling) == 2, "one that is built, and one that waits for its turn"
    assert not plane.envoy.backends(IRIS)
    built.set()
    await backends_become(plane, 1)


async def test_of_pods_that_start_nothing_is_built(
    plane: Any, spec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has started for longer each second: that is nothing that Envoy knows."""
    plane.apply(spec(1), IRIS)
    plane.apply(spec(1, name="wine"), WINE)
    await plane.until(lambda: len(plane.envoy.backends(IRIS)) == len(plane.envoy.backends(WINE)) == 1)
    plane.apply(spec(1, low=3), IRIS)
    plane.apply(spec(1, low=3, name="wine"), WINE)
    await plane.look(2)
    assert len(plane.fleet.alive(1, IRIS)) == len(plane.fleet.alive(1, WINE)) == 3
    built, real = list[str](), snapshot._part
    monkeypatch.setattr(
        snapshot, "_part", lambda view, *rest: built.append(view.name.name) or real(view, *rest)
    )
    before = plane.reconciler._views()
    for _ in range(3):
        plane.clock.advance(1.0)
        await plane.look()
        assert all(now is then for now, then in zip(plane.reconciler._views(), before, strict=True))
    assert built == []
    plane.fleet.uris = {pod: "slow" if "iris" in pod else uri for pod, uri in plane.fleet.uris.items()}
    plane.fleet.tick()
    await plane.look()
    assert built == ["wine"]


@pytest.mark.parametrize("what", ["looks", "pods"])
async def test_what_took_long_is_followed_by_a_rest_as_long(
    plane: Any, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """So a control plane with much to do leaves half of a core, and does more at once."""
    rests, real = list[float](), asyncio.sleep

    async def slept(seconds: float) -> None:
        if seconds:
            rests.append(round(seconds, 6))
        await real(0)

    takes_s = [0.001, 0.05, 7.0, 0.001]

    async def work(*_: object) -> None:
        if not takes_s:
            raise asyncio.CancelledError
        plane.clock.advance(takes_s.pop(0))
        (plane.reconciler.wake if what == "looks" else plane.fleet.changed).set()

    monkeypatch.setattr(reconcile.asyncio, "sleep", slept)
    if what == "looks":
        monkeypatch.setattr(plane.reconciler, "look", work)
        for _ in range(4):
            await plane.reconciler._look_again()
        expected = [0.02, 0.15, reconcile.REST_MAX_S, 0.02]
    else:
        monkeypatch.setattr(plane.reconciler._publisher, "publish", work)
        plane.fleet.changed.set()
        with pytest.raises(asyncio.CancelledError):
            await plane.reconciler.tell_pods()
        expected = [0.005, 0.005, reconcile.PODS_REST_MAX_S, reconcile.PODS_REST_MAX_S, 0.005]
    assert rests == expected
