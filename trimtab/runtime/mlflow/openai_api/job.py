"""A call on its way to the model: MLflow's own way, with what its clients expect put right."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass, replace
from typing import Any

from trimtab.runtime.mlflow.answer import JSON, Answer, Fault, error
from trimtab.runtime.mlflow.fast.path import FastPath, Question
from trimtab.runtime.mlflow.job import Job, Waiter
from trimtab.runtime.mlflow.openai_api.calls import RESPONSES, Call
from trimtab.runtime.mlflow.scoring import Scorer

_NEWER, _OLDER = "max_completion_tokens", "max_tokens"  # OpenAI's newer name, and the one that MLflow has


class BadCall(Exception):
    """A call that its caller has to change."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.answer = error(status, "BAD_REQUEST", message, Fault.CALLER)


@dataclass(frozen=True)
class Asked:
    """A body that was read: what the model gets of it, and as what the caller knows the model."""

    call: Call
    body: dict[str, Any]
    model: str
    stream: bool


def read(call: Call, called: tuple[str, ...], fields: frozenset[str], body: bytes) -> Asked:
    """What a body asks of a model whose signature knows these fields. Raises BadCall."""
    told = _object(body)
    if call.key not in told:
        raise BadCall(f"`{call.key}` is missing")
    # To OpenAI null is as if it were not said, and a text the one message of a user; MLflow knows neither.
    told = {name: value for name, value in told.items() if value is not None or name == call.key}
    if call is RESPONSES and isinstance(told["input"], str):
        told["input"] = [{"role": "user", "content": told["input"]}]
    model = _field(told, fields, "model", str)
    if model is not None and called and model not in called:
        raise BadCall(f"the model `{model}` does not exist; here is `{called[0]}`", 404)
    stream = bool(_field(told, fields, "stream", bool))
    if stream and not call.chunk:
        raise BadCall(f"{call.route} has no streams")
    if _NEWER in told and _NEWER not in fields and _OLDER in fields:
        told.setdefault(_OLDER, told.pop(_NEWER))
    return Asked(call, told, model or (called[0] if called else "model"), stream)


def _object(body: bytes) -> dict[str, Any]:
    try:
        told = json.loads(body)
    except (ValueError, RecursionError) as problem:
        raise BadCall(f"the body is not JSON: {problem}") from problem
    if not isinstance(told, dict):
        raise BadCall("the body must be a JSON object")
    return told


def _field(told: dict[str, Any], fields: frozenset[str], name: str, kind: type) -> Any:
    """A field for the server; the model gets it too if its signature knows it."""
    value = told.get(name) if name in fields else told.pop(name, None)
    if value is not None and not isinstance(value, kind):
        raise BadCall(f"`{name}` must be a {kind.__name__}")
    return value


class CallJob(Job):
    """One call, answered whole."""

    __slots__ = ("asked",)

    def __init__(self, asked: Asked, answered: Waiter) -> None:
        super().__init__(b"", JSON, answered)
        self.asked = asked

    def read(self, fast: FastPath) -> Question | None:  # noqa: ARG002
        """None: only MLflow's own way knows such bodies."""
        return None

    def asked_of(self, scorer: Scorer) -> Answer:
        """The answer of `/invocations` to this body, completed. Raises nothing."""
        answer = scorer.answer(json.dumps(self.asked.body).encode(), JSON)
        if answer.status != 200:
            return answer
        found = completed(json.loads(answer.body), self.asked)
        if found is None:
            words = "the model's answer is none of OpenAI's; /invocations shows it"
            return error(500, "INTERNAL_ERROR", words, Fault.MODEL)
        return replace(answer, body=json.dumps(found))


def completed(told: Any, asked: Asked) -> dict[str, Any] | None:
    """What a model answered, with an id, a time and a name if it has none; None if it is no object."""
    if isinstance(told, list) and len(told) == 1:  # of a pipeline, which answers a list of prompts
        (told,) = told
    if not isinstance(told, dict):
        return None
    wanted: dict[str, Any] = {"model": asked.model}
    if asked.call.prefix:
        wanted |= {"id": f"{asked.call.prefix}{secrets.token_hex(12)}", "created": int(time.time())}
    return {**told, **{name: value for name, value in wanted.items() if told.get(name) is None}}
