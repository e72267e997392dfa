"""The stages of a rollout, and the time each took."""

from __future__ import annotations

from dataclasses import replace

from trimtab.control.progress import Progress
from trimtab.control.records import EndpointRecord, RevisionRecord
from trimtab.control.rollout import RevisionFacts
from trimtab.core.names import EndpointName
from trimtab.core.pod import Pod, PodPhase, Stage
from trimtab.core.revision import Revision, RevisionKey
from trimtab.core.spec import EndpointSpec, ModelSpec, Source

KEY = RevisionKey(EndpointName("default", "iris"), 1)
MODEL = ModelSpec("iris", Source("models:/iris/1"))
RECORD = EndpointRecord(KEY.endpoint, EndpointSpec((MODEL,)), 1, 100.0, 1, stages=(("resolve", 0.5),))
BEFORE = (("resolve", 0.5), ("environment", 0.0))
POD = Pod("p", KEY, PodPhase.STARTING, "127.0.0.1", 1, 1, started_at_s=101.0)


def facts(*pods: Pod, wanted: int = 1) -> RevisionFacts:
    return RevisionFacts(RevisionRecord(Revision(KEY, MODEL, "h", 0.0)), pods, wanted=wanted)


def ready(pod: Pod, at_s: float, *stages: Stage) -> Pod:
    return replace(pod, phase=PodPhase.READY, ready_at_s=at_s, stages=stages)


def test_each_stage_takes_the_time_since_the_one_before() -> None:
    progress = Progress(1)
    assert progress.stages(RECORD, facts(), complete=False, now_s=100.5) == BEFORE
    told = progress.stages(RECORD, facts(POD), complete=False, now_s=101.5)
    assert told == (*BEFORE, ("start", 1.0))
    loading = replace(POD, stages=(Stage("import", 102.0), Stage("load", 104.0)))
    told = progress.stages(RECORD, facts(loading), complete=False, now_s=104.1)
    assert told[-1] == ("load", 3.0)
    told = progress.stages(RECORD, facts(ready(POD, 104.5, *loading.stages)), complete=False, now_s=105.0)
    assert told[-1] == ("ready", 0.5)
    told = progress.stages(RECORD, facts(ready(POD, 104.5)), complete=True, now_s=105.25)
    assert told[-1] == ("routed", 0.75)
    assert [name for name, _ in told] == ["resolve", "environment", "start", "load", "ready", "routed"]


def test_a_stage_that_is_done_stays_as_it_was() -> None:
    progress = Progress(1)
    progress.stages(RECORD, facts(POD), complete=False, now_s=101.0)
    later = replace(POD, started_at_s=150.0)
    assert progress.stages(RECORD, facts(later), complete=False, now_s=151.0)[-1] == ("start", 1.0)


def test_ready_are_as_many_pods_as_are_wanted_and_failed_ones_say_nothing() -> None:
    progress = Progress(1)
    dead = replace(ready(POD, 102.0), phase=PodPhase.FAILED)
    assert progress.stages(RECORD, facts(dead), complete=False, now_s=103.0) == BEFORE
    two = facts(ready(POD, 103.0), replace(POD, id="q"), wanted=2)
    assert [n for n, _ in progress.stages(RECORD, two, complete=False, now_s=104.0)][-1] == "load"
    told = progress.stages(RECORD, two, complete=True, now_s=106.0)
    assert told[-2:] == (("ready", 0.0), ("routed", 3.0)), "fewer, where the machine has no room"


def test_pods_that_were_there_before_take_no_time() -> None:
    old = ready(replace(POD, started_at_s=10.0), 20.0)
    told = Progress(1).stages(RECORD, facts(old), complete=True, now_s=100.1)
    assert told == (*BEFORE, ("start", 0.0), ("load", 0.0), ("ready", 0.0), ("routed", 0.1))


def test_an_environment_that_is_made_takes_its_time_and_one_that_is_there_none() -> None:
    progress = Progress(1)
    making = replace(facts(), has_environment=False)
    assert progress.stages(RECORD, making, complete=False, now_s=100.5) == (("resolve", 0.5),)
    assert progress.stages(RECORD, facts(), complete=False, now_s=130.0)[-1] == ("environment", 30.0)
    started = replace(POD, started_at_s=131.0)
    assert progress.stages(RECORD, facts(started), complete=False, now_s=131.5)[-1] == ("start", 1.0)
