"""The loop under a clock turned by hand, with a fleet and an Envoy that do what the test says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from trimtab.control import publishing, reconcile
from trimtab.control.records import Outcome
from trimtab.control.rollout import FAILURES_MAX
from trimtab.core.errors import Failed, Unreachable
from trimtab.core.names import EndpointName
from trimtab.xds.kinds import ASSIGNMENTS, CLUSTERS, ROUTES

Spec = Callable[..., Any]
OTHER = EndpointName("default", "other")


async def served(plane: Any, spec: Any) -> None:
    plane.apply(spec)
    await plane.until(lambda: plane.record().outcome is Outcome.SERVING)


def marks(plane: Any) -> list[str]:
    return sorted(plane.envoy.backends().values())


async def test_a_deployment_is_started_then_ready_then_routed(plane: Any, spec: Spec) -> None:
    plane.apply(spec(1, low=2))
    await plane.look()
    assert plane.phases(1) == ["starting"] * 2
    plane.envoy.take()
    assert plane.envoy.serving() == 0
    plane.fleet.tick()
    await plane.look()
    assert (plane.record().serving_revision, plane.record().outcome) == (1, Outcome.ROLLING)
    assert plane.envoy.serving() == 0, "Envoy has not been told yet"
    plane.envoy.take()
    assert plane.envoy.serving() == 1
    assert marks(plane) == ["ready", "ready"]
    await plane.look()
    assert plane.record().outcome is Outcome.SERVING
    assert [stage for stage, _ in plane.record().stages] == [
        "environment",
        "start",
        "load",
        "ready",
        "routed",
    ]
    assert plane.endpoints.history(plane.record().name, 5)[0].outcome == "serving"


async def test_at_rest_nothing_is_done_and_nothing_is_written(plane: Any, spec: Spec) -> None:
    await served(plane, spec(1, low=2))
    await plane.seconds(5)
    before = (len(plane.fleet.started), len(plane.fleet.stopped), plane.envoy.publications)
    plane.clock.advance(1.0)
    await plane.look(4)  # the first one decides and writes that
    steps = plane.step.taken
    await plane.look(20)
    assert plane.step.taken == steps
    assert (len(plane.fleet.started), len(plane.fleet.stopped), plane.envoy.publications) == before


async def test_an_update_takes_the_traffic_before_the_old_pods_leave(plane: Any, spec: Spec) -> None:
    await served(plane, spec(1, low=2))
    old = {pod.address for pod in plane.fleet.alive(1)}
    plane.apply(spec(2, low=2))
    await plane.look()
    assert plane.phases(2) == ["starting", "starting"]
    plane.fleet.tick()
    await plane.look()
    assert plane.record().serving_revision == 2
    plane.envoy.take(CLUSTERS, ASSIGNMENTS)
    await plane.look(3)
    assert plane.envoy.serving() == 1
    assert marks(plane) == ["ready"] * 4, "Envoy still routes to the old one"
    plane.envoy.take()
    await plane.look()
    plane.envoy.take()
    assert plane.envoy.serving() == 2
    assert {at for at, mark in plane.envoy.backends().items() if mark == "draining"} == old
    await plane.until(lambda: plane.phases(1) == [])
    assert plane.phases(2) == ["ready", "ready"]
    assert len(plane.fleet.started) == 4


async def test_a_pod_leaves_step_by_step(plane: Any, spec: Spec) -> None:
    """Marked, acknowledged, empty in two flushes, removed, acknowledged, and only then stopped."""
    await served(plane, spec(1, low=2))
    plane.apply(spec(1, low=1))
    plane.endpoints.put_revision(replace(plane.endpoints.revisions(plane.record().name)[1], pods_wanted=1))
    plane.scaling._axes.clear()  # a decision that was made elsewhere: one pod is wanted
    await plane.look()
    drain = next(iter(plane.reconciler.live(plane.record().name).drains.values()))
    leaving = plane.fleet.there[drain.pod_id].address

    async def second() -> None:
        plane.clock.advance(1.0)
        plane.flush()
        await plane.look()

    await second()
    await second()
    assert plane.envoy.backends()[leaving] == "ready", "it was not acknowledged: nothing goes on"
    plane.envoy.take()
    assert plane.envoy.backends()[leaving] == "draining"
    plane.in_flight[leaving] = 1
    for _ in range(10):
        await second()
    plane.envoy.take()
    assert plane.envoy.backends()[leaving] == "draining", "its last request is under way"
    plane.in_flight.clear()
    await second()
    plane.envoy.take()
    assert leaving in plane.envoy.backends(), "one flush proves nothing"
    await second()
    await plane.look()
    assert plane.fleet.stopped == []
    plane.envoy.take()
    assert leaving not in plane.envoy.backends()
    await plane.look()
    assert plane.fleet.stopped == [drain.pod_id]
    assert plane.reconciler.live(plane.record().name).drains == {}


async def test_a_pod_that_never_empties_is_stopped_when_its_grace_ends(plane: Any, spec: Spec) -> None:
    await served(plane, spec(1, request_timeout_s=20.0))
    stuck = plane.fleet.alive(1)[0]
    plane.in_flight[stuck.address] = 1
    plane.apply(spec(2, request_timeout_s=20.0))
    await plane.seconds(20)
    assert plane.phases(1) == ["ready"]
    await plane.until(lambda: plane.phases(1) == [], within_s=15)


async def test_an_update_that_fails_leaves_the_old_revision_alone(plane: Any, spec: Spec) -> None:
    await served(plane, spec(1, low=2))
    before = plane.fleet.alive(1)
    plane.fleet.logs = dict.fromkeys((f"iris.default-r2-{n}" for n in range(20)), ("Traceback", "no weights"))
    plane.apply(spec("bad", low=2))
    await plane.until(lambda: plane.record().outcome is Outcome.FAILED)
    record = plane.record()
    assert record.serving_revision == 1
    assert record.failure.cause == "the model cannot be loaded"
    assert "trimtab logs iris" in record.failure.hint
    assert record.failure.log_tail == ("Traceback", "no weights")
    assert plane.endpoints.history(record.name, 1)[0].outcome == "failed"
    await plane.seconds(120)
    assert plane.fleet.alive(1) == before, "what serves was not touched"
    assert plane.phases(2) == []
    assert sum("-r2-" in pod for pod in plane.fleet.started) <= 2 * FAILURES_MAX, "tries are bounded"
    assert plane.metrics.registry.get_sample_value(
        "trimtab_pod_failures_total", {"namespace": "default", "endpoint": "iris"}
    ) == sum("-r2-" in pod for pod in plane.fleet.started)


async def test_after_a_failed_update_a_good_one_takes_over(plane: Any, spec: Spec) -> None:
    await served(plane, spec(1))
    plane.apply(spec("bad"))
    await plane.until(lambda: plane.record().outcome is Outcome.FAILED)
    await served(plane, spec(3))
    await plane.until(lambda: plane.phases(1) == [])
    assert (plane.envoy.serving(), plane.phases(3)) == (3, ["ready"])


async def test_a_first_deployment_that_fails_stays_failed_until_it_is_asked_for_again(
    plane: Any, spec: Spec
) -> None:
    plane.apply(spec("bad"))
    await plane.until(lambda: plane.record().outcome is Outcome.FAILED)
    tried = len(plane.fleet.started)
    await plane.seconds(100)
    assert (len(plane.fleet.started), plane.envoy.serving()) == (tried, 0)
    plane.apply(spec("bad"))
    await plane.look()
    assert len(plane.fleet.started) > tried


async def test_a_served_revision_that_crashes_is_tried_ever_more_slowly_but_for_ever(
    plane: Any, spec: Spec
) -> None:
    await served(plane, spec(1))
    plane.fleet.uris = dict.fromkeys(plane.fleet.uris, "bad")
    began = len(plane.fleet.started)

    async def crash_for(seconds: int) -> int:
        before = len(plane.fleet.started)
        for _ in range(seconds):
            for pod in plane.fleet.alive(1):
                plane.fleet.fail(pod.id)
            await plane.seconds()
        return len(plane.fleet.started) - before

    assert await crash_for(10) >= 3, "the first losses are replaced at once"
    await crash_for(120)
    assert 1 <= await crash_for(130) <= 3, "one a minute"
    assert len(plane.fleet.started) - began < 15
    assert plane.reconciler.live(plane.record().name).last_failure.cause == "was killed by signal 9"
    assert plane.record().outcome is Outcome.SERVING
    await plane.until(lambda: plane.phases(1) == ["ready"], within_s=70)


async def test_a_killed_pod_is_replaced_at_the_next_look(plane: Any, spec: Spec) -> None:
    await served(plane, spec(1, low=3))
    await plane.seconds(3)
    dead = plane.fleet.alive(1)[0]
    plane.fleet.fail(dead.id)
    await plane.look()
    assert plane.fleet.forgotten == [dead.id]
    assert sorted(plane.phases(1)) == ["ready", "ready", "starting"]
    plane.envoy.take()
    assert dead.address not in plane.envoy.backends()


async def test_a_deletion_takes_routes_then_pods_then_the_records(plane: Any, spec: Spec) -> None:
    await served(plane, spec(1))
    plane.endpoints.delete(plane.record().name)
    await plane.look(3)
    assert plane.envoy.serving() == 1
    assert plane.fleet.stopped == []
    plane.envoy.take(CLUSTERS, ASSIGNMENTS, ROUTES)
    assert plane.envoy.serving() == 0
    await plane.look()
    plane.envoy.take()
    assert marks(plane) == ["draining"]
    await plane.until(lambda: plane.endpoints.all() == [])
    assert plane.fleet.pods() == ()
    await plane.seconds()
    assert plane.envoy.assignments == {}
    assert plane.store.endpoints() == []


async def test_a_changed_range_restarts_no_pod(plane: Any, spec: Spec) -> None:
    await served(plane, spec(1, low=1))
    first = plane.fleet.started[:]
    await served(plane, spec(1, low=3))
    assert plane.fleet.started[:1] == first
    assert plane.phases(1) == ["ready"] * 3
    assert plane.fleet.stopped == []
    assert plane.record().wanted_revision == 1


async def test_without_room_it_says_what_caps_and_serves_with_what_there_is(plane: Any, spec: Spec) -> None:
    plane.fleet.room_pods = 1
    await served(plane, spec(1, low=3))
    assert plane.phases(1) == ["ready"]
    live = plane.reconciler.live(plane.record().name)
    plane.apply(spec(2))
    await plane.seconds(3)
    assert live.capped_by == "this machine's memory"
    assert plane.record().serving_revision == 1
    plane.fleet.room_pods = 5
    await plane.until(lambda: plane.record().outcome is Outcome.SERVING)
    assert live.capped_by == ""


async def test_a_start_that_cannot_even_begin_counts_as_a_failure(plane: Any, spec: Spec) -> None:
    plane.fleet.refuse = Failed("no such program", where="pod", hint="install it")
    plane.apply(spec(1))
    await plane.until(lambda: plane.record().outcome is Outcome.FAILED)
    assert plane.record().failure.cause == "pod: no such program"
    assert plane.record().failure.hint == "install it"


async def test_an_error_in_one_endpoint_does_not_disturb_another(
    plane: Any, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    await served(plane, spec(1))
    original = reconcile.rollout.plan

    def broken(record: Any, *what: Any, **how: Any) -> Any:
        if record.name == plane.record().name:
            raise KeyError("a bug")
        return original(record, *what, **how)

    monkeypatch.setattr(reconcile.rollout, "plan", broken)
    plane.reconciler.spec_changed(plane.record().name)  # or nobody would look at it before a decision is due
    plane.apply(spec(1, name="other"), OTHER)
    await plane.until(lambda: plane.record(OTHER).outcome is Outcome.SERVING)
    live = plane.reconciler.live(plane.record().name)
    assert "internal error: KeyError('a bug')" in live.error
    assert plane.envoy.serving() == 1, "it serves on"
    assert plane.metrics.registry.get_sample_value("trimtab_errors_total", {"where": "reconcile"}) >= 2
    monkeypatch.undo()
    await plane.look()
    assert live.error == ""


async def test_the_last_good_snapshot_stays_while_none_can_be_built(
    plane: Any, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    await served(plane, spec(1))
    good, publications = plane.envoy.snapshot, plane.envoy.publications

    def broken(_: Any, world: Any) -> Any:
        raise ValueError("no such protocol")

    with monkeypatch.context() as patch:
        patch.setattr(publishing.SnapshotBuilder, "build", broken)
        plane.apply(spec(1, name="other"), OTHER)
        await plane.seconds(3)
    assert (plane.envoy.snapshot, plane.envoy.publications) == (good, publications)
    assert "no such protocol" in plane.reconciler.publish_error
    assert plane.metrics.registry.get_sample_value("trimtab_errors_total", {"where": "snapshot"}) >= 1
    await plane.until(lambda: plane.record(OTHER).outcome is Outcome.SERVING)
    assert plane.reconciler.publish_error == ""


async def test_pods_of_endpoints_that_are_gone_are_stopped(plane: Any, spec: Spec) -> None:
    plane.apply(spec(1))
    await plane.look()
    key = plane.fleet.pods()[0].revision
    plane.endpoints.remove(key.endpoint)
    await plane.look()
    assert plane.phases(1) == ["stopping"]
    await plane.seconds()
    assert plane.fleet.pods() == ()


async def test_every_spike_is_followed_and_left_again(new_plane: Any, tmp_path: Any, spec: Spec) -> None:
    plane = new_plane(tmp_path, down_window_s=10.0)
    await served(plane, spec(1, low=1, high=8))
    plane.load[plane.record().name] = 6.0
    await plane.until(lambda: plane.phases(1).count("ready") >= 6, within_s=20)
    plane.load.clear()
    await plane.until(lambda: plane.phases(1) == ["ready"], within_s=120)
    assert plane.fleet.alive(1)[0].id == plane.fleet.started[0], "the oldest pod stays"
    plane.close()


async def test_a_server_that_does_not_answer_is_no_fault_of_the_models(plane: Any, spec: Spec) -> None:
    plane.apply(spec(1, low=2))
    plane.fleet.refuse = Unreachable("the API server does not answer")
    for _ in range(2 * FAILURES_MAX):
        await plane.seconds(60)
    assert plane.record().outcome is Outcome.ROLLING
    assert plane.endpoints.revisions(plane.record().name)[1].failures == 0
    assert plane.reconciler.live(plane.record().name).capped_by == (
        "what starts pods: the API server does not answer"
    )
    plane.fleet.refuse = None
    await plane.until(lambda: plane.record().outcome is Outcome.SERVING)


async def test_nothing_is_started_or_ended_by_what_the_next_control_plane_would_not_find(
    plane: Any, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as writing:
        writing.setattr(plane.store, "recorded", lambda name: False)
        plane.apply(spec(1))
        await plane.seconds(5)
        assert plane.fleet.started == []
    await served(plane, spec(1))
    plane.apply(spec(2))
    await plane.until(lambda: plane.record().serving_revision == 2)
    with monkeypatch.context() as writing:
        writing.setattr(plane.store, "recorded", lambda name: False)
        await plane.seconds(5)
        assert plane.phases(1) == ["ready"], "a control plane that begins now would route to it"
        plane.endpoints.delete(plane.record().name)
        await plane.seconds(5)
        assert plane.phases(2) == ["ready"]
    name = plane.record().name
    await plane.until(lambda: all(record.name != name for record in plane.endpoints.all()))
