"""Objects drive endpoints: applied, edited, deleted, replaced; however often one looks."""

from __future__ import annotations

from typing import Any

import pytest

from trimtab.control.changes import Conditions
from trimtab.control.endpoints import Endpoints
from trimtab.control.kubernetes.objects import SeenEndpoint
from trimtab.control.kubernetes.options import on_kubernetes
from trimtab.control.kubernetes.store import KubernetesStore
from trimtab.control.kubernetes.watching import Intake
from trimtab.core.clock import ManualClock
from trimtab.core.names import EndpointName
from trimtab.core.spec import EndpointSpec

IRIS = EndpointName("team", "iris")


class Plane:
    """A store, its endpoints, and what was heard of changes."""

    def __init__(self) -> None:
        self.store = KubernetesStore()
        self.endpoints = Endpoints(self.store, ManualClock(), on_kubernetes({}))
        self.heard: list[EndpointName] = []
        self.intake = Intake(self.endpoints, self.store, self.heard.append)


@pytest.fixture
def plane() -> Plane:
    return Plane()


def seen(generation: int = 1, uid: str = "u", image: str = "i:1", **more: Any) -> SeenEndpoint:
    spec = {"models": [{"uri": "own", "custom": {"image": image}}]}
    told: dict[str, Any] = {
        "name": IRIS,
        "uid": uid,
        "version": 1,
        "generation": generation,
        "deleting": False,
        "finalized": True,
        "changed_by": "kubectl",
        "spec": spec,
        "record": "",
        "conditions": (),
    }
    return SeenEndpoint(**told | more)


def test_an_object_is_an_endpoint_and_its_edits_are_generations(plane: Plane) -> None:
    for _ in range(3):
        plane.intake.take(seen())
    record = plane.endpoints.get(IRIS)
    assert (record.generation, record.wanted_revision, plane.heard) == (1, 1, [IRIS])
    plane.intake.take(seen(2, image="i:2"))
    assert plane.endpoints.get(IRIS).wanted_revision == 2
    plane.intake.take(seen(3, image="i:2"))  # what is no spec of ours was edited
    assert plane.endpoints.get(IRIS).generation == 2
    assert plane.store.observed[IRIS] == 3
    assert [change.by for change in plane.endpoints.history(IRIS, 9)] == ["kubectl", "kubectl"]


def test_a_change_by_the_control_api_is_by_whoever_asked(plane: Plane) -> None:
    with plane.intake.asked(IRIS, Conditions("jo@laptop", client_stages_s={"resolve": 1.5})):
        plane.intake.take(seen())
    plane.intake.take(seen())
    assert [change.by for change in plane.endpoints.history(IRIS, 9)] == ["jo@laptop"]
    assert plane.endpoints.get(IRIS).stages == (("resolve", 1.5),)


def test_a_spec_that_cannot_be_taken_is_told_until_it_can(plane: Plane) -> None:
    plane.intake.take(seen())
    plane.intake.take(seen(2, spec={"models": [{"uri": "models:/iris/3"}]}))
    assert "no image for `mlflow`" in str(plane.intake.problems[IRIS])
    assert plane.endpoints.get(IRIS).generation == 1
    plane.intake.take(seen(2, spec=None))
    assert "is not a mapping" in str(plane.intake.problems[IRIS])
    plane.intake.take(seen(3))
    assert plane.intake.problems == {}
    assert plane.endpoints.get(IRIS).generation == 1, "it is what serves"


def test_a_watch_that_is_behind_takes_nothing_back(plane: Plane) -> None:
    plane.intake.take(seen())
    plane.intake.take(seen(2, image="i:2"))  # as the API server answered to a change of ours
    plane.intake.take(seen(1))
    assert plane.endpoints.get(IRIS).wanted_revision == 2


@pytest.mark.parametrize("how", ["deleted", "gone", "replaced"])
def test_what_nobody_wants_any_more_is_drained(plane: Plane, how: str) -> None:
    plane.intake.take(seen())
    replacement = seen(1, uid="another", image="i:2", version=2)
    if how == "gone":
        plane.intake.gone(IRIS, "u")
    else:
        plane.intake.take(seen(2, deleting=True, version=2) if how == "deleted" else replacement)
    assert plane.endpoints.get(IRIS).deleting
    assert plane.heard[-1] == IRIS
    plane.endpoints.remove(IRIS)  # it has drained
    plane.intake.take(replacement)
    record = plane.endpoints.get(IRIS)
    assert (record.deleting, record.generation, record.spec.models[0].custom.image) == (False, 1, "i:2")


def test_deleting_what_never_served_makes_no_endpoint_of_it(plane: Plane) -> None:
    plane.intake.take(seen(spec=None))
    plane.intake.take(seen(2, deleting=True))
    assert plane.endpoints.all() == []
    assert plane.intake.problems == {}


def test_a_watch_that_is_behind_ends_nothing_that_came_since(plane: Plane) -> None:
    plane.intake.take(seen(version=2))
    plane.intake.take(seen(2, version=3, deleting=True))
    plane.endpoints.remove(IRIS)  # it has drained
    plane.intake.take(seen(uid="another", version=5))  # as the API server answered to a change of ours
    plane.intake.take(seen(2, version=3, deleting=True))
    plane.intake.gone(IRIS, "u")
    assert not plane.endpoints.get(IRIS).deleting
    plane.intake.gone(IRIS, "another")
    assert plane.endpoints.get(IRIS).deleting


def test_a_slip_of_ours_about_one_object_is_its_problem(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: EndpointName, spec: EndpointSpec) -> None:
        raise KeyError("a slip of ours")

    monkeypatch.setattr(plane.endpoints, "check", broken)
    plane.intake.take(seen())
    assert "a slip of ours" in str(plane.intake.problems[IRIS])
    assert plane.endpoints.all() == []
