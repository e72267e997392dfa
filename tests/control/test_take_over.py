"""How many pods an update must have ready before it takes the traffic: as many as hold what that needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trimtab.control.limits import Limits
from trimtab.control.records import LearnedLimit, Outcome
from trimtab.control.view import target_concurrency
from trimtab.core.names import EndpointName

IRIS = EndpointName("default", "iris")
Spec = Callable[..., Any]


@pytest.fixture
def plane(new_plane: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """One whose limits stay as the test has them."""
    monkeypatch.setattr(Limits, "look", lambda *_: None)
    made = new_plane(tmp_path)
    yield made
    made.close()


def with_memory(spec: Any, gib: int) -> Any:
    model = spec.models[0]
    return replace(spec, models=(replace(model, resources=replace(model.resources, memory_bytes=gib << 30)),))


async def bears(plane: Any, spec: Any, limit: int) -> None:
    """Revision 1 serves, and a pod of it was found to bear so much."""
    plane.apply(spec)
    await plane.until(lambda: plane.record().outcome is Outcome.SERVING)
    plane.endpoints.put_revision(replace(plane.endpoints.revisions(IRIS)[1], learned_limit=limit))
    learn(plane, plane.endpoints.revisions(IRIS)[1].revision.hash, limit)


def learn(plane: Any, hash_: str, limit: int) -> None:
    plane.store.record([], [LearnedLimit(hash_, limit, "{}", plane.clock.wall_s())])


async def holds(plane: Any, load: float, pods: int) -> None:
    plane.load[IRIS] = load
    await plane.until(lambda: plane.phases(1).count("ready") >= pods)
    await plane.seconds(30)


def slots(plane: Any, number: int) -> int:
    """What the ready pods of a revision may hold."""
    revision = plane.endpoints.revisions(IRIS)[number]
    return plane.phases(number).count("ready") * target_concurrency(plane.record(), revision)


def wanted(plane: Any, number: int) -> int:
    return plane.endpoints.revisions(IRIS)[number].pods_wanted


async def takes_over(plane: Any, within_s: int = 90) -> int:
    """The slots with which revision 2 took the traffic."""
    await plane.until(lambda: plane.record().serving_revision == 2, within_s=within_s)
    return slots(plane, 2)


async def test_one_that_bears_less_takes_over_with_as_many_slots_as_the_traffic_needs(
    plane: Any, spec: Spec
) -> None:
    await bears(plane, spec(1, high=1000), 50)
    await holds(plane, 45.0, 1)
    plane.apply(with_memory(spec(2, high=1000), 1))
    assert target_concurrency(plane.record(), plane.endpoints.revisions(IRIS)[2]) == 1
    await plane.seconds(5)
    assert plane.record().serving_revision == 1, "few pods are ready, and they hold one request each"
    assert await takes_over(plane) >= 45
    await plane.until(lambda: plane.record().outcome is Outcome.SERVING)
    assert plane.phases(1) == ["ready"], "it left no sooner"


async def test_one_that_bears_more_takes_over_with_fewer_pods(plane: Any, spec: Spec) -> None:
    await bears(plane, spec(1, high=1000), 1)
    await holds(plane, 20.0, 20)
    plane.apply(spec(2, high=1000))
    known = plane.endpoints.revisions(IRIS)[2]
    plane.endpoints.put_revision(replace(known, learned_limit=50))
    assert await takes_over(plane) == 50
    assert sum("-r2-" in pod for pod in plane.fleet.started) == 1


async def test_a_quiet_one_needs_few_pods_however_much_the_old_one_could_hold(plane: Any, spec: Spec) -> None:
    await bears(plane, spec(1, high=1000), 50)
    await holds(plane, 0.5, 1)
    plane.apply(with_memory(spec(2, high=1000), 1))
    assert await takes_over(plane) <= 2


async def test_a_new_version_begins_with_what_the_old_one_bears(plane: Any, spec: Spec) -> None:
    await bears(plane, spec(1, high=1000), 50)
    await holds(plane, 45.0, 1)
    plane.apply(spec(2, high=1000))
    await plane.look()
    plane.kill()
    plane.start()
    plane.envoy.connected = True
    known = plane.endpoints.revisions(IRIS)[2]
    assert (known.learned_limit, target_concurrency(plane.record(), known)) == (0, 50)
    assert await takes_over(plane) == 50
    assert plane.store.learned(known.revision.hash) is None, "it is a guess, nothing that was learned"


async def test_after_a_restart_in_mid_rollout_all_that_is_held_may_be_needed(plane: Any, spec: Spec) -> None:
    await bears(plane, spec(1, high=1000), 4)
    await holds(plane, 22.0, 6)
    held = wanted(plane, 1) * 4
    plane.apply(with_memory(spec(2, high=1000), 1))
    await plane.seconds(2)
    plane.kill()
    plane.start()
    await plane.look(2)
    assert wanted(plane, 2) == held, "Envoy has not come back: nothing else is known"
    plane.envoy.connected = True
    assert 22 <= await takes_over(plane) <= held


async def test_a_range_and_a_ceiling_bound_what_is_needed(plane: Any, spec: Spec) -> None:
    await bears(plane, spec(1, high=1000), 50)
    await holds(plane, 45.0, 1)
    plane.apply(with_memory(spec(2, high=1000, max_pods=3), 1))
    assert await takes_over(plane) == 3
    plane.load.clear()
    assert wanted(plane, 2) == 3


async def test_an_update_that_the_machine_cannot_hold_waits_and_says_so(plane: Any, spec: Spec) -> None:
    await bears(plane, spec(1, high=1000), 50)
    await holds(plane, 45.0, 1)
    plane.fleet.room_pods = 10
    plane.apply(with_memory(spec(2, high=1000), 1))
    await plane.seconds(30)
    assert (plane.record().serving_revision, slots(plane, 2)) == (1, 10)
    assert plane.reconciler.live(IRIS).capped_by == "this machine's memory"
    plane.load.clear()
    plane.fleet.room_pods = 60
    await takes_over(plane)


async def test_a_wider_range_does_not_keep_the_traffic_from_an_update(plane: Any, spec: Spec) -> None:
    await bears(plane, spec(1), 1)
    plane.fleet.room_pods = 4
    plane.apply(spec(2, low=8))
    assert await takes_over(plane) <= 2, "what the traffic needs, not all that the range asks for"
