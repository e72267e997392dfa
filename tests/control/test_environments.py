"""Pods start once their revision's environment is there, and what keeps it from being made is told."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from trimtab.control.environments import ModelEnvironments, OwnEnvironment
from trimtab.control.home import Home
from trimtab.control.records import Outcome
from trimtab.control.rollout import FAILURES_MAX
from trimtab.control.status import Seen, endpoint_message
from trimtab.core.errors import Failed, Unreachable
from trimtab.core.names import EndpointName
from trimtab.core.revision import Revision, RevisionKey
from trimtab.core.spec import ModelSpec, Source
from trimtab.environment import Keeper, Place
from trimtab.v1 import control_pb2 as v1

MAKING = Place(None, "being made (Python 3.10 is wanted, trimtab's is 3.11.7): Resolved 80 packages")
THERE = Place(Path("/e/python"), "its own, 0a1b2c3d: Python 3.10.13, 2 requirements")


class Told(OwnEnvironment):
    """An environment that is what the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.place = MAKING
        self.tries = 0

    def of(self, revision: Revision, *, look: bool = False) -> Place:
        return self.place

    def try_again(self, revision: Revision) -> None:
        self.tries += 1
        self.place = MAKING


@pytest.fixture
def told(plane: Any) -> Told:
    environments = plane.reconciler._environments = Told()
    return environments


def message(plane: Any, place: Place) -> v1.Status:
    record = plane.record()
    revisions = plane.endpoints.revisions(record.name)
    seen = Seen(record, revisions, plane.reconciler.pods(record.name), environments={1: place})
    return endpoint_message(seen).status


async def test_no_pod_starts_before_its_environment_is_there(plane: Any, told: Told, spec: Any) -> None:
    plane.apply(spec(1))
    await plane.look(3)
    assert plane.fleet.started == []
    status = message(plane, MAKING)
    assert status.message == f"the environment of revision 1 is {MAKING.words}"
    assert next(stage.name for stage in status.stages if not stage.done) == "environment"
    told.place = THERE
    await plane.look(3)
    assert len(plane.fleet.started) == 1
    assert message(plane, THERE).revisions[0].environment == THERE.words


async def test_requirements_that_cannot_be_had_fail_the_revision_at_once(
    plane: Any, told: Told, spec: Any
) -> None:
    plane.apply(spec(1))
    error = Failed("the model's requirements cannot be had: x==99", hint="log it again")
    told.place = Place(None, "not made", error, ("error: No solution",))
    await plane.look(3)
    record = plane.record()
    assert record.outcome is Outcome.FAILED
    assert record.failure.cause == str(error)
    assert (record.failure.hint, record.failure.log_tail) == ("log it again", ("error: No solution",))
    assert (plane.fleet.started, told.tries) == ([], 0)


async def test_an_index_that_is_away_is_asked_again_until_that_is_given_up(
    plane: Any, told: Told, spec: Any
) -> None:
    plane.apply(spec(1))
    for _ in range(200):
        if told.place is MAKING:
            told.place = Place(None, "not made", Unreachable("the package index does not answer"))
        await plane.look()
        if plane.record().outcome is Outcome.FAILED:
            break
        plane.clock.advance(0.5)
        await plane.look()  # which may begin to make it again
    assert plane.record().outcome is Outcome.FAILED
    assert plane.endpoints.revisions(plane.record().name)[1].failures == FAILURES_MAX
    assert told.tries == FAILURES_MAX - 1
    assert plane.fleet.started == []


def test_only_runtimes_that_load_the_model_themselves_have_environments(tmp_path: Path) -> None:
    environments = ModelEnvironments(Keeper(tmp_path), Home.open(tmp_path))
    folder = tmp_path / "models" / "sha256-00"
    folder.mkdir()
    (folder / "python_env.yaml").write_text("python: 3.9.1\ndependencies: []\n")

    def revision(**given: str) -> Revision:
        model = ModelSpec("m", Source("m", digest="sha256:00"), **given)
        return Revision(RevisionKey(EndpointName("default", "m"), 1), model, "h", 0.0)

    assert environments.python(revision(runtime="triton")) == Path(sys.executable)
    assert environments.of(revision(runtime="triton")).words == "its server's own", "none of ours"
    assert environments.python(revision(env_manager="local")) == Path(sys.executable)
    with pytest.raises(Failed, match="being made"):
        environments.python(revision())
