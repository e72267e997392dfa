"""Bugs that were found in the loop by breaking it; each test failed before the mend."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from trimtab.control.publishing import AWAY_MAX_S
from trimtab.control.records import Outcome
from trimtab.core.errors import Exhausted, Unreachable
from trimtab.core.names import EndpointName
from trimtab.core.pod import Pod, PodPhase
from trimtab.core.revision import RevisionKey
from trimtab.xds.kinds import ASSIGNMENTS, CLUSTERS

Spec = Callable[..., Any]
OTHER = EndpointName("default", "other")


async def served(plane: Any, spec: Any) -> None:
    plane.apply(spec)
    await plane.until(lambda: plane.record().outcome is Outcome.SERVING)


async def test_a_change_made_while_a_look_waits_is_not_overwritten(plane: Any, spec: Spec) -> None:
    """The look reaches `other` after it waited for a pod of `iris` to start: it must read it anew."""
    plane.apply(spec(1, name="other"), OTHER)
    await plane.look()
    plane.fleet.tick()  # other's pod is ready: this look would end its rollout
    plane.envoy.take()
    await plane.look()
    plane.envoy.take()

    def change_the_other_one(revision: Any) -> None:
        if revision.key.endpoint != OTHER and plane.record(OTHER).generation == 1:
            plane.apply(spec(1, name="other", low=3), OTHER)

    plane.fleet.on_start = change_the_other_one
    plane.apply(spec(1))
    await plane.look()
    assert plane.record(OTHER).generation == 2
    assert plane.record(OTHER).spec.models[0].concurrency.min == 3
    assert plane.store.endpoint(OTHER) == plane.record(OTHER)


async def test_a_change_made_while_a_failed_pod_is_forgotten_is_not_overwritten(
    plane: Any, spec: Spec, iris: EndpointName, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This look would end the rollout of revision 2, but a third one is asked for while it waits."""
    await served(plane, spec(1))
    plane.apply(spec(2))
    await plane.look()
    plane.fleet.tick()
    await plane.look()
    plane.envoy.take()
    plane.fleet.fail(plane.fleet.alive(1)[0].id)
    forget = plane.fleet.forget_pod

    async def changed_meanwhile(pod_id: str) -> None:
        plane.apply(spec(3))
        await forget(pod_id)

    monkeypatch.setattr(plane.fleet, "forget_pod", changed_meanwhile)
    await plane.look()
    record = plane.record()
    assert (record.generation, record.wanted_revision, record.outcome) == (3, 3, Outcome.ROLLING)
    assert plane.store.endpoint(iris) == record


async def test_after_a_restart_old_pods_stay_until_envoy_is_back_and_routes_elsewhere(
    plane: Any, spec: Spec
) -> None:
    """Killed between the switch and its acknowledgement: Envoy still routes to the old revision."""
    await served(plane, spec(1))
    plane.apply(spec(2))
    await plane.look()
    plane.fleet.tick()
    await plane.look()
    assert plane.record().serving_revision == 2
    plane.kill()
    plane.start()
    await plane.look(5)
    assert plane.reconciler.live(plane.record().name).drains == {}
    plane.envoy.connected = True
    plane.envoy.take(CLUSTERS, ASSIGNMENTS)
    assert plane.envoy.serving() == 1
    assert set(plane.envoy.backends().values()) == {"ready"}
    await plane.until(lambda: plane.phases(1) == [])
    assert plane.envoy.serving() == 2


async def test_an_envoy_that_never_comes_back_does_not_hold_up_a_deletion_for_ever(
    plane: Any, spec: Spec
) -> None:
    await served(plane, spec(1, request_timeout_s=10.0))
    plane.envoy.leave()
    plane.endpoints.delete(plane.record().name)
    await plane.seconds(int(AWAY_MAX_S) - 5)
    assert plane.phases(1) == ["ready"], "it may still be asked"
    await plane.until(lambda: plane.endpoints.all() == [], within_s=60)


async def test_a_deployment_elsewhere_does_not_hold_up_the_pods_of_a_deletion(plane: Any, spec: Spec) -> None:
    await served(plane, spec(1))
    old = plane.fleet.alive(1)[0]
    plane.in_flight[old.address] = 1
    plane.endpoints.delete(plane.record().name)
    await plane.seconds(3)
    assert old.id in plane.reconciler.live(plane.record().name).drains
    plane.apply(spec(1, name="other"), OTHER)
    await plane.look(2)
    assert old.id in plane.reconciler.live(plane.record().name).drains


async def test_pods_of_a_revision_that_nobody_knows_are_stopped(plane: Any, spec: Spec) -> None:
    """A store that was restored from an older copy does not know the newest revision."""
    await served(plane, spec(1))
    for phase, index in ((PodPhase.READY, 70), (PodPhase.FAILED, 71)):
        key = RevisionKey(plane.record().name, 7)
        pod = Pod(f"r7-{index}", key, phase, "127.0.0.1", index, index, 1.0, 2.0)
        plane.fleet.there[pod.id] = pod
        plane.fleet.uris[pod.id] = "models:/iris/7"
    await plane.look()
    assert plane.phases(7) == ["stopping"]
    assert plane.fleet.forgotten == ["r7-71"]


async def test_a_pod_of_nobody_that_cannot_be_stopped_disturbs_nobody(plane: Any, spec: Spec) -> None:
    key = RevisionKey(OTHER, 7)
    plane.fleet.there["stranger"] = Pod("stranger", key, PodPhase.READY, "127.0.0.1", 9, 9, 1.0)

    def refused(pod: Pod) -> None:
        if pod.id == "stranger":
            raise Unreachable("the API server does not answer")

    plane.fleet.on_stop = refused
    await served(plane, spec(1))


async def test_a_name_used_again_at_once_begins_anew(plane: Any, spec: Spec, iris: EndpointName) -> None:
    """Deployed again in the very look that removed it: nothing of the former one is the new one's."""
    await served(plane, spec(1))
    plane.fleet.fail(plane.fleet.alive(1)[0].id, "the former one's trouble")
    await plane.look()
    plane.endpoints.delete(iris)
    await plane.until(lambda: plane.phases(1) == ["stopping"])
    plane.fleet.tick()
    plane.envoy.take()

    def deploy_it_again(revision: Any) -> None:
        assert plane.endpoints.all()[0].name == OTHER
        plane.apply(spec(1))

    plane.fleet.on_start = deploy_it_again
    plane.apply(spec(1, name="other"), OTHER)
    await plane.look()
    assert plane.record().generation == 1
    live = plane.reconciler.live(iris)
    assert (live.last_failure.cause, live.progress) == ("", None)


async def test_a_cap_by_the_machine_is_told_when_scaling_met_it(plane: Any, spec: Spec) -> None:
    """The autoscaler asks for no more than fits, so that nothing is refused: it must be told all the same."""
    await served(plane, spec(1))
    plane.fleet.room_pods = 1
    plane.load[plane.record().name] = 6.0
    await plane.until(lambda: plane.phases(1) == ["ready", "ready"], within_s=30)
    await plane.seconds(6)
    live = plane.reconciler.live(plane.record().name)
    assert live.capped_by == "this machine's memory"
    plane.fleet.room_pods = 20
    await plane.until(lambda: live.capped_by == "", within_s=10)


async def test_an_update_without_room_says_so_at_every_look(plane: Any, spec: Spec) -> None:
    await served(plane, spec(1, low=2))
    plane.fleet.room_pods = 1
    plane.apply(spec(2, low=2))
    await plane.until(lambda: plane.phases(2) == ["ready"])
    refused = len(plane.fleet.started)
    for _ in range(10):
        await plane.seconds()
        assert plane.reconciler.live(plane.record().name).capped_by == "this machine's memory"
    assert plane.record().serving_revision == 1, "one pod does not carry what two carried"
    assert plane.phases(1) == ["ready", "ready"]
    assert len(plane.fleet.started) == refused


async def test_a_full_disk_loses_decisions_but_stops_no_scaling(
    plane: Any, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    await served(plane, spec(1))
    recorded = len(plane.store.log.latest(plane.record().name, 100, 1e12))

    def full(entry: Any, most: int) -> None:
        raise Exhausted("database or disk is full")

    monkeypatch.setattr(plane.store.log, "_add", full)
    plane.load[plane.record().name] = 3.0
    await plane.until(lambda: plane.phases(1).count("ready") >= 3, within_s=30)
    assert plane.reconciler.live(plane.record().name).error == ""
    errors = plane.metrics.registry.get_sample_value("trimtab_errors_total", {"where": "decisions"})
    assert errors >= 1
    monkeypatch.undo()
    await plane.seconds(6)
    assert len(plane.store.log.latest(plane.record().name, 100, 1e12)) > recorded


async def test_a_look_that_breaks_is_followed_by_the_next(
    plane: Any, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0
    good = plane.fleet.pods

    def breaks_once() -> tuple[Pod, ...]:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise OSError("the fleet cannot be seen")
        return tuple(good())

    monkeypatch.setattr(plane.fleet, "pods", breaks_once)
    plane.apply(spec(1))
    running = asyncio.create_task(plane.reconciler.run())
    try:
        async with asyncio.timeout(20), plane.reconciler.looked:
            await plane.reconciler.looked.wait()
    finally:
        running.cancel()
    assert plane.phases(1) == ["starting"]
    assert plane.metrics.registry.get_sample_value("trimtab_errors_total", {"where": "look"}) == 1


@pytest.mark.parametrize("steps", range(6))
async def test_it_ends_when_told_to_even_if_news_come_in_the_same_instant(plane: Any, steps: int) -> None:
    """SIGTERM as a pod got ready: the cancellation was swallowed, and the control plane never ended."""
    running = asyncio.create_task(plane.reconciler.run())
    async with plane.reconciler.looked:
        await plane.reconciler.looked.wait()
    await asyncio.sleep(0)
    plane.reconciler.wake.set()
    for _ in range(steps):
        await asyncio.sleep(0)
    running.cancel()
    done, _ = await asyncio.wait([running], timeout=5)
    if not done:
        running.cancel()
    assert done, "it goes on"


async def test_a_look_asks_the_fleet_and_the_machine_no_more_often_with_more_endpoints(
    plane: Any, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(30):
        plane.apply(spec(1, name=f"e{index}"), EndpointName("default", f"e{index}"))
    await plane.seconds(12)
    asked = {"pods": 0, "room": 0}
    for what in asked:
        original = getattr(plane.fleet, what)

        def counted(*given: Any, _what: str = what, _original: Any = original) -> Any:
            asked[_what] += 1
            return _original(*given)

        monkeypatch.setattr(plane.fleet, what, counted)
    await plane.look()
    for record in plane.endpoints.all():
        assert len(plane.reconciler.pods(record.name)[1]) == 1
    assert asked["pods"] <= 3
    assert asked["room"] == 0, "nothing was decided, and nothing is short"
