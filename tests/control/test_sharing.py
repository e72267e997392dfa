"""Who gets the pods of a machine that does not hold all that is wanted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trimtab.autoscaler.horizontal import REST_WITHIN_S, Rest
from trimtab.control.limits import Limits
from trimtab.control.records import Outcome
from trimtab.control.replay import CHECKPOINT_EACH_S, replay
from trimtab.control.sharing import Sharing, Standing
from trimtab.core.names import EndpointName
from trimtab.core.revision import Revision
from trimtab.fleet.protocol import Room

A, B, C = (EndpointName("default", name) for name in ("a", "b", "c"))
MB = 1 << 20
Spec = Callable[..., Any]


def test_while_everybody_has_what_they_want_the_room_is_what_is_free() -> None:
    sharing = Sharing()
    sharing.note(A, Standing(1, 6, 6, 100))
    sharing.note(B, Standing(1, 2, 2, 100))
    free = Room(3, "this machine: …", 300, 100)
    assert sharing.room(B, 1, 2, free) is free
    sharing.note(B, Standing(1, 2, 4, 100))
    assert sharing.room(B, 1, 2, free) is free, "it is short itself, and nobody else"
    sharing.note(B, Standing(1, 4, 4, 100))
    assert sharing.room(A, 1, 6, free) is free


@pytest.mark.parametrize("room", [Room(None, "unknown"), Room(0, "full"), Room(5, "pods are counted")])
def test_where_nobody_counts_bytes_it_stays_first_come_first_served(room: Room) -> None:
    sharing = Sharing()
    sharing.note(A, Standing(1, 1, 9, 100))
    assert sharing.room(B, 1, 6, room) is room


def test_one_that_is_short_bounds_the_others_to_their_fair_share() -> None:
    sharing = Sharing()
    sharing.note(A, Standing(1, 2, 9, 100))
    bounded = sharing.room(B, 1, 6, Room(0, "this machine: full", 0, 100))
    assert bounded.pods == -2
    assert bounded.why == "this machine: its fair share is 4 of 8 pods"
    assert sharing.room(B, 1, 3, Room(3, "", 300, 100)).pods == 1
    sharing.forget(A)
    assert sharing.room(B, 1, 6, Room(0, "this machine: full", 0, 100)).pods == 0


def test_a_floor_that_waits_comes_before_what_others_want() -> None:
    sharing = Sharing()
    sharing.note(A, Standing(3, 0, 3, 100))
    assert sharing.room(B, 1, 8, Room(0, "", 0, 100)).pods == -3
    sharing.note(A, Standing(6, 0, 20, 100))
    assert sharing.room(B, 2, 8, Room(0, "", 0, 100)).pods == -6, "to its own floor"
    assert sharing.room(B, 6, 8, Room(0, "", 0, 100)).pods == -4, "and if not both fit, to half"


class Machine:
    """Memory of so many bytes in place of the fleet's count: a pod takes what its endpoint's name says."""

    def __init__(self, plane: Any, total: int, sizes: dict[EndpointName, int]) -> None:
        self.plane, self.total, self.sizes = plane, total, sizes
        plane.fleet.room = self.room

    def room(self, revision: Revision) -> Room:
        taken = sum(self.sizes[pod.revision.endpoint] for pod in self.plane.fleet.pods())
        each = self.sizes[revision.key.endpoint]
        free = max(0, self.total - taken)
        return Room(free // each, f"this machine: {free} free, a pod takes {each}", free, each)

    def pods(self, name: EndpointName) -> int:
        return sum(pod.revision.endpoint == name for pod in self.plane.fleet.pods())


@pytest.fixture
def plane(new_plane: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """One whose pods bear one request at a time, and are not found to bear more."""
    monkeypatch.setattr(Limits, "look", lambda *_: None)
    made = new_plane(tmp_path, down_window_s=20.0)
    yield made
    made.close()


async def served(plane: Any, name: EndpointName, spec: Any) -> None:
    plane.apply(spec, name)
    await plane.until(lambda: plane.record(name).outcome is Outcome.SERVING)


async def one_holds_all_but_one(plane: Any, spec: Spec) -> Machine:
    """A machine of eight pods, of which A has seven, as its load wants more of them than there are."""
    machine = Machine(plane, 800, {A: 100, B: 100})
    await served(plane, A, spec(1, name="a"))
    await served(plane, B, spec(1, name="b"))
    plane.load[A] = 12.0
    await plane.until(lambda: machine.pods(A) == 7)
    return machine


async def test_two_that_want_all_of_it_get_half_each_whoever_came_first(plane: Any, spec: Spec) -> None:
    machine = await one_holds_all_but_one(plane, spec)
    plane.load[B] = 12.0
    await plane.until(lambda: machine.pods(B) == 4)
    assert (machine.pods(A), machine.pods(B)) == (4, 4)
    for _ in range(60):
        await plane.seconds()
        assert (machine.pods(A), machine.pods(B)) == (4, 4), "and there it stays"
    told = plane.store.log.latest(A, 1, 1e12)[0]
    assert told.reason.endswith("capped by this machine: its fair share is 4 of 8 pods")
    assert told.reason.startswith("stays at 4: load wants 15")
    assert (told.pods, told.binds) == (4, "this machine")
    for name in (A, B):
        found = replay(plane.store.log.to_replay(name, 0.0, 1e12), {})
        assert [each.again for each in found.decisions] == [each.recorded for each in found.decisions]
    assert plane.reconciler.live(A).capped_by == "this machine: its fair share is 4 of 8 pods"
    plane.load[B] = 0.0
    await plane.until(lambda: machine.pods(A) == 7, within_s=120)


async def test_what_is_given_back_can_be_replayed_without_beginning_anew(plane: Any, spec: Spec) -> None:
    machine = await one_holds_all_but_one(plane, spec)
    plane.in_flight = dict.fromkeys([pod.address for pod in plane.fleet.pods()], 1)  # what leaves takes long
    plane.load[B] = 12.0
    await plane.seconds(100)
    plane.in_flight.clear()
    await plane.until(lambda: machine.pods(B) == 4)
    log = plane.store.log.to_replay(A, 0.0, 1e12)
    assert log[-1].message.at_s - log[0].message.at_s < CHECKPOINT_EACH_S
    assert sum(bool(entry.checkpoint) for entry in log) == 1
    found = replay(log, {})
    assert [each.again for each in found.decisions] == [each.recorded for each in found.decisions]


async def test_a_new_endpoint_gets_its_floor_from_one_that_holds_all(plane: Any, spec: Spec) -> None:
    machine = Machine(plane, 800, {A: 100, B: 100})
    await served(plane, A, spec(1, name="a"))
    plane.load[A] = 20.0
    await plane.until(lambda: machine.pods(A) == 8)
    plane.apply(spec(1, name="b", low=2), B)
    await plane.until(lambda: plane.record(B).outcome is Outcome.SERVING)
    await plane.until(lambda: machine.pods(B) == 2)
    await plane.seconds(30)
    assert (machine.pods(A), machine.pods(B)) == (6, 2)
    plane.endpoints.delete(B)
    await plane.until(lambda: machine.pods(A) == 8, within_s=120)


async def test_one_that_rests_on_its_floor_gives_back_to_a_new_one_without_waiting(
    plane: Any, spec: Spec
) -> None:
    machine = Machine(plane, 800, {A: 100, B: 100})
    await served(plane, A, spec(1, name="a", low=8))
    await plane.seconds(30)
    assert machine.pods(A) == 8
    began_s = plane.clock.now_s()
    plane.apply(spec(1, name="b", low=4), B)
    await plane.until(lambda: machine.pods(B) >= 1)
    assert plane.clock.now_s() - began_s < REST_WITHIN_S[Rest.UNTIL_ASKED], "void: a rest was over"
    await plane.until(lambda: (machine.pods(A), machine.pods(B)) == (4, 4))


async def test_one_that_cannot_start_keeps_nothing_from_the_others(plane: Any, spec: Spec) -> None:
    machine = Machine(plane, 800, {A: 100, B: 100})
    await served(plane, A, spec(1, name="a"))
    plane.load[A] = 20.0
    plane.apply(spec("bad", name="b", low=4), B)
    await plane.until(lambda: plane.record(B).outcome is Outcome.FAILED)
    await plane.until(lambda: machine.pods(A) == 8, within_s=120)


async def test_memory_is_what_is_shared_where_pods_differ_in_size(plane: Any, spec: Spec) -> None:
    machine = Machine(plane, 1_200, {A: 100, B: 300})
    await served(plane, A, spec(1, name="a"))
    await served(plane, B, spec(1, name="b"))
    plane.load[A] = plane.load[B] = 20.0
    await plane.until(lambda: (machine.pods(A), machine.pods(B)) == (6, 2), within_s=120)
    await plane.seconds(60)
    assert (machine.pods(A), machine.pods(B)) == (6, 2)
