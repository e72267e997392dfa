"""The conditions of a ServingEndpoint."""

from __future__ import annotations

import pytest

from trimtab.control.kubernetes.status import status_of
from trimtab.v1 import control_pb2 as v1


@pytest.mark.parametrize(
    ("state", "ready"),
    [(v1.DEPLOYING, "False"), (v1.READY, "True"), (v1.UPDATING, "True"), (v1.FAILED, "False")],
)
def test_ready_means_that_every_envoy_knows_it(state: v1.State.ValueType, ready: str) -> None:
    """A pod that is ready is not enough: who waited for Ready calls, and must not be told to wait."""
    revision = v1.Revision(number=1, pods=[v1.Pod(phase="ready")])
    endpoint = v1.Endpoint(status=v1.Status(state=state, wanted_revision=1, revisions=[revision]))
    status = status_of(endpoint, None, 1, "", (), "2026-01-01T00:00:00Z")
    assert {each["type"]: each["status"] for each in status["conditions"]}["Ready"] == ready
