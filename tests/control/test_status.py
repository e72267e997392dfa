"""What people are told of an endpoint: its state, the reason, what comes next."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from trimtab.control.draining import Drain
from trimtab.control.observations import LoadNow
from trimtab.control.records import EndpointRecord, Failure, Outcome, RevisionRecord
from trimtab.control.rollout import FAILURES_MAX
from trimtab.control.scrape import Counts
from trimtab.control.status import Seen, endpoint_message, state_of
from trimtab.core.names import EndpointName
from trimtab.core.pod import Pod, PodPhase
from trimtab.core.revision import Revision, RevisionKey
from trimtab.core.spec import EndpointSpec, ModelSpec, Source, with_defaults
from trimtab.v1 import control_pb2 as v1

NAME = EndpointName("default", "iris")
SOURCE = Source("models:/iris@best", resolved_uri="models:/iris/7", version="7", digest="sha256:0")
MODEL = ModelSpec("iris", SOURCE)
OOM = Failure("was killed: out of memory", "give it more", ("line 1", "line 2"))


def record(wanted: int = 1, serving: int = 1, outcome: Outcome = Outcome.SERVING, **other: Any) -> Any:
    spec = with_defaults("iris", EndpointSpec((MODEL,)))
    return replace(EndpointRecord(NAME, spec, 2, 0.0, wanted, serving, outcome), **other)


def revision(number: int, failures: int = 0, failed_at_s: float = 3.0) -> RevisionRecord:
    key = RevisionKey(NAME, number)
    return RevisionRecord(Revision(key, MODEL, f"h{number}", 0.0), 2, failures, failed_at_s)


def pod(number: int, index: int, phase: PodPhase = PodPhase.READY) -> Pod:
    ready_at_s = 2.0 if phase is PodPhase.READY else None
    key = RevisionKey(NAME, number)
    return Pod(f"r{number}-{index}", key, phase, "127.0.0.1", 9, 7, 1.0, ready_at_s)


def seen(told: EndpointRecord, ready: tuple[int, int] = (2, 0), failures: int = 0, **other: Any) -> Seen:
    """`ready`: pods ready of revision 1 and of 2; `failures`: of the wanted revision."""
    pods = {
        n: tuple(pod(n, i) for i in range(count)) for n, count in zip((1, 2), ready, strict=True) if count
    }
    known = {n: revision(n, failures if n == told.wanted_revision else 0) for n in (1, 2)}
    return Seen(told, known, pods, **other)


def looping(told: Seen) -> Seen:
    """The same, but the last failure came before any pod that is ready now was."""
    return replace(told, revisions={n: replace(r, failed_at_s=1.0) for n, r in told.revisions.items()})


ROLLING, SERVING, FAILED = Outcome.ROLLING, Outcome.SERVING, Outcome.FAILED


@pytest.mark.parametrize(
    ("told", "state", "message"),
    [
        (seen(record()), "READY", "revision 1 serves with 2 of 2 pods"),
        (seen(record(), (1, 0)), "READY", "revision 1 serves with 1 of 2 pods"),
        (seen(record(), (1, 0), FAILURES_MAX), "READY", "revision 1 serves with 1 of 2 pods"),
        (looping(seen(record(), (1, 0), 1)), "READY", "revision 1 serves with 1 of 2 pods"),
        (looping(seen(record(), (1, 0), 2)), "FAILED", "pods of revision 1 fail again and again"),
        (seen(record(), answers=Counts(5, 5)), "FAILED", "revision 1 answers nothing but errors"),
        (seen(record(), answers=Counts(5, 4)), "READY", "revision 1 serves with 2 of 2 pods"),
        (seen(record(), (0, 0)), "DEPLOYING", "revision 1 has 0 of 2 pods ready"),
        (seen(record(), (0, 0), last_failure=OOM), "FAILED", "revision 1 does not serve"),
        (
            seen(record(), (0, 0), FAILURES_MAX, retry_in_s=7.6),
            "FAILED",
            "revision 1 does not serve; tried again in 8 s",
        ),
        (seen(record(1, 0, ROLLING, generation=1), (0, 0)), "DEPLOYING", "revision 1 has 0 of 2 pods ready"),
        (seen(record(2, 0, ROLLING), (0, 0)), "DEPLOYING", "revision 2 has 0 of 2 pods ready"),
        (
            seen(record(1, 0, ROLLING, generation=1), (0, 0), 1),
            "DEPLOYING",
            "revision 1 has 0 of 2 pods ready (try 2 of 3)",
        ),
        (
            seen(record(1, 1, ROLLING), (1, 0), 6),
            "UPDATING",
            "revision 1 has 1 of 2 pods ready (try 7)",
        ),
        (
            seen(record(2, 1, ROLLING), (2, 1)),
            "UPDATING",
            "revision 2 has 1 of 2 pods ready; revision 1 serves",
        ),
        (seen(record(2, 2, ROLLING), (2, 1)), "UPDATING", "revision 2 has 1 of 2 pods ready"),
        (seen(record(2, 1, FAILED)), "UPDATE_FAILED", "revision 2 failed; revision 1 serves on"),
        (seen(record(2, 1, FAILED), (0, 0)), "FAILED", "revision 2 failed; revision 1 does not serve"),
        (seen(record(1, 0, FAILED), (0, 0)), "FAILED", "revision 1 does not serve"),
        (
            seen(record(1, 1, SERVING, deleting=True)),
            "DELETING",
            "its routes are gone; its pods finish what they have",
        ),
    ],
)
def test_states(told: Seen, state: str, message: str) -> None:
    assert v1.State.Name(state_of(told)) == state
    assert endpoint_message(told).status.message == message


def test_draining_pods_do_not_serve() -> None:
    drains = {f"r1-{index}": Drain(f"r1-{index}", 0.0, 10.0) for index in range(2)}
    told = seen(record(), drains=drains)
    assert state_of(told) == v1.DEPLOYING
    status = endpoint_message(told).status
    assert [pod.phase for pod in status.revisions[0].pods] == ["draining", "draining"]


@pytest.mark.parametrize(
    ("told", "cause"),
    [
        (seen(record(2, 1, FAILED, failure=OOM)), OOM.cause),
        (seen(record(2, 1, FAILED, failure=OOM), last_failure=Failure("later")), OOM.cause),
        (seen(record(1, 1, SERVING), last_failure=OOM), ""),
        (seen(record(1, 1, SERVING), (1, 0), FAILURES_MAX, last_failure=OOM), OOM.cause),
        (seen(record(1, 1, SERVING), (0, 0), last_failure=OOM), OOM.cause),
        (seen(record(2, 1, ROLLING), failures=1, last_failure=OOM), OOM.cause),
        (seen(record(2, 1, ROLLING), last_failure=OOM), ""),
    ],
)
def test_a_cause_comes_with_its_hint_and_log_or_not_at_all(told: Seen, cause: str) -> None:
    status = endpoint_message(told).status
    assert status.cause == cause
    assert (status.hint, list(status.log_tail)) == ((OOM.hint, list(OOM.log_tail)) if cause else ("", []))


def test_stages_are_told_in_order_with_those_to_come() -> None:
    done = (("resolve", 0.5), ("download", 2.0), ("environment", 9.0), ("start", 0.1), ("load", 3.0))
    stages = endpoint_message(seen(record(stages=done))).status.stages
    assert [(s.name, s.took_s, s.done) for s in stages] == [
        ("resolve", 0.5, True), ("download", 2.0, True), ("environment", 9.0, True),
        ("start", 0.1, True), ("load", 3.0, True), ("ready", 0.0, False), ("routed", 0.0, False),
    ]  # fmt: skip
    ours = endpoint_message(seen(record())).status.stages
    assert [stage.name for stage in ours] == ["environment", "start", "load", "ready", "routed"]


def test_unknown_is_unset_and_zero_is_zero() -> None:
    status = endpoint_message(seen(record())).status
    assert not status.load.HasField("requests_per_s")
    assert not status.revisions[0].pods[0].HasField("in_flight")
    load = LoadNow(0.0, 0.0, 1.0, 2.0, 3.0, 0.01, 0.02)
    told = seen(record(), load=load, in_flight={"r1-0": 0}, cpu_cores={"r1-1": 0.5})
    status = endpoint_message(told).status
    assert status.load.HasField("requests_per_s")
    assert (status.load.queued, status.load.p99_s) == (1.0, 0.02)
    assert [p.HasField("in_flight") for p in status.revisions[0].pods] == [True, False]
    assert status.revisions[0].pods[1].cpu_cores == 0.5


def test_revisions_are_those_that_matter_newest_first() -> None:
    told = seen(record(2, 1, ROLLING), (2, 1), capped_by="this machine", warnings=("w",), url="http://u")
    message = endpoint_message(told)
    status = message.status
    assert [(r.number, r.percent, r.pods_wanted, len(r.pods)) for r in status.revisions] == [
        (2, 0, 2, 1),
        (1, 100, 2, 2),
    ]
    assert (status.revisions[0].uri, status.revisions[0].version) == ("models:/iris/7", "7")
    assert status.revisions[0].target_concurrency == 1
    assert (status.capped_by, list(status.warnings), status.url) == ("this machine", ["w"], "http://u")
    assert (message.generation, status.observed_generation, status.wanted_revision) == (2, 2, 2)
    failed = endpoint_message(seen(record(2, 1, FAILED))).status
    assert [r.pods_wanted for r in failed.revisions] == [0, 2], "nothing is wanted of what failed"
    gone = endpoint_message(seen(record(deleting=True))).status
    assert [(r.percent, r.pods_wanted) for r in gone.revisions if r.number == 1] == [(0, 0)]
