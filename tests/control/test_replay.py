"""Decisions made once more: exactly as they were, and with other constants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, make_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from trimtab.autoscaler.horizontal import State, Tuning
from trimtab.control import replay as replays
from trimtab.control.decisions import Logged
from trimtab.control.packing import Unreadable, layout, pack, unpack
from trimtab.control.records import Outcome
from trimtab.control.replay import CHECKPOINT_EACH_S, Checkpoint, checked, constants, replay, replay_message
from trimtab.core.errors import Exhausted, InvalidInput
from trimtab.core.names import EndpointName

IRIS = EndpointName("default", "iris")
Spec = Callable[..., Any]


def logged(plane: Any, since_s: float = 0.0) -> list[Logged]:
    return plane.store.log.to_replay(IRIS, since_s, 1e12)


def checkpoints(log: list[Logged]) -> list[Checkpoint]:
    return [unpack(Checkpoint, entry.checkpoint[8:]) for entry in log if entry.checkpoint]


async def lived(plane: Any, spec: Spec) -> None:
    """A load that rises and falls, a new revision, a ceiling, no room, and two ends of the control plane."""
    plane.apply(spec(1, high=40))
    await plane.until(lambda: plane.record().outcome is Outcome.SERVING)
    for load in (3.0, 12.0, 0.0):
        plane.load[IRIS] = load
        await plane.seconds(40)
    plane.apply(spec(2, high=40))
    await plane.seconds(60)
    plane.kill()
    plane.start()
    await plane.seconds(12)
    plane.envoy.connected = True
    plane.load[IRIS] = 6.0
    await plane.seconds(200)
    plane.fleet.room_pods = 1
    plane.load[IRIS] = 30.0
    await plane.seconds(40)
    plane.apply(spec(2, high=40, max_pods=3))
    await plane.seconds(200)
    plane.kill()
    plane.start()
    plane.envoy.connected = True
    await plane.seconds(20)


@pytest.fixture
async def past(new_plane: Callable[..., Any], tmp_path: Path, spec: Spec) -> Any:
    plane = new_plane(tmp_path, down_window_s=30.0)
    await lived(plane, spec)
    yield plane
    plane.close()


async def test_with_the_same_constants_the_very_same_decisions_come_out(past: Any) -> None:
    log = logged(past)
    found = replay(log, {})
    assert found.unreadable == ()
    assert len(found.decisions) == len(log) > 100
    for each in found.decisions:
        assert each.again == each.recorded, "every word of it"
    assert len({each.recorded.pods for each in found.decisions}) > 3
    assert {each.recorded.rule for each in found.decisions} >= {"load", "window", "down", "unknown"}
    begun = [checkpoint.begins for checkpoint in checkpoints(log)]
    assert begun.count(True) == 4, "the first start, the second revision, and two starts of the control plane"
    assert begun.count(False) >= 1
    assert {checkpoint.tuning.down_window_s for checkpoint in checkpoints(log)} == {30.0}


async def test_a_state_that_is_carried_on_is_the_one_that_was_there(past: Any) -> None:
    """Without the checkpoints between, the same decisions come out: nothing else bears on them."""
    bare = [
        replace(entry, checkpoint=b"" if entry.checkpoint and not _begins(entry) else entry.checkpoint)
        for entry in logged(past)
    ]
    assert replay(bare, {}) == replay(logged(past), {})


def _begins(entry: Logged) -> bool:
    return unpack(Checkpoint, entry.checkpoint[8:]).begins


async def test_other_constants_decide_otherwise(past: Any) -> None:
    log = logged(past)
    slow = replay(log, {"down_window_s": 600.0})
    differing = [each for each in slow.decisions if each.differs]
    assert differing
    assert all(each.again.pods >= each.recorded.pods for each in differing), "it removes pods later"
    assert all(each.again.at_s == each.recorded.at_s for each in differing)
    told = replay_message(slow, log[20].message.at_s)
    assert (told.decisions, told.decisions_differing) == (
        len(log) - 20,
        sum(each.differs for each in slow.decisions[20:]),
    )
    assert told.since_s == log[20].message.at_s
    first = next(each for each in slow.decisions[20:] if each.differs)
    assert (told.differing[0].pods, told.differing[0].pods_replayed) == (
        first.recorded.pods,
        first.again.pods,
    )
    assert told.differing[0].reason_replayed == first.again.reason != told.differing[0].reason


async def test_a_decision_that_was_not_recorded_ends_what_can_be_carried_on(
    plane: Any, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane.apply(spec(1))
    await plane.seconds(30)
    with monkeypatch.context() as patch:
        patch.setattr(plane.store, "record", _full)
        plane.load[IRIS] = 6.0
        await plane.seconds(12)
    await plane.seconds(30)
    log = logged(plane)
    assert [checkpoint.begins for checkpoint in checkpoints(log)] == [True, True]
    assert all(each.again == each.recorded for each in replay(log, {}).decisions)


def _full(logged: Any, learned: Any) -> None:
    raise Exhausted("the disk is full")


async def test_a_checkpoint_each_few_minutes(plane: Any, spec: Spec) -> None:
    plane.apply(spec(1))
    await plane.seconds(3 * int(CHECKPOINT_EACH_S) + 20)
    log = logged(plane)
    times = [entry.message.at_s for entry in log if entry.checkpoint]
    assert len(times) == 4
    late = replay(logged(plane, since_s=times[2] + 30.0), {})
    assert late.decisions[0].recorded.at_s == times[2]
    assert [each.again for each in late.decisions] == [each.recorded for each in late.decisions]


async def test_what_another_version_wrote_is_counted_and_passed_over(past: Any) -> None:
    log = logged(past)
    at = [index for index, entry in enumerate(log) if entry.checkpoint]
    log[at[0]] = replace(log[at[0]], checkpoint=b"00000000" + log[at[0]].checkpoint[8:])
    found = replay(log, {})
    assert found.unreadable == tuple(entry.message for entry in log[: at[1]])
    assert [each.recorded for each in found.decisions] == [entry.message for entry in log[at[1] :]]
    broken = [replace(entry, given=b"nonsense") if index == 3 else entry for index, entry in enumerate(log)]
    assert len(replay(broken, {}).unreadable) == at[1]
    told = replay_message(found, log[2].message.at_s)
    assert told.decisions_unreadable == at[1] - 2, "what only leads up to the time asked for is not counted"
    old = [replace(entry, checkpoint=entry.checkpoint and b"00000000") for entry in log]
    told = replay_message(replay(old, {"headroom": 1.0}), 0.0)
    assert (told.decisions, told.decisions_unreadable) == (0, len(log))


def test_the_layout_follows_each_type_within() -> None:
    """A field more, of another name or of another type, also deep inside: it is another layout."""
    inner: list[list[tuple[str, Any]]] = [
        [("seen", float)],
        [("seen", int)],
        [("heard", float)],
        [("seen", float), ("kept", tuple[int, ...])],
    ]
    kinds = [make_dataclass("Inner", told) for told in inner]
    states = [make_dataclass("State", [("pods", int), ("held", tuple[kind, ...] | None)]) for kind in kinds]
    assert len({layout(state) for state in states}) == len(inner)
    assert layout(make_dataclass("Tuning", [("new_s", float, 1.0)], bases=(Tuning,), frozen=True)) != layout(
        Tuning
    )


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"up_window": 10.0}, "`up_window` is not a constant"),
        ({"up_window_s": 2.5}, "up_window_s is 2.5"),
        ({"headroom": -1.0}, "headroom is -1"),
        ({"headroom": float("nan")}, "headroom is nan"),
        ({"growth": float("inf")}, "growth is inf"),
    ],
)
def test_a_constant_that_makes_no_sense_is_refused_in_words(changed: dict[str, float], says: str) -> None:
    with pytest.raises(InvalidInput, match=says) as caught:
        checked(changed)
    assert caught.value.hint
    assert checked({"up_window_s": 10.0, "headroom": 0.0}) == {"up_window_s": 10, "headroom": 0.0}
    assert isinstance(checked({"up_window_s": 10.0})["up_window_s"], int)


async def test_constants_with_which_nothing_can_be_decided_are_named(past: Any) -> None:
    for name in ("short_window_s", "drain_s", "forget_s", "slow_window_s", "up_window_s", "settle_requests"):
        try:
            replay(logged(past), {name: 0.0})
        except InvalidInput as error:
            assert f"{name}=0" in error.message  # noqa: PT017 - some may well be 0


def test_every_constant_is_described() -> None:
    assert [name for name, _, _ in constants()] == [field.name for field in fields(Tuning)]
    for name, value, what in constants():
        assert value == getattr(Tuning(), name)
        assert 10 < len(what) < 200, name
    with pytest.raises(InvalidInput) as caught:
        checked({"": 1.0})
    assert all(name in caught.value.hint for name, _, _ in constants())


def test_bytes_of_another_shape_are_not_misread() -> None:
    packed = pack(Checkpoint(True, Tuning(), State(pods=3, demand=0.1 + 0.2)))
    assert unpack(Checkpoint, packed) == Checkpoint(True, Tuning(), State(pods=3, demand=0.1 + 0.2))
    for kind in (replays.Given, Tuning, State):
        with pytest.raises(Unreadable):
            unpack(kind, packed)
    with pytest.raises(Unreadable):
        unpack(Checkpoint, packed[:-3])
