"""An endpoint of which nothing has changed is only decided on; whatever changes is seen at once."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.kube.words import until
from tests.turns import Turns, turning
from trimtab.autoscaler.horizontal import REST_WITHIN_S, Rest
from trimtab.control import reconcile
from trimtab.control.draining import Step
from trimtab.control.records import Outcome
from trimtab.core.names import EndpointName
from trimtab.core.pod import PodPhase

Spec = Callable[..., Any]
IRIS = EndpointName("default", "iris")


class Counted:
    """The endpoints that were looked at, in order."""

    def __init__(self, plane: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        real = plane.reconciler._endpoint

        async def looked_at(name: EndpointName, *rest: Any) -> None:
            self.names.append(name.name)
            await real(name, *rest)

        monkeypatch.setattr(plane.reconciler, "_endpoint", looked_at)

    def taken(self) -> list[str]:
        found, self.names = self.names, []
        return found


async def _served(plane: Any, spec: Spec, *names: str) -> None:
    for name in names:
        plane.apply(spec(1, name=name), EndpointName("default", name))
    known = [EndpointName("default", name) for name in names]
    await plane.until(lambda: all(plane.record(name).outcome is Outcome.SERVING for name in known))
    await plane.seconds(2)


async def test_between_decisions_nothing_is_looked_at(
    plane: Any, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _served(plane, spec, "iris")
    plane.load[IRIS] = 0.5
    await plane.seconds(20)
    counted, before = Counted(plane, monkeypatch), _decisions(plane)
    for _ in range(20):
        await plane.seconds()
    assert counted.taken() == []
    assert _decisions(plane) - before == 20 / 5


async def test_what_changes_is_looked_at_and_nothing_else(
    plane: Any, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _served(plane, spec, "iris", "wine")
    await plane.look()
    counted = Counted(plane, monkeypatch)
    await plane.look()
    assert counted.taken() == []
    [pod] = plane.fleet.alive(1)
    plane.fleet.there[pod.id] = reconcile.replace(pod, evicted=True)
    await plane.look()
    assert counted.taken() == ["iris"]
    plane.apply(spec(1, low=3), IRIS)
    await plane.look()
    assert counted.taken() == ["iris"]
    assert len(plane.fleet.alive(1)) > 1


async def test_a_pod_that_is_lost_is_replaced_at_the_next_look(plane: Any, spec: Spec) -> None:
    await _served(plane, spec, "iris")
    await plane.look()
    [pod] = plane.fleet.alive(1)
    plane.fleet.there[pod.id] = reconcile.replace(pod, phase=PodPhase.FAILED, cause="killed")
    await plane.look()
    assert [each.id for each in plane.fleet.alive(1)] != [pod.id]
    assert len(plane.fleet.alive(1)) == 1


async def test_a_spec_that_is_applied_again_is_decided_on_at_once(plane: Any, spec: Spec) -> None:
    await _served(plane, spec, "iris")
    await plane.look()
    before = _decisions(plane)
    plane.apply(spec(1), IRIS)
    await plane.look()
    assert _decisions(plane) == before + 1


def _decisions(plane: Any) -> int:
    samples = plane.metrics.decisions.collect()[0].samples
    counted = [each for each in samples if each.name.endswith("_total") and each.labels["axis"] == "pods"]
    return int(sum(each.value for each in counted))


async def test_load_that_jumps_is_decided_on_before_the_next_turn(plane: Any, spec: Spec) -> None:
    await _served(plane, spec, "iris")
    before = len(plane.fleet.alive(1))
    plane.load[IRIS] = 40.0
    await plane.seconds(4)
    assert len(plane.fleet.alive(1)) > before


async def test_a_decision_that_fails_is_told_and_disturbs_no_other(
    plane: Any, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _served(plane, spec, "iris", "wine")
    real = plane.scaling.decided

    def broken(record: Any, *rest: Any) -> Any:
        if record.name == IRIS:
            raise KeyError("a slip")
        return real(record, *rest)

    monkeypatch.setattr(plane.scaling, "decided", broken)
    plane.clock.advance(REST_WITHIN_S[Rest.UNTIL_ASKED])  # both are due
    before = _decisions(plane)
    await plane.look()
    assert "a slip" in plane.reconciler.live(IRIS).error
    assert _decisions(plane) == before + 1
    monkeypatch.undo()
    await plane.look()
    assert plane.reconciler.live(IRIS).error == ""


async def test_decisions_of_many_are_spread_over_looks(
    plane: Any, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "DECISIONS_AT_ONCE_MAX", 2)
    await _served(plane, spec, *(f"e{number}" for number in range(5)))
    plane.reconciler.wake.clear()
    plane.clock.advance(REST_WITHIN_S[Rest.UNTIL_ASKED])  # all are due
    looks = []
    for _ in range(3):
        before = _decisions(plane)
        await plane.look()
        looks.append((_decisions(plane) - before, plane.reconciler.wake.is_set()))
        plane.reconciler.wake.clear()
    assert looks == [(2, True), (2, True), (1, False)]


async def test_decisions_of_many_leave_room_for_what_comes_meanwhile(
    plane: Any, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _served(plane, spec, *(f"e{number}" for number in range(3 * reconcile.TURN)))
    plane.clock.advance(REST_WITHIN_S[Rest.UNTIL_ASKED])  # all are due
    turns, decisions, real = Turns(), Counter[int](), plane.reconciler._decided_still

    def decided(name: EndpointName) -> bool:
        decisions[turns.count] += 1
        return bool(real(name))

    monkeypatch.setattr(plane.reconciler, "_decided_still", decided)
    with turning(turns):
        await plane.look()
    assert decisions.total() == 3 * reconcile.TURN
    assert max(decisions.values()) <= reconcile.TURN


async def test_one_that_waits_for_somebody_else_holds_up_no_other(
    plane: Any, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane.reconciler.at_once = 4
    answered, hangs = asyncio.Event(), 0
    real = plane.fleet.start_pod

    async def start(revision: Any) -> str:
        nonlocal hangs
        if revision.key.endpoint == IRIS:
            hangs += 1
            await answered.wait()
        return str(await real(revision))

    monkeypatch.setattr(plane.fleet, "start_pod", start)
    plane.apply(spec(1, name="iris"), IRIS)
    wine = EndpointName("default", "wine")
    plane.apply(spec(1, name="wine"), wine)
    await plane.until(lambda: plane.record(wine).outcome is Outcome.SERVING)
    assert plane.envoy.serving(wine) == 1
    assert hangs == 1, "it is not looked at again meanwhile"
    answered.set()
    await until(lambda: not plane.reconciler._looking)
    await plane.until(lambda: plane.record(IRIS).outcome is Outcome.SERVING)
    assert not plane.reconciler._looking


async def test_one_that_is_looked_at_in_vain_does_not_ask_for_another_look(plane: Any, spec: Spec) -> None:
    plane.reconciler.at_once = 4
    plane.apply(spec("slow"))
    await plane.look()
    plane.reconciler.wake.clear()
    for _ in range(3):
        await plane.look()
        assert not plane.reconciler._looking
    assert plane.reconciler.live(IRIS).still is None
    assert not plane.reconciler.wake.is_set()


async def test_one_that_waits_is_not_looked_at_again_whenever_something_else_happens(
    plane: Any, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _served(plane, spec, "wine")
    plane.apply(spec("slow"))
    for _ in range(3):
        await plane.look()
    counted = Counted(plane, monkeypatch)
    for _ in range(5):
        await plane.look()
    assert counted.taken() == []
    plane.clock.advance(reconcile.LOOK_EACH_S)
    await plane.look()
    assert counted.taken() == ["iris"], "there is more than what somebody tells of"
    [pod] = plane.fleet.alive(1)
    plane.fleet.there[pod.id] = reconcile.replace(pod, phase=PodPhase.READY, ready_at_s=plane.clock.wall_s())
    await plane.look()
    assert counted.taken() == ["iris"]
    assert plane.record(IRIS).serving_revision == 1


async def test_of_many_that_wait_a_few_are_looked_at_each_second_and_each_in_its_turn(
    plane: Any, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand that start would take most of a core; one of which there is news waits for none of them."""
    monkeypatch.setattr(reconcile, "AGAIN_PER_S", 2)
    monkeypatch.setattr(plane.fleet, "_aged", lambda pod: pod)  # time itself is no news: see `Ages`
    names = [f"e{number}" for number in range(7)]
    for name in names:
        plane.apply(spec("slow", name=name), EndpointName("default", name))
    await plane.look(3)
    counted = Counted(plane, monkeypatch)
    looked_at = []
    for _ in range(7):
        plane.clock.advance(1.0)
        await plane.look()
        looked_at.append(counted.taken())
    assert [len(each) for each in looked_at] == [2] * 7
    assert {*itertools.chain.from_iterable(looked_at[:4])} == {*names}
    pod = plane.fleet.alive(1, EndpointName("default", looked_at[-1][0]))[0]
    plane.fleet.there[pod.id] = reconcile.replace(pod, phase=PodPhase.READY, ready_at_s=plane.clock.wall_s())
    await plane.look()
    assert counted.taken()[0] == looked_at[-1][0]


async def test_one_that_is_not_on_record_yet_is_looked_at_once_it_is(
    plane: Any, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = False
    monkeypatch.setattr(plane.reconciler._endpoints, "recorded", lambda _: recorded)
    plane.apply(spec("slow"))
    for _ in range(3):
        await plane.look()
    counted = Counted(plane, monkeypatch)
    await plane.look()
    assert (counted.taken(), plane.fleet.started) == ([], [])
    recorded = True
    await plane.look()
    assert (counted.taken(), len(plane.fleet.started)) == (["iris"], 1)


async def test_what_cannot_be_started_is_tried_at_each_look(
    plane: Any, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room that others leave is told by nobody but by what is there."""
    plane.fleet.refuse = reconcile.Exhausted("no room")
    plane.apply(spec("slow"))
    await plane.look()
    counted = Counted(plane, monkeypatch)
    await plane.look()
    plane.fleet.refuse = None
    await plane.look()
    assert counted.taken() == ["iris", "iris"]
    assert len(plane.fleet.alive(1)) == 1


async def test_what_envoy_has_to_know_of_is_done_once_it_does(
    plane: Any, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    plane.apply(spec(1))
    await plane.look()
    plane.fleet.tick()
    await plane.look(3)
    assert plane.record(IRIS).serving_revision == 1
    assert plane.record(IRIS).outcome is Outcome.ROLLING, "Envoy has not taken its routes yet"
    counted = Counted(plane, monkeypatch)
    await plane.look()
    taken_before = counted.taken()
    plane.envoy.take()
    await plane.look()
    assert counted.taken() == ["iris"]
    assert (taken_before, plane.record(IRIS).outcome) == ([], Outcome.SERVING)


async def test_one_that_drains_is_looked_at_once_something_is_told_of_that(
    plane: Any, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "LOOK_EACH_S", 60.0)
    plane.apply(spec(1, low=2))
    await plane.until(lambda: len(plane.envoy.backends(IRIS)) == 2)
    await plane.seconds(6)
    pod = plane.fleet.alive(1)[0]
    plane.fleet.there[pod.id] = reconcile.replace(pod, evicted=True)
    await plane.look()
    plane.fleet.tick()  # another one is ready in its place: none starts
    await plane.look(3)
    counted = Counted(plane, monkeypatch)
    await plane.look(2)
    assert counted.taken() == [], "Envoy has not taken it yet"
    plane.envoy.take()
    await plane.look(3)
    assert "iris" in counted.taken()
    [drain] = plane.reconciler.live(IRIS).drains.values()
    assert drain.step is Step.EMPTYING
    await plane.look(2)
    assert counted.taken() == [], "it is not known to be empty"
    plane.scaling._axes[IRIS].next_at_s = float("inf")
    for _ in range(2):
        plane.clock.advance(1.0)
        await plane.look()
        assert counted.taken() == []
        plane.flush()
        await plane.look()
        assert counted.taken() == ["iris"]
    assert plane.reconciler.live(IRIS).drains[pod.id].step is Step.REMOVED


async def test_looks_at_many_leave_room_for_what_comes_meanwhile(
    plane: Any, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a pod that got ready: of a thousand looks none waits for anybody."""
    plane.reconciler.at_once = 4
    for number in range(20):
        plane.apply(spec("slow", name=f"e{number}"), EndpointName("default", f"e{number}"))
    turns, looks, real = Turns(), Counter[int](), plane.reconciler._endpoint

    async def looked_at(*given: Any) -> None:
        looks[turns.count] += 1
        await real(*given)

    monkeypatch.setattr(plane.reconciler, "_endpoint", looked_at)
    with turning(turns):
        await plane.look()
    assert looks.total() == 20
    assert max(looks.values()) <= 4


@pytest.mark.parametrize(("took_s", "rest_s"), [(0.001, 1.0), (0.05, 25.0), (3.0, 60.0)])
async def test_what_has_gone_is_forgotten_the_less_often_the_longer_that_takes(
    plane: Any, monkeypatch: pytest.MonkeyPatch, took_s: float, rest_s: float
) -> None:
    began_s = list[float]()

    def forgets() -> None:
        began_s.append(plane.clock.now_s())
        plane.clock.advance(took_s)

    monkeypatch.setattr(plane.reconciler, "_keep_only_present", forgets)
    for _ in range(700):
        await plane.look()
        plane.clock.advance(0.1)
    assert began_s[1] - began_s[0] == pytest.approx(rest_s, abs=0.11)
