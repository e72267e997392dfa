"""What the fleet tells of pods is made anew only where something has changed, and is never behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.core.clock import ManualClock
from trimtab.core.names import EndpointName
from trimtab.core.pod import PodPhase
from trimtab.core.revision import RevisionKey
from trimtab.fleet.kubernetes import KubernetesFleet
from trimtab.fleet.kubernetes.ages import EACH_S
from trimtab.fleet.kubernetes.fleet import Wanted
from trimtab.fleet.kubernetes.seen import Ended, SeenDeployment, SeenPod

IRIS, WINE = (RevisionKey(EndpointName("team", name), 1) for name in ("iris", "wine"))
NAMES = ("a", "b", "c")
NODE = "n"
READY = {"answers": True, "ready_at_s": 5.0, "gate": True, "runs": True, "host": "10.0.0.1"}
KINDS: dict[str, dict[str, Any]] = {
    "pending": {},
    "starting": {"runs": True, "host": "10.0.0.1"},
    "ready": READY,
    "deleting": READY | {"deleting": True},
    "failed": {"finished": True, "ended": Ended("Error", 1)},
}


class Told:
    """A fleet whose mirrors are filled by hand."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        nobody: Any = None  # nothing is asked of it
        self.fleet = KubernetesFleet(nobody, self.clock, {}, watch_nodes=True)

    def pod(self, key: RevisionKey, name: str, kind: str | None) -> None:
        place = (key.endpoint.namespace, f"{key.endpoint.name}-{name}")
        if kind is None:
            self.fleet._pod_mirror.objects.pop(place, None)
        else:
            self.fleet._pod_mirror.objects[place] = SeenPod(place[1], key, 1.0, node=NODE, **KINDS[kind])
        self.fleet._pod_changed(place)

    def node(self, why_it_goes: str) -> None:
        assert self.fleet._nodes is not None
        self.fleet._nodes._mirror.objects["", NODE] = why_it_goes
        self.fleet._nodes._told(("", NODE))

    def deployment(self, key: RevisionKey, replicas: int | None) -> None:
        place = (key.endpoint.namespace, f"{key.endpoint.name}-r1")
        if replicas is None:
            self.fleet._deployments.objects.pop(place, None)
        else:
            self.fleet._deployments.objects[place] = SeenDeployment(key, "u", "1", replicas)
            self.fleet._adopt(self.fleet._deployments.objects[place], attended=True)
        self.fleet._deployment_changed(place)

    async def stop(self, key: RevisionKey, name: str) -> None:
        pod_id = f"{key.endpoint.namespace}/{key.endpoint.name}-{name}"
        seen = self.fleet._pod_mirror.objects.get(tuple(pod_id.split("/")))
        if seen is None or not seen.finished:  # that one is deleted by a call
            await self.fleet.stop_pod(pod_id, 0.0)

    def anew(self) -> dict[EndpointName, tuple[Any, ...]]:
        """What it would tell if it kept nothing. What it has kept stays for what comes next."""
        for key in (IRIS, WINE, *self.fleet._pods, *self.fleet._wanted):
            self.fleet._shown.touch(key)
        kept, self.fleet._shown._made = self.fleet._shown._made, {}
        told = dict(self.fleet.by_endpoint())
        self.fleet._shown._made = kept
        return told


def test_a_pod_that_failed_is_known_to_have_served_as_long_as_it_is_there() -> None:
    """Its container has ended, and the API server shows no time any more: else none was ever lost."""
    told = Told()
    told.pod(IRIS, "a", "ready")
    told.pod(IRIS, "b", "starting")
    for name in ("a", "b"):
        told.pod(IRIS, name, "failed")
        told.fleet._causes[f"team/iris-{name}"] = "was killed for its memory"
    served, started = told.fleet.pods()
    assert [each.phase for each in (served, started)] == [PodPhase.FAILED] * 2
    assert (served.ready_at_s, served.start_time_s) == (5.0, 4.0), "what its start took, and not its life"
    assert started.ready_at_s is None
    told.pod(IRIS, "a", None)
    told.pod(IRIS, "a", "failed")
    told.fleet._causes["team/iris-a"] = "another one of that name"
    assert [each.ready_at_s for each in told.fleet.pods()] == [None, None]


def test_one_that_is_gone_when_it_is_found_to_hang_condemns_no_later_one_of_its_name() -> None:
    told = Told()
    told.fleet._pod_hangs("team/iris-a", "it hangs")
    told.pod(IRIS, "a", "ready")
    assert [each.phase for each in told.fleet.pods()] == [PodPhase.READY]
    told.fleet._pod_hangs("team/iris-a", "it hangs")
    assert [(each.phase, each.cause) for each in told.fleet.pods()] == [(PodPhase.FAILED, "it hangs")]


_keys = st.sampled_from((IRIS, WINE))
_steps = st.one_of(
    st.tuples(st.just("pod"), _keys, st.sampled_from(NAMES), st.sampled_from((None, *KINDS))),
    st.tuples(st.just("deployment"), _keys, st.sampled_from((None, 0, 1, 3))),
    st.tuples(st.just("stop"), _keys, st.sampled_from(NAMES)),
    st.tuples(st.just("answered"), _keys, st.sampled_from(NAMES)),
    st.tuples(st.just("hangs"), _keys, st.sampled_from(NAMES)),
    st.tuples(st.just("node"), st.sampled_from(("cordoned", ""))),
    st.tuples(st.just("time")),
)


@given(st.lists(_steps, max_size=30))
async def test_it_is_never_behind(steps: Sequence[tuple[Any, ...]]) -> None:
    told = Told()
    for what, *rest in steps:
        if what == "time":
            told.clock.advance(1.0)
        elif what == "stop":
            await told.stop(*rest)
        elif what == "answered":
            key, name = rest
            place = (key.endpoint.namespace, f"{key.endpoint.name}-{name}")
            if place in told.fleet._key_of:
                told.fleet._pod_answered("/".join(place))
        elif what == "hangs":
            key, name = rest
            told.fleet._pod_hangs(f"{key.endpoint.namespace}/{key.endpoint.name}-{name}", "it hangs")
        else:
            getattr(told, what)(*rest)
        found, flat = dict(told.fleet.by_endpoint()), told.fleet.pods()
        assert sorted(pod.id for pods in found.values() for pod in pods) == sorted(pod.id for pod in flat)
        assert list(flat) == sorted(flat, key=lambda pod: (pod.started_at_s, pod.id))
        assert found == told.anew()


async def test_what_has_not_changed_is_the_same_object() -> None:
    told = Told()
    told.pod(IRIS, "a", "ready")
    told.pod(WINE, "a", "ready")
    before, flat = told.fleet.by_endpoint(), told.fleet.pods()
    told.clock.advance(10.0)
    assert told.fleet.pods() is flat
    told.pod(WINE, "b", "ready")
    after = told.fleet.by_endpoint()
    assert after[IRIS.endpoint] is before[IRIS.endpoint]
    assert len(after[WINE.endpoint]) == 2
    assert len(before[WINE.endpoint]) == 1, "what was told is not changed behind one's back"


async def test_a_start_takes_longer_at_each_look() -> None:
    told = Told()
    told.pod(IRIS, "a", "starting")
    told.fleet._wanted[WINE] = Wanted(2)
    told.fleet._shown.touch(WINE)
    [before] = told.fleet.by_endpoint()[IRIS.endpoint]
    told.clock.advance(3.0)
    [after] = told.fleet.by_endpoint()[IRIS.endpoint]
    assert (after.start_time_s or 0.0) - (before.start_time_s or 0.0) == pytest.approx(3.0)
    asked = told.fleet.by_endpoint()[WINE.endpoint]
    assert [pod.phase for pod in asked] == [PodPhase.STARTING] * 2


async def test_what_a_node_tells_is_told_of_its_pods() -> None:
    told = Told()
    told.pod(IRIS, "a", "ready")
    assert told.fleet.pods()[0].memory_bytes is None
    told.fleet._usage._found[NODE] = {"team/iris-a": type(told.fleet._usage.of("", ""))(1.0, 7, 1.0)}
    told.fleet._touch_node(NODE)
    assert told.fleet.pods()[0].memory_bytes == 7
    told.fleet.changed.clear()
    told.node("cordoned")
    assert told.fleet.changed.is_set()
    assert told.fleet.pods()[0].node_goes
    told.node("")
    assert not told.fleet.pods()[0].node_goes


async def test_a_start_is_told_of_no_more_than_once_a_second_unless_something_happens() -> None:
    told = Told()
    told.pod(IRIS, "a", "starting")
    before = told.fleet.by_endpoint()[IRIS.endpoint]
    told.clock.advance(EACH_S / 2)
    assert told.fleet.by_endpoint()[IRIS.endpoint] is before
    told.pod(IRIS, "a", "ready")
    assert [pod.phase for pod in told.fleet.by_endpoint()[IRIS.endpoint]] == [PodPhase.READY]


async def test_what_happens_to_one_pod_tells_no_other_age_of_those_that_start() -> None:
    """Who compares what is told with what was finds out what has happened, not what time it is."""
    told = Told()
    told.pod(IRIS, "a", "starting")
    [before] = told.fleet.by_endpoint()[IRIS.endpoint]
    told.clock.advance(EACH_S / 2)
    told.fleet._shown.touch(IRIS)
    assert told.fleet.by_endpoint()[IRIS.endpoint] == (before,)
    told.pod(IRIS, "b", "ready")
    assert before in told.fleet.by_endpoint()[IRIS.endpoint]
    told.clock.advance(EACH_S / 2)
    [now] = [pod for pod in told.fleet.by_endpoint()[IRIS.endpoint] if pod.id == before.id]
    assert now.start_time_s == before.start_time_s + EACH_S


async def test_starts_are_told_of_at_times_of_their_own() -> None:
    """Those of hundreds of endpoints are not all made anew at the same moment."""
    told = Told()
    told.pod(IRIS, "a", "starting")
    told.fleet.by_endpoint()
    told.clock.advance(EACH_S / 2)
    told.pod(WINE, "a", "starting")
    before = told.fleet.by_endpoint()
    told.clock.advance(EACH_S / 2)
    first = told.fleet.by_endpoint()
    assert first[IRIS.endpoint] is not before[IRIS.endpoint]
    assert first[WINE.endpoint] is before[WINE.endpoint]
    told.clock.advance(EACH_S / 2)
    second = told.fleet.by_endpoint()
    assert second[IRIS.endpoint] is first[IRIS.endpoint]
    assert second[WINE.endpoint] is not first[WINE.endpoint]


def test_news_of_one_pod_tells_of_no_other_as_it_was_long_ago() -> None:
    told = Told()
    for name, kind in (("a", "ready"), ("a", "starting"), ("b", "ready")):
        told.pod(IRIS, name, kind)
        told.fleet.by_endpoint()
    assert [pod.phase for pod in told.fleet.pods()] == [PodPhase.STARTING, PodPhase.READY]
