"""The status that people and `kubectl wait` read: conditions, figures, and what is worth a write."""

from __future__ import annotations

from typing import Any

import pytest

from trimtab.control.kubernetes.events import news_of
from trimtab.control.kubernetes.status import essence, status_of
from trimtab.core.errors import InvalidInput
from trimtab.core.names import EndpointName
from trimtab.v1 import control_pb2 as v1

IRIS = EndpointName("team", "iris")
NOW = "2026-01-01T00:00:00Z"
PROBLEM = InvalidInput("is too large", where="maxPods", hint="at most 10000")


def endpoint(state: v1.State.ValueType = v1.READY, ready: int = 2, **status: Any) -> v1.Endpoint:
    told = v1.Endpoint(generation=9)
    told.status.state = state
    told.status.serving_revision = told.status.wanted_revision = 1
    revision = told.status.revisions.add(number=1, pods_wanted=3, target_concurrency=4)
    for number in range(3):
        revision.pods.add(id=f"p{number}", phase="ready" if number < ready else "starting")
    for name, value in status.items():
        setattr(told.status, name, value)
    return told


def written(told: v1.Endpoint, problem: InvalidInput | None = None, before: Any = ()) -> dict[str, Any]:
    return status_of(told, problem, 3, "record", before, NOW)


def conditions(status: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {each["type"]: (each["status"], each["reason"]) for each in status["conditions"]}


@pytest.mark.parametrize(
    ("told", "ready", "progressing", "degraded"),
    [
        (endpoint(), ("True", "Serving"), "False", ("False", "AsExpected")),
        (endpoint(v1.DEPLOYING, 0), ("False", "Deploying"), "True", ("False", "AsExpected")),
        (endpoint(v1.UPDATING), ("True", "Updating"), "True", ("False", "AsExpected")),
        (
            endpoint(v1.UPDATE_FAILED, cause="exits"),
            ("True", "UpdateFailed"),
            "False",
            ("True", "UpdateFailed"),
        ),
        (endpoint(v1.FAILED, 0, cause="exits"), ("False", "Failed"), "False", ("True", "Failed")),
        (endpoint(v1.FAILED, 3, cause="answers errors"), ("False", "Failed"), "False", ("True", "Failed")),
        (endpoint(capped_by="the cluster: full"), ("True", "Serving"), "False", ("True", "Capped")),
        (endpoint(v1.DELETING, 0), ("False", "Deleting"), "True", ("False", "AsExpected")),
    ],
)
def test_conditions_tell_whether_it_serves_moves_and_suffers(
    told: v1.Endpoint, ready: tuple[str, str], progressing: str, degraded: tuple[str, str]
) -> None:
    found = conditions(written(told))
    assert (found["Ready"], found["Progressing"][0], found["Degraded"]) == (ready, progressing, degraded)


def test_a_spec_that_was_not_taken_is_told_and_what_serves_is_still_ready() -> None:
    found = written(endpoint(), PROBLEM)
    assert conditions(found)["Degraded"] == ("True", "InvalidSpec")
    assert conditions(found)["Ready"] == ("True", "Serving")
    assert found["cause"] == "maxPods: is too large"
    assert found["conditions"][2]["message"] == "maxPods: is too large; at most 10000"
    never = written(v1.Endpoint(), PROBLEM)
    assert conditions(never)["Ready"] == ("False", "InvalidSpec")


def test_figures_are_there_and_pods_are_not() -> None:
    found = written(endpoint())
    assert (found["pods"], found["targetConcurrency"]) == ("2/3", 4)
    assert (found["observedGeneration"], found["record"]) == (3, "record")
    assert "pods" not in found["revisions"][0]
    assert all(each["observedGeneration"] == 3 for each in found["conditions"])


def test_a_condition_keeps_the_time_since_when_it_holds() -> None:
    before = written(endpoint())["conditions"]
    for each in before:
        each["lastTransitionTime"] = "2025-01-01T00:00:00Z"
    after = {
        each["type"]: each["lastTransitionTime"]
        for each in written(endpoint(capped_by="x"), None, before)["conditions"]
    }
    assert after == {"Ready": "2025-01-01T00:00:00Z", "Progressing": "2025-01-01T00:00:00Z", "Degraded": NOW}


def test_only_what_matters_is_worth_a_write() -> None:
    plain = essence(written(endpoint()))
    busy = endpoint()
    busy.status.load.in_flight = 5.0
    assert essence(written(busy)) == plain
    ago = [essence(written(endpoint(message=f"a pod was lost {n} s ago"))) for n in (3, 40)]
    assert ago[0] == ago[1] != plain
    failed = [f"the model failed each of the last {n} requests" for n in (9, 10)]
    one, other = (essence(written(endpoint(v1.FAILED, cause=cause))) for cause in failed)
    assert one == other
    assert essence(written(endpoint(ready=3))) != plain
    assert essence(written(endpoint(), PROBLEM)) != plain


def test_events_tell_changes_once_and_failures_as_warnings() -> None:
    ready = written(endpoint())["conditions"]
    (news,) = news_of(IRIS, (), ready)
    assert (news.reason, news.warning) == ("Serving", False)
    assert list(news_of(IRIS, ready, ready)) == []
    failed = written(endpoint(v1.UPDATE_FAILED, cause="exits with 3", hint="see its log"))["conditions"]
    (news,) = news_of(IRIS, ready, failed)
    assert (news.reason, news.note, news.warning) == ("UpdateFailed", "exits with 3; see its log", True)
    assert [each.reason for each in news_of(IRIS, failed, ready)] == ["Serving"]


def test_a_load_that_nobody_knows_is_not_there() -> None:
    """An empty one, where the control plane before has written figures, is refused by the API server."""
    told = endpoint()
    told.status.load.SetInParent()
    assert "load" not in written(told)
    told.status.load.in_flight = 0.0
    assert written(told)["load"] == {"inFlight": 0.0}
