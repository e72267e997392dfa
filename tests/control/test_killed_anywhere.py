"""The control plane is killed at any instruction with an effect; the next one goes on from what it finds."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtab.control.records import Outcome
from trimtab.core.errors import TrimtabError
from trimtab.core.names import EndpointName
from trimtab.core.pod import PodPhase
from trimtab.core.revision import RevisionKey
from trimtab.xds.kinds import ASSIGNMENTS, CLUSTERS

Spec = Callable[..., Any]
IRIS = EndpointName("default", "iris")
WITHIN_S = 90


def watch(plane: Any) -> list[str]:
    """Check, at each effect, what must hold whatever happens; returns the list of what did not.

    Not by raising: the loop contains the errors of an endpoint.
    """
    violations: list[str] = []

    def check(holds: object, what: str) -> None:
        if not holds:
            violations.append(what)

    def on_start(revision: Any) -> None:
        known = plane.endpoints.revisions(revision.key.endpoint)[revision.key.number]
        drains = plane.reconciler.live(revision.key.endpoint).drains
        usable = [
            pod
            for pod in plane.fleet.alive(revision.key.number)
            if pod.id not in drains or drains[pod.id].revocable
        ]
        check(len(usable) < known.pods_wanted, f"{revision.key}: more pods than wanted were started")

    def on_stop(pod: Any) -> None:
        if pod.phase is PodPhase.READY:
            check(pod.address not in plane.envoy.backends(), f"{pod.id} was stopped while Envoy uses it")

    def on_publish(told: Any) -> None:
        for name in {record.name for record in plane.endpoints.all() if not record.deleting}:
            for number in {told.serving.get(name, 0), plane.envoy.serving(name)} - {0}:
                ready = [p for p in plane.fleet.alive(number, name) if p.phase is PodPhase.READY]
                takes = [
                    at for at, out in told.backends.get(RevisionKey(name, number), {}).items() if not out
                ]
                check(takes or not ready, f"revision {number} is routed to and lost its last pod")

    plane.fleet.on_start, plane.fleet.on_stop, plane.envoy.on_publish = on_start, on_stop, on_publish
    return violations


async def guarded(plane: Any, killed: type[BaseException], what: Callable[[], Any]) -> bool:
    """Do something; if the control plane was killed meanwhile, start the next one. True if it was."""
    try:
        done = what()
        if asyncio.iscoroutine(done):
            await done
    except killed:
        plane.kill()
        plane.start()
        return True
    return False


async def settle(plane: Any, wanted: int) -> None:
    """Everything works again: what is wanted must come about."""
    plane.step.kill_in(None)
    plane.load.clear()
    plane.in_flight.clear()
    plane.envoy.connected = True
    record = plane.record()

    def quiet() -> bool:
        now = plane.record()
        pods = plane.fleet.pods()
        known = plane.endpoints.revisions(record.name)[wanted]
        return (
            now.outcome is Outcome.SERVING
            and now.serving_revision == plane.envoy.serving() == wanted
            and plane.phases(wanted) == ["ready"] * known.pods_wanted
            and len(pods) == known.pods_wanted
            and plane.envoy.backends() == dict.fromkeys((pod.address for pod in pods), "ready")
        )

    await plane.until(quiet, within_s=WITHIN_S)


def in_home(new_plane: Callable[..., Any], scenario: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    with tempfile.TemporaryDirectory() as home:
        plane = new_plane(Path(home), down_window_s=5.0)
        try:
            violations = watch(plane)
            asyncio.run(scenario(plane))
            assert violations == []
            assert plane.reconciler.live(IRIS).error == ""
        finally:
            plane.close()


async def _rollout(plane: Any, killed: type[BaseException], spec: Spec, kill_in: int | None) -> bool:
    """Deploy, update and change the range, with a kill after so many instructions; true if it came."""
    plane.step.kill_in(kill_in)
    plane.load[IRIS] = 0.5  # what nobody asks is seldom decided on
    hit = False
    for wanted in (spec(1, low=2), spec(2, low=2), spec(2, low=3)):
        # People ask again when their command was cut off: the same spec twice is one change.
        while await guarded(plane, killed, lambda wanted=wanted: plane.apply(wanted)):
            hit = True
        for second in range(10):
            hit |= await guarded(plane, killed, plane.seconds)
            plane.envoy.connected |= second % 3 == 2  # it is back some time after a kill
    await settle(plane, wanted=2)
    return hit


@pytest.mark.parametrize("residue", range(4))
def test_a_kill_at_any_instruction_redeploys_nothing(
    new_plane: Callable[..., Any], killed: type[BaseException], spec: Spec, residue: int
) -> None:
    """As many pods are started as without a kill, whichever instruction was the last."""
    kill_in, hit = residue, True
    while hit:

        async def scenario(plane: Any, kill_in: int = kill_in) -> None:
            nonlocal hit
            hit = await _rollout(plane, killed, spec, kill_in)
            assert [pod.split("-")[1] for pod in plane.fleet.started] == ["r1"] * 2 + ["r2"] * 3
            assert len(plane.fleet.stopped) == 2

        in_home(new_plane, scenario)
        kill_in += 4
    assert kill_in > 80, "the scenario has become too short to prove anything"


ACTIONS = st.one_of(
    st.tuples(st.just("kill"), st.integers(0, 30)),
    st.tuples(st.just("apply"), st.sampled_from([1, 2, 3, "bad", "slow"]), st.integers(1, 3)),
    st.tuples(st.just("seconds"), st.integers(1, 8)),
    st.tuples(st.just("dies"), st.integers(0, 5)),
    st.tuples(st.just("away")),
    st.tuples(st.just("back")),
    st.tuples(st.just("load"), st.integers(0, 5)),
    st.tuples(st.just("busy"), st.integers(0, 5)),
    st.tuples(st.just("half")),
    st.tuples(st.just("rollback")),
    st.tuples(st.just("delete")),
)


def _ask(plane: Any, spec: Spec, kind: str, *asked: Any) -> None:
    """What people do."""
    if kind == "apply":
        plane.apply(spec(asked[0], low=asked[1], high=6))
    elif kind == "rollback":
        plane.endpoints.rollback(IRIS, 0, "ann")
        plane.reconciler.spec_changed(IRIS)
    elif kind == "delete":
        plane.endpoints.delete(IRIS)


async def _happen(plane: Any, kind: str, *much: Any) -> None:
    """What the world does."""
    pods = plane.fleet.pods()
    if kind == "seconds":
        await plane.seconds(much[0])
    elif kind == "away":
        plane.envoy.leave()
    elif kind == "back":
        plane.envoy.connected = True
    elif kind == "load":
        plane.load[IRIS] = float(much[0])
    elif kind == "half":
        plane.envoy.take(CLUSTERS, ASSIGNMENTS)
        await plane.look()
    elif kind == "busy" and pods:
        plane.in_flight[pods[much[0] % len(pods)].address] = 1
    elif kind == "dies" and pods:
        plane.fleet.fail(pods[much[0] % len(pods)].id)
        await plane.look()


async def _act(plane: Any, spec: Spec, kind: str, *given_: Any) -> None:
    if kind == "kill":
        plane.step.kill_in(given_[0])
    elif kind in ("apply", "rollback", "delete"):
        _ask(plane, spec, kind, *given_)
    else:
        await _happen(plane, kind, *given_)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(actions=st.lists(ACTIONS, max_size=25))
def test_whatever_happens_nothing_is_lost_and_all_is_well_in_the_end(
    new_plane: Callable[..., Any], killed: type[BaseException], spec: Spec, actions: list[tuple[Any, ...]]
) -> None:
    async def scenario(plane: Any) -> None:
        plane.apply(spec(1))
        await plane.seconds(3)
        for action in actions:
            with suppress(TrimtabError):  # of people: it is being deleted, nothing served before, …
                await guarded(plane, killed, lambda action=action: _act(plane, spec, *action))
        plane.step.kill_in(None)
        plane.envoy.connected = True
        plane.in_flight.clear()
        await plane.until(lambda: not any(record.deleting for record in plane.endpoints.all()))
        plane.apply(spec(3, low=2))
        await settle(plane, wanted=plane.record().wanted_revision)

    in_home(new_plane, scenario)
