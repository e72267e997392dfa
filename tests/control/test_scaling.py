"""When the autoscaler is asked, and what becomes of its answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from trimtab.autoscaler.horizontal import REST_WITHIN_S, Rest
from trimtab.control.limits import Limits
from trimtab.control.records import Outcome
from trimtab.control.scaling import DECIDE_EACH_S, URGENT_AFTER_S
from trimtab.core.errors import Exhausted
from trimtab.core.names import EndpointName
from trimtab.core.signals import RevisionSignal

IRIS = EndpointName("default", "iris")
Spec = Callable[..., Any]


async def served(plane: Any, spec: Any) -> None:
    plane.apply(spec)
    await plane.until(lambda: plane.record().outcome is Outcome.SERVING)


def decisions(plane: Any) -> list[Any]:
    return plane.store.log.latest(IRIS, 1_000, plane.clock.wall_s() + 1)


def given(plane: Any) -> dict[str, float]:
    """What the latest decision was made from."""
    return {each.name: each.value for each in decisions(plane)[0].inputs}


def wanted(plane: Any, number: int = 1) -> int:
    return plane.endpoints.revisions(IRIS)[number].pods_wanted


async def test_one_decision_each_five_seconds_however_often_it_looks(plane: Any, spec: Spec) -> None:
    await served(plane, spec(1))
    plane.load[IRIS] = 0.5
    await plane.seconds(int(REST_WITHIN_S[Rest.UNTIL_ASKED]))
    before = decisions(plane)
    for _ in range(20):
        await plane.seconds()
        await plane.look(2)
    told = decisions(plane)
    assert len(told) - len(before) == 4
    times = [decision.at_s for decision in reversed(told)]
    assert all(later - sooner >= DECIDE_EACH_S for sooner, later in pairwise(times))
    rule = told[0].rule
    labels = {"axis": "pods", "rule": rule}
    counted = plane.metrics.registry.get_sample_value("trimtab_decisions_total", labels)
    assert counted == sum(decision.rule == rule for decision in told)


async def test_what_nobody_asks_is_seldom_decided_on_until_somebody_does(plane: Any, spec: Spec) -> None:
    await served(plane, spec(1))
    await plane.seconds(2 * int(DECIDE_EACH_S))
    before = len(decisions(plane))
    await plane.seconds(3 * int(REST_WITHIN_S[Rest.UNTIL_ASKED]))
    assert len(decisions(plane)) - before == 3
    await plane.seconds(int(DECIDE_EACH_S))
    plane.load[IRIS] = 0.5
    await plane.seconds()
    assert len(decisions(plane)) - before == 4
    await plane.seconds(20)
    assert len(decisions(plane)) - before == 8
    assert wanted(plane) == 1


async def test_silence_is_seldom_decided_on_until_it_ends(plane: Any, spec: Spec) -> None:
    await served(plane, spec(1))
    plane.load[IRIS] = 0.5
    await plane.seconds(20)
    plane.envoy.connected = False
    await plane.seconds(60)
    before = len(decisions(plane))
    await plane.seconds(3 * int(REST_WITHIN_S[Rest.UNTIL_TOLD]))
    assert len(decisions(plane)) - before == 3
    assert decisions(plane)[0].rule == "unknown"
    await plane.seconds(int(DECIDE_EACH_S))
    plane.envoy.connected = True
    await plane.seconds(2)
    assert len(decisions(plane)) - before == 4
    assert decisions(plane)[0].rule != "unknown"


async def test_a_jump_is_decided_on_before_the_next_decision_is_due(plane: Any, spec: Spec) -> None:
    await served(plane, spec(1))
    plane.load[IRIS] = 0.5
    await plane.seconds(30)
    known = len(decisions(plane))
    await plane.until(lambda: len(decisions(plane)) > known)
    last_s = decisions(plane)[0].at_s
    (key,) = plane.envoy.assignments
    for _ in range(int(DECIDE_EACH_S) - 1):
        plane.clock.advance(1.0)
        jump = RevisionSignal(key, "envoy", plane.clock.now_s(), 1.0, 200, 10, 0, 0, 1, 190, 1.0)
        plane.observations.add((jump,), None, ())
        await plane.look(2)
    told = decisions(plane)
    new = [last_s, *reversed([decision.at_s for decision in told if decision.at_s > last_s])]
    assert new[1] - last_s == URGENT_AFTER_S
    assert all(later - sooner >= URGENT_AFTER_S for sooner, later in pairwise(new)), "not each time it looks"
    assert wanted(plane) >= 10


async def test_a_changed_spec_is_decided_at_once(plane: Any, spec: Spec) -> None:
    await served(plane, spec(1))
    await plane.seconds(3)
    before = len(decisions(plane))
    plane.apply(spec(1, low=4))
    await plane.look()
    assert len(decisions(plane)) == before + 1
    assert wanted(plane) == 4
    assert plane.phases(1) != ["ready"]


async def test_nothing_is_decided_before_something_serves(plane: Any, spec: Spec) -> None:
    plane.apply(spec("slow"))
    await plane.seconds(20)
    assert decisions(plane) == []


@pytest.mark.parametrize(
    ("low", "cpu", "max_pods", "pods"), [(1, 1, 0, 1), (5, 1, 0, 5), (5, 2, 0, 3), (5, 1, 2, 2), (1, 4, 9, 1)]
)
async def test_a_revision_begins_with_the_fewest_pods_of_its_range(
    plane: Any, spec: Spec, low: int, cpu: int, max_pods: int, pods: int
) -> None:
    asked = spec(1, low=low, max_pods=max_pods)
    model = replace(asked.models[0], resources=replace(asked.models[0].resources, cpu=float(cpu)))
    plane.apply(replace(asked, models=(model,)))
    await plane.look()
    assert wanted(plane) == pods
    await plane.until(lambda: plane.record().outcome is Outcome.SERVING)
    await plane.seconds(15)
    assert plane.phases(1) == ["ready"] * pods


async def test_a_ceiling_holds_under_any_load(plane: Any, spec: Spec) -> None:
    await served(plane, spec(1, max_pods=3))
    plane.load[IRIS] = 20.0
    await plane.seconds(30)
    assert plane.phases(1) == ["ready"] * 3
    assert decisions(plane)[0].binds


async def test_what_takes_over_the_traffic_begins_with_what_the_traffic_needs(
    plane: Any, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Limits, "look", lambda *_: None)
    await served(plane, spec(1))
    plane.load[IRIS] = 6.0
    await plane.until(lambda: plane.phases(1).count("ready") >= 6)
    await plane.seconds(10)
    before = wanted(plane, 1)
    plane.apply(spec(2))
    await plane.until(lambda: plane.record().outcome is Outcome.SERVING)
    assert wanted(plane, 2) == before
    plane.load.clear()  # nothing of the new revision's own demand is known yet
    for _ in range(10):
        await plane.seconds(5)
        assert wanted(plane, 2) >= before, "the old one's window still holds"


@pytest.mark.parametrize("step_s", [-3_600.0, 3_600.0])
async def test_a_step_of_the_wall_clock_makes_no_start_longer_or_shorter(
    plane: Any, spec: Spec, monkeypatch: pytest.MonkeyPatch, step_s: float
) -> None:
    await served(plane, spec(1))
    plane.load[IRIS] = 3.5
    with monkeypatch.context() as slow:
        slow.setattr(plane.fleet, "tick", lambda: None)
        await plane.until(lambda: "starting" in plane.phases(1))
        plane.clock._wall_s += step_s
        await plane.seconds(6)
        inputs = given(plane)
        assert (inputs["overdue_pods"], inputs["starting_pods"]) == (0, plane.phases(1).count("starting"))
    await plane.seconds(10)
    inputs = given(plane)
    assert 0 < inputs["start_time_s"] < 20


async def test_one_slow_start_among_nine_does_not_make_starts_slow(plane: Any, spec: Spec) -> None:
    await served(plane, spec(1, low=10))
    await plane.until(lambda: plane.phases(1) == ["ready"] * 10)
    for index, (pod_id, pod) in enumerate(list(plane.fleet.there.items())):
        plane.fleet.there[pod_id] = replace(pod, start_time_s=200.0 if index == 9 else 3.0)
    plane.load[IRIS] = 0.5
    await plane.seconds(6)
    inputs = given(plane)
    assert inputs["start_time_s"] == 3.0


async def with_drains(plane: Any, spec: Spec) -> None:
    """Six pods, of which five drain: each has a long request."""
    await served(plane, spec(1))
    plane.load[IRIS] = 6.0
    await plane.until(lambda: plane.phases(1).count("ready") >= 6)
    await plane.seconds(20)
    plane.in_flight = dict.fromkeys([pod.address for pod in plane.fleet.pods()], 1)
    plane.load[IRIS] = 0.5
    await plane.until(lambda: wanted(plane) == 1, within_s=120)
    await plane.seconds(6)


async def test_pods_that_drain_are_not_ready(
    new_plane: Callable[..., Any], tmp_path: Path, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[Any, ...]] = []
    monkeypatch.setattr(Limits, "look", lambda _self, _record, _serving, pods, _taken: told.append(pods))
    plane = new_plane(tmp_path, down_window_s=20.0)
    await with_drains(plane, spec)
    assert sorted(plane.envoy.backends().values()) == ["draining"] * (len(plane.fleet.pods()) - 1) + ["ready"]
    assert given(plane)["ready_pods"] == 1
    assert [pod.phase.value for pod in told[-1]] == ["ready"], "to the vertical axis neither"
    plane.close()


async def test_pods_that_drain_may_be_taken_back_where_no_other_fits(
    new_plane: Callable[..., Any], tmp_path: Path, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Limits, "look", lambda *_: None)
    plane = new_plane(tmp_path, down_window_s=20.0)
    await with_drains(plane, spec)
    pods, started = len(plane.fleet.pods()), len(plane.fleet.started)
    plane.fleet.room_pods = 0
    await plane.seconds(6)
    assert given(plane)["room_pods"] == pods - 1
    plane.load[IRIS] = 5.0
    await plane.until(lambda: list(plane.envoy.backends().values()).count("ready") >= 5, within_s=20)
    assert len(plane.fleet.started) == started
    plane.close()


async def test_a_restart_keeps_the_number_that_was_wanted(
    new_plane: Callable[..., Any], tmp_path: Path, spec: Spec
) -> None:
    plane = new_plane(tmp_path, down_window_s=20.0)
    await served(plane, spec(1))
    plane.load[IRIS] = 6.0
    await plane.until(lambda: plane.phases(1).count("ready") >= 6)
    await plane.seconds(6)
    before, pods = wanted(plane), plane.fleet.pods()
    plane.load.clear()
    plane.kill()
    plane.start()
    await plane.seconds(15)
    assert (wanted(plane), plane.fleet.pods()) == (before, pods), "without signals it holds"
    plane.envoy.connected = True
    await plane.seconds(15)
    assert wanted(plane) == before, "the window begins anew"
    await plane.until(lambda: wanted(plane) == 1, within_s=200)
    plane.close()


async def test_a_full_disk_loses_decisions_but_not_scaling(
    plane: Any, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    await served(plane, spec(1))

    def full(decisions: Any, learned: Any) -> None:
        raise Exhausted("the disk is full", hint="free some")

    monkeypatch.setattr(plane.store, "record", full)
    plane.load[IRIS] = 5.0
    await plane.until(lambda: plane.phases(1).count("ready") >= 5)
    assert plane.metrics.registry.get_sample_value("trimtab_errors_total", {"where": "decisions"}) >= 1
