"""Argo CD's health of a ServingEndpoint: our Lua, and the status that the control plane writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lupa import LuaRuntime

from trimtab.control.kubernetes.status import status_of
from trimtab.core.errors import InvalidInput
from trimtab.v1 import control_pb2 as v1

SCRIPT = (Path(__file__).parents[2] / "deploy" / "argocd-health.lua").read_text()
NOW = "2026-11-28T21:00:00Z"


def health(status: dict[str, Any] | None, generation: int = 2) -> tuple[str, str]:
    lua = LuaRuntime()
    given = {"metadata": {"generation": generation}} | ({"status": status} if status is not None else {})
    lua.globals().obj = lua.table_from(given, recursive=True)
    found = lua.execute(SCRIPT)
    return found["status"], found["message"]


def told(state: v1.State, ready: int = 1, observed: int = 2, **more: Any) -> dict[str, Any]:
    pods = [v1.Pod(phase="ready")] * ready
    revision = v1.Revision(number=3, pods=pods, pods_wanted=1)
    status = v1.Status(state=state, serving_revision=3, revisions=[revision], message="as told", **more)
    return status_of(v1.Endpoint(status=status), None, observed, "", (), NOW)


@pytest.mark.parametrize(
    ("status", "wanted"),
    [
        (None, "Progressing"),
        ({}, "Progressing"),
        (told(v1.READY, observed=1), "Progressing"),
        (told(v1.READY), "Healthy"),
        (told(v1.READY, warnings=["close to its limit"]), "Healthy"),
        (told(v1.READY, capped_by="a quota"), "Degraded"),
        (told(v1.DEPLOYING, ready=0), "Progressing"),
        (told(v1.UPDATING), "Progressing"),
        (told(v1.UPDATE_FAILED, cause="it does not load", hint="look"), "Degraded"),
        (told(v1.FAILED, ready=0, cause="it does not load", hint="look"), "Degraded"),
        (told(v1.DELETING), "Progressing"),
    ],
)
def test_health_follows_the_conditions(status: dict[str, Any] | None, wanted: str) -> None:
    assert health(status)[0] == wanted


def test_a_spec_that_is_refused_is_degraded_and_says_why() -> None:
    wrong = InvalidInput("is below 1", where="concurrency.min", hint="use 1 or more")
    found, message = health(status_of(v1.Endpoint(), wrong, 2, "", (), NOW))
    assert found == "Degraded"
    assert "use 1 or more" in message
