"""The status of a ServingEndpoint: what the control API tells, conditions, and what we remember. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from google.protobuf import json_format

from trimtab.core.errors import TrimtabError
from trimtab.kube import Json
from trimtab.v1 import control_pb2 as v1

MESSAGE_MAX = 32_768  # of a condition, as Kubernetes has it
UNINSTALLED = "Uninstalled"
_DIGITS = re.compile(r"\d+(\.\d+)?")
_REASONS = {
    v1.DEPLOYING: "Deploying",
    v1.READY: "Serving",
    v1.UPDATING: "Updating",
    v1.UPDATE_FAILED: "UpdateFailed",
    v1.FAILED: "Failed",
    v1.DELETING: "Deleting",
}
_UNDER_WAY = frozenset({v1.DEPLOYING, v1.UPDATING, v1.DELETING})


def status_of(
    endpoint: v1.Endpoint,
    problem: TrimtabError | None,
    observed: int,
    record: str,
    before: Iterable[Json],
    now: str,
) -> Json:
    """The whole status.

    `endpoint` is an empty one while no valid spec was seen; `problem` is what is wrong with the newest one.
    `observed` is the generation that was looked at, `before` the conditions as they were, `now` in RFC 3339.
    """
    status = _plain(endpoint.status) | {"observedGeneration": observed}
    if record:
        status["record"] = record
    revision = _serving(endpoint.status)
    if revision is not None:
        status["pods"] = f"{_ready(revision)}/{revision.pods_wanted}"
        status["targetConcurrency"] = revision.target_concurrency
    if problem is not None:
        status["cause"], status["hint"] = str(problem), problem.hint
    status["conditions"] = [
        _dated({**each, "observedGeneration": observed}, before, now)
        for each in _conditions(endpoint, problem)
    ]
    return status


def unserved(status: Json, generation: int, now: str) -> Json:
    """The status of one that no control plane serves any more: what is remembered, and why it is not Ready.

    Each condition that was there stays there, or those who wait for one would wait for ever.
    """
    said = "the release that served it was uninstalled; install it again, or delete this object"
    conditions = [
        _condition("Ready", False, UNINSTALLED, said),
        _condition("Progressing", False, UNINSTALLED, said),
        _condition("Degraded", True, UNINSTALLED, said),
    ]
    before = tuple(status.get("conditions") or ())
    kept = {"record": status["record"]} if status.get("record") else {}
    dated = [_dated({**each, "observedGeneration": generation}, before, now) for each in conditions]
    return kept | {"observedGeneration": generation, "message": said, "conditions": dated}


def essence(status: Json) -> Json:
    """Without figures that change from one second to the next: what is worth a write of its own."""
    kept = {key: value for key, value in status.items() if key not in ("load", "record")}
    for key in ("message", "cause", "cappedBy", "warnings"):
        kept[key] = _DIGITS.sub("#", str(status.get(key, "")))
    kept["conditions"] = [
        {**each, "message": _DIGITS.sub("#", each["message"])} for each in status["conditions"]
    ]
    return kept


def _plain(status: v1.Status) -> Json:
    """As JSON, without the pods, of which there may be thousands, and without what is empty.

    Applied where it was full before, an empty object becomes null, which the API server refuses: nothing
    would be written, and so nothing decided, by a control plane that does not know the load yet.
    """
    brief = v1.Status()
    brief.CopyFrom(status)
    for revision in brief.revisions:
        revision.ClearField("pods")
    found: Json = json_format.MessageToDict(brief)
    return {key: value for key, value in found.items() if value != {}}


def _conditions(endpoint: v1.Endpoint, problem: TrimtabError | None) -> list[Json]:
    status = endpoint.status
    revision = _serving(status)
    # While it is DEPLOYING not every Envoy knows it yet: who waits for Ready would call, and get a 503.
    routed = status.state not in (v1.DEPLOYING, v1.FAILED)
    serves = routed and revision is not None and _ready(revision) > 0
    reason, said = _REASONS.get(status.state, "InvalidSpec"), status.message
    wrong = _wrong(status, problem)
    return [
        _condition("Ready", serves, reason, said or wrong),
        _condition("Progressing", status.state in _UNDER_WAY, reason, said or wrong),
        _condition("Degraded", bool(wrong), _why(status, problem), wrong or "nothing is amiss"),
    ]


def _why(status: v1.Status, problem: TrimtabError | None) -> str:
    if problem is not None:
        return "InvalidSpec"
    if status.cause:
        return _REASONS.get(status.state, "Failed")
    return "Capped" if status.capped_by else "Warning" if status.warnings else "AsExpected"


def _wrong(status: v1.Status, problem: TrimtabError | None) -> str:
    """What is amiss, with what to do; empty if nothing is."""
    if problem is not None:
        return _joined(str(problem), problem.hint)
    if status.cause:
        return _joined(status.cause, status.hint)
    if status.capped_by:
        return f"capped by {status.capped_by}"
    return "; ".join(status.warnings)


def _condition(kind: str, holds: bool, reason: str, message: str) -> Json:
    return {
        "type": kind,
        "status": "True" if holds else "False",
        "reason": reason,
        "message": message[:MESSAGE_MAX],
    }


def _dated(condition: Json, before: Iterable[Json], now: str) -> Json:
    """With the time since when its status is what it is."""
    since: Any = now
    for each in before:
        if each.get("type") == condition["type"] and each.get("status") == condition["status"]:
            since = each.get("lastTransitionTime", now)
    return condition | {"lastTransitionTime": since}


def _serving(status: v1.Status) -> v1.Revision | None:
    """What serves; before anything did, what is to."""
    number = status.serving_revision or status.wanted_revision
    return next((each for each in status.revisions if each.number == number), None)


def _ready(revision: v1.Revision) -> int:
    return sum(pod.phase == "ready" for pod in revision.pods)


def _joined(message: str, hint: str) -> str:
    return f"{message}; {hint}" if hint else message
