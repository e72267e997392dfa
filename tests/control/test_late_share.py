"""Starts that are late are replaced, soon where they are alone in it, and few at a time where all are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from math import ceil, inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.autoscaler.horizontal import replaced_at_once
from trimtab.control import rollout
from trimtab.control.records import EndpointRecord, Outcome, RevisionRecord
from trimtab.control.rollout import RevisionFacts
from trimtab.core.names import EndpointName
from trimtab.core.pod import Pod, PodPhase
from trimtab.core.revision import Revision, RevisionKey
from trimtab.core.spec import EndpointSpec, ModelSpec, Source

NAME = EndpointName("default", "iris")
MODEL = ModelSpec("iris", Source("models:/iris/1", digest="sha256:0"))
RECORD = EndpointRecord(NAME, EndpointSpec((MODEL,)), 1, 0.0, 1, 1, Outcome.SERVING)
REVISION = RevisionRecord(Revision(RevisionKey(NAME, 1), MODEL, "h", 0.0))
LATE_S = 30.0  # where a start took up to ten seconds until now
FOR_S = 400

Takes = Callable[[int], float]  # what the n-th start takes (s); inf: it stalls


@dataclass
class World:
    """A fleet that does what the plan says, each second. `takes` is asked once for each start."""

    wanted: int
    takes: Takes
    pods: dict[str, Pod] = field(default_factory=dict)
    most: int = 0  # pods that were there at once
    full_s: float = inf  # when as many as are wanted were ready
    most_in_place: int = 0  # starts in time beyond those that were missing

    def run(self, seconds: int = FOR_S) -> World:
        numbers = count()
        for now_s in range(seconds):
            self._pass(float(now_s))
            facts = RevisionFacts(
                REVISION, tuple(self.pods.values()), wanted=self.wanted, overdue_after_s=LATE_S
            )
            how = {"routes_settled": True, "connected": True, "starts_at_once": 50}
            steps = rollout.plan(RECORD, {1: facts}, now_s=float(now_s), **how)  # type: ignore[arg-type]
            for gone in steps.leaves:
                del self.pods[gone]
            for _ in range(sum(number for _, number in steps.starts)):
                self._start(next(numbers), float(now_s))
            self._note(float(now_s))
            if self.full_s < inf and len(self.pods) == self.wanted:
                break
        return self

    def _pass(self, now_s: float) -> None:
        for name, pod in self.pods.items():
            if pod.phase is PodPhase.STARTING:
                age_s = now_s - pod.started_at_s
                ready = age_s >= float(pod.host)
                changed = {"phase": PodPhase.READY, "ready_at_s": now_s} if ready else {}
                self.pods[name] = replace(pod, start_time_s=age_s, **changed)

    def _start(self, number: int, now_s: float) -> None:
        """Its host is what its start takes."""
        takes_s = str(self.takes(number))
        started = Pod(f"p{number}", REVISION.revision.key, PodPhase.STARTING, takes_s, 1, 1, now_s)
        self.pods[started.id] = replace(started, start_time_s=0.0)

    def _note(self, now_s: float) -> None:
        starting = [pod for pod in self.pods.values() if pod.phase is PodPhase.STARTING]
        late = sum((pod.start_time_s or 0.0) > LATE_S for pod in starting)
        ready = len(self.pods) - len(starting)
        self.most = max(self.most, len(self.pods))
        missing = max(0, self.wanted - ready - late)
        self.most_in_place = max(self.most_in_place, len(starting) - late - missing)
        if ready >= self.wanted:
            self.full_s = min(self.full_s, now_s)


@settings(max_examples=30)
@given(wanted=st.integers(1, 40), takes=st.lists(st.integers(31, 200), min_size=1, max_size=20))
def test_where_every_start_is_slow_there_are_hardly_more_of_them(wanted: int, takes: list[int]) -> None:
    """Each is late; the pods of before are not there, so none says that starts are quick."""
    world = World(wanted, _cycle(takes)).run()
    assert world.most_in_place <= replaced_at_once(wanted)
    assert len(world.pods) == wanted
    assert {pod.phase for pod in world.pods.values()} == {PodPhase.READY}


@pytest.mark.parametrize("wanted", [1, 2, 10, 50])
def test_starts_that_all_take_a_minute_are_a_tenth_more_at_most(wanted: int) -> None:
    world = World(wanted, lambda _: 60.0).run()
    assert world.most == wanted + replaced_at_once(wanted)
    assert world.full_s <= 61


@settings(max_examples=30)
@given(wanted=st.integers(1, 40), stalled=st.sets(st.integers(0, 39)))
def test_starts_that_stall_are_all_replaced_while_others_are_quick(wanted: int, stalled: set[int]) -> None:
    """A tenth of them at a time: after ten quick starts at the latest as many as are wanted are ready."""
    world = World(wanted, lambda number: inf if number in stalled and number < wanted else 3.0).run()
    turns = ceil(sum(number < wanted for number in stalled) / replaced_at_once(wanted))
    assert world.full_s <= LATE_S + 2 + 4 * turns + 3
    assert len(world.pods) == wanted, "what was late has ended"


def test_a_replacement_that_stalls_too_is_the_last() -> None:
    """Without any that gets ready nobody knows that starts are quick."""
    world = World(10, lambda _: inf).run()
    assert len(world.pods) == 10 + replaced_at_once(10)


def _cycle(takes: Sequence[int]) -> Takes:
    return lambda number: float(takes[number % len(takes)])
