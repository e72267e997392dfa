"""The endpoints as Envoy should see them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trimtab.control.draining import Drain, Step
from trimtab.control.records import EndpointRecord, Outcome, RevisionRecord
from trimtab.control.view import QUEUE_MIN, endpoint_view, queue_max, shares, target_concurrency
from trimtab.core.names import EndpointName
from trimtab.core.pod import Pod, PodPhase
from trimtab.core.revision import Revision, RevisionKey
from trimtab.core.spec import ConcurrencyRange, EndpointSpec, ModelSpec, Resources, Source
from trimtab.runtime.catalog import IN_FLIGHT_MAX
from trimtab.xds.world import Backend, Share

NAME = EndpointName("default", "iris")
MODEL = ModelSpec("iris", Source("models:/iris/1"))


def record(wanted: int, serving: int, outcome: Outcome = Outcome.ROLLING, **other: object) -> EndpointRecord:
    base = EndpointRecord(
        NAME, EndpointSpec((MODEL,), request_timeout_s=20.0), 1, 0.0, wanted, serving, outcome
    )
    return replace(base, **other)


def revisions(*numbers: int) -> dict[int, RevisionRecord]:
    return {n: RevisionRecord(Revision(RevisionKey(NAME, n), MODEL, f"h{n}", 0.0)) for n in numbers}


def pod(number: int, port: int, phase: PodPhase = PodPhase.READY) -> Pod:
    return Pod(f"p{port}", RevisionKey(NAME, number), phase, "127.0.0.1", port, 1, 0.0)


def test_all_requests_go_to_what_serves() -> None:
    assert shares(record(2, 1)) == (Share(RevisionKey(NAME, 1), 100),)
    assert shares(record(1, 0)) == ()
    assert shares(record(1, 1, deleting=True)) == ()


def test_a_queue_is_never_shorter_than_its_least() -> None:
    assert queue_max(record(1, 1)) == QUEUE_MIN
    wide = replace(MODEL, concurrency=ConcurrencyRange(1, 500))
    assert queue_max(record(1, 1, spec=EndpointSpec((wide,)))) == 5_000


@pytest.mark.parametrize(
    ("cpu", "learned", "most", "target"),
    [
        (3.6, 0, 64, 4),
        (1.0, 0, 64, 1),
        (0.1, 0, 64, 1),
        (4.0, 0, 2, 2),
        (1.0, 16, 64, 16),
        (1.0, 16, 12, 12),
        (1.0, 5_000, 100_000, IN_FLIGHT_MAX),
    ],
)
def test_the_target_is_what_was_learned_else_the_pods_cores_and_within_the_range(
    cpu: float, learned: int, most: int, target: int
) -> None:
    model = replace(MODEL, resources=Resources(cpu=cpu), concurrency=ConcurrencyRange(1, most))
    revision = RevisionRecord(Revision(RevisionKey(NAME, 1), model, "h", 0.0), learned_limit=learned)
    told = record(1, 1, spec=EndpointSpec((model,)))
    assert target_concurrency(told, revision) == target
    assert endpoint_view(told, {1: revision}, {}, {}).revisions[0].target_concurrency == target


def test_only_ready_pods_are_told_and_leaving_ones_are_marked() -> None:
    pods = (
        pod(1, 3), pod(1, 1), pod(1, 2), pod(1, 4),
        pod(1, 5, PodPhase.STARTING), pod(1, 6, PodPhase.STOPPING), pod(1, 7, PodPhase.FAILED),
    )  # fmt: skip
    drains = {
        "p2": Drain("p2", 0.0, 9.0),
        "p3": Drain("p3", 0.0, 9.0, Step.EMPTYING),
        "p4": Drain("p4", 0.0, 9.0, Step.REMOVED),
    }
    view = endpoint_view(record(1, 1), revisions(1), {1: pods}, drains)
    (told,) = view.revisions
    assert told.backends == tuple(Backend("127.0.0.1", port, port > 1) for port in (1, 2, 3))
    assert (view.request_timeout_s, told.queue_max, told.target_concurrency) == (20.0, QUEUE_MIN, 1)


def test_what_serves_what_is_wanted_and_what_still_has_pods() -> None:
    known = revisions(1, 2, 3, 4)
    pods = {2: (pod(2, 2),), 3: (pod(3, 3, PodPhase.STOPPING),)}

    def numbers(told: EndpointRecord) -> list[int]:
        return [revision.key.number for revision in endpoint_view(told, known, pods, {}).revisions]

    assert numbers(record(4, 1)) == [1, 2, 4]
    assert numbers(record(4, 1, Outcome.FAILED)) == [1, 2]
    assert numbers(record(4, 0)) == [2, 4]
