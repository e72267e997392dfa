"""Changes by the control API: one after the other, and never into an object that goes."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from trimtab.control.changes import Conditions
from trimtab.control.endpoints import Endpoints
from trimtab.control.kubernetes.changes import KubernetesChanges
from trimtab.control.kubernetes.objects import SeenEndpoint, read_endpoint
from trimtab.control.kubernetes.options import on_kubernetes
from trimtab.control.kubernetes.store import KubernetesStore
from trimtab.control.kubernetes.watching import Intake
from trimtab.control.records import Failure, Outcome
from trimtab.core.clock import ManualClock
from trimtab.core.errors import Conflict, NotFound
from trimtab.core.names import EndpointName
from trimtab.core.spec import Custom, EndpointSpec, ModelSpec, Source, with_defaults

IRIS = EndpointName("team", "iris")


class Server:
    """The one object, which each write changes; it answers once it may."""

    def __init__(self) -> None:
        self.metadata: dict[str, Any] = {"uid": "u", "generation": 0}
        self.spec: object = None
        self.version = 0
        self.answers = asyncio.Event()

    async def apply(self, path: str, body: dict[str, Any], owner: str, *, force: bool) -> bytes:
        await self.answers.wait()
        self.version += 1
        self.metadata["generation"] += body["spec"] != self.spec
        self.spec = body["spec"]
        metadata = {**body["metadata"], **self.metadata, "resourceVersion": str(self.version)}
        return orjson.dumps({**body, "metadata": metadata})


class Watched:
    """What the watch has told."""

    def __init__(self, intake: Intake) -> None:
        self.take = intake.take
        self.told: SeenEndpoint | None = None

    def seen(self, name: EndpointName) -> SeenEndpoint | None:
        return self.told


class Plane:
    def __init__(self) -> None:
        store = KubernetesStore()
        self.server = Server()
        self.endpoints = Endpoints(store, ManualClock(), on_kubernetes({}))
        intake = Intake(self.endpoints, store, lambda _: None)
        self.watched = Watched(intake)
        self.changes = KubernetesChanges(self.server, self.endpoints, self.watched, intake)  # type: ignore[arg-type]

    async def apply(self, image: str, by: str = "jo", expected_generation: int = 0) -> int:
        model = ModelSpec("iris", Source("own", "own"), "custom", custom=Custom(image=image))
        spec = with_defaults("iris", EndpointSpec((model,)))
        asked = Conditions(by, expected_generation=expected_generation)
        return (await self.changes.apply(IRIS, spec, asked)).generation


@pytest.fixture
def plane() -> Plane:
    return Plane()


async def test_of_two_who_change_the_same_generation_one_is_told(plane: Plane) -> None:
    plane.server.answers.set()
    assert await plane.apply("i:1") == 1
    plane.server.answers.clear()
    both = [asyncio.create_task(plane.apply(f"i:{by}", by, expected_generation=1)) for by in ("jo", "al")]
    await asyncio.sleep(0)
    plane.server.answers.set()
    first, second = await asyncio.gather(*both, return_exceptions=True)
    assert first == 2
    assert isinstance(second, Conflict)
    assert plane.server.version == 2, "nothing was written for it"
    assert [change.by for change in plane.endpoints.history(IRIS, 9)] == ["jo", "jo"]


async def test_a_rollback_is_told_as_one(plane: Plane) -> None:
    plane.server.answers.set()
    for image in ("i:1", "i:2"):
        await plane.apply(image)
    await plane.changes.rollback(IRIS, 1, "al")
    told = plane.endpoints.history(IRIS, 1)
    assert [(each.by, each.revision, each.what) for each in told] == [
        ("al", 1, "rolled back from revision 2 to 1")
    ]
    assert await plane.apply("i:2") == 4, "what comes next is told as it is"
    assert plane.endpoints.history(IRIS, 1)[0].what == "server i:1 (invocations) → i:2 (invocations)"


async def test_the_same_again_is_tried_again_if_it_failed_and_changes_nothing_else(plane: Plane) -> None:
    """Its object stays as it is, so that the watch tells of nothing."""
    plane.server.answers.set()
    assert await plane.apply("i:1") == 1
    assert await plane.apply("i:1") == 1
    plane.endpoints.end_rollout(plane.endpoints.get(IRIS), Outcome.FAILED, Failure("no such image"))
    assert await plane.apply("i:1", "al") == 2
    assert plane.server.metadata["generation"] == 1
    record, (change, *_) = plane.endpoints.get(IRIS), plane.endpoints.history(IRIS, 9)
    assert (record.outcome, change.by, change.what) == (Outcome.ROLLING, "al", "tried again")


async def test_nothing_is_written_to_an_object_that_goes(plane: Plane) -> None:
    body = {"metadata": {"namespace": "team", "name": "iris", "resourceVersion": "9"}}
    body["metadata"] |= {"uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z"}
    plane.watched.told = read_endpoint(body)
    plane.server.answers.set()
    with pytest.raises(Conflict, match="is being deleted"):
        await plane.apply("i:1")
    assert plane.server.version == 0


async def test_an_answer_that_it_goes_is_told(plane: Plane) -> None:
    plane.server.metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"  # which the watch did not tell yet
    plane.server.answers.set()
    with pytest.raises(Conflict, match="is being deleted"):
        await plane.apply("i:1")
    with pytest.raises(NotFound):
        plane.endpoints.get(IRIS)
