"""A start that takes far longer than starts take is replaced, long before its timeout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trimtab.control.limits import Limits
from trimtab.control.records import Outcome
from trimtab.core.names import EndpointName
from trimtab.core.pod import PodPhase

IRIS = EndpointName("default", "iris")
OVERDUE_S = 30  # the least, where starts take a second
Spec = Callable[..., Any]


@pytest.fixture
def plane(new_plane: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """One with a revision that serves, of which the pods in `plane.stalled` do not get ready."""
    monkeypatch.setattr(Limits, "look", lambda *_: None)
    made = new_plane(tmp_path, down_window_s=20.0)
    made.stalled = set()
    tick = made.fleet.tick

    def stalling_tick() -> None:
        held = {pod_id: made.fleet.there[pod_id] for pod_id in made.stalled & made.fleet.there.keys()}
        tick()
        starting = {pod_id: pod for pod_id, pod in held.items() if pod.phase is PodPhase.STARTING}
        made.fleet.there.update(starting)

    monkeypatch.setattr(made.fleet, "tick", stalling_tick)
    yield made
    made.close()


async def served(plane: Any, spec: Any) -> None:
    plane.apply(spec)
    await plane.until(lambda: plane.record().outcome is Outcome.SERVING)
    await plane.seconds(6)  # a decision: now it is known what a start takes


async def stall_next(plane: Any, version: int = 1) -> str:
    """Let the next pod that starts stall; its id."""
    await plane.until(lambda: any(pod.phase is PodPhase.STARTING for pod in plane.fleet.alive(version)))
    (late,) = [pod.id for pod in plane.fleet.alive(version) if pod.phase is PodPhase.STARTING]
    plane.stalled.add(late)
    return late


async def wants_two(plane: Any, spec: Spec) -> str:
    """Two pods are wanted, one is ready, and the other's start has stalled."""
    await served(plane, spec(1, low=1))
    plane.apply(spec(1, low=2))
    return await stall_next(plane)


async def test_a_stalled_start_is_replaced_and_ends_when_what_replaced_it_is_ready(
    plane: Any, spec: Spec
) -> None:
    late = await wants_two(plane, spec)
    await plane.seconds(OVERDUE_S - 2)
    assert len(plane.fleet.started) == 2, "it may be ready any moment"
    await plane.seconds(5)
    assert len(plane.fleet.started) == 3
    assert plane.phases(1) == ["ready", "ready"]
    assert late in plane.fleet.stopped
    await plane.seconds(60)
    assert (len(plane.fleet.started), plane.phases(1)) == (3, ["ready", "ready"])
    assert plane.endpoints.revisions(IRIS)[1].failures == 0


async def test_one_that_is_ready_after_all_stays_and_what_replaced_it_ends(plane: Any, spec: Spec) -> None:
    late = await wants_two(plane, spec)
    await plane.until(lambda: len(plane.fleet.started) == 3)
    plane.stalled = {plane.fleet.started[-1]}
    await plane.seconds(3)
    assert plane.fleet.stopped == [plane.fleet.started[-1]]
    assert sorted(pod.id for pod in plane.fleet.alive(1)) == sorted([plane.fleet.started[0], late])


async def test_where_all_starts_stall_each_is_replaced_once(plane: Any, spec: Spec) -> None:
    late = await wants_two(plane, spec)
    await plane.until(lambda: len(plane.fleet.started) == 3)
    plane.stalled.add(plane.fleet.started[-1])
    await plane.seconds(200)
    assert plane.phases(1) == ["ready", "starting", "starting"]
    plane.fleet.fail(late, "did not become ready within 300 s")
    await plane.seconds(10)
    assert len(plane.fleet.alive(1)) == 2, "what replaced it then is ready, and the other late one ended"
    assert len(plane.fleet.started) == 4


async def test_without_room_a_late_start_is_waited_for(plane: Any, spec: Spec) -> None:
    late = await wants_two(plane, spec)
    plane.fleet.room_pods = 0
    await plane.seconds(OVERDUE_S + 30)
    assert len(plane.fleet.started) == 2
    assert plane.reconciler.live(IRIS).capped_by == "this machine's memory"
    plane.stalled.clear()
    await plane.seconds(6)
    assert plane.reconciler.live(IRIS).capped_by == ""
    assert late in {pod.id for pod in plane.fleet.alive(1)}


async def test_a_late_start_is_replaced_after_a_restart_of_the_control_plane(plane: Any, spec: Spec) -> None:
    await wants_two(plane, spec)
    await plane.seconds(10)
    plane.kill()
    plane.start()
    await plane.seconds(OVERDUE_S)
    assert plane.phases(1) == ["ready", "ready"]


async def test_an_update_is_not_held_up_by_one_start_that_stalls(plane: Any, spec: Spec) -> None:
    await served(plane, spec(1, low=2))
    plane.apply(spec(2, low=2))
    await plane.look()
    plane.stalled.add(next(pod.id for pod in plane.fleet.alive(2)))
    await plane.until(lambda: plane.record().outcome is Outcome.SERVING, within_s=OVERDUE_S + 15)
    assert plane.envoy.serving() == 2


async def test_a_first_start_may_take_its_time(plane: Any, spec: Spec) -> None:
    plane.apply(spec("slow"))
    await plane.seconds(200)
    assert len(plane.fleet.started) == 1, "nobody knows yet what a start of it takes"
