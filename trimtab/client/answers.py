"""What a reply means: a prediction, or an error that tells whose it is. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trimtab.core.errors import TrimtabError

FAULT_HEADER = "x-trimtab-fault"
SENT_HEADER = "x-trimtab-sent"  # bytes of the request that pods were sent, where the gateway itself answers
MESSAGE_LENGTH_MAX = 2_000
_HINTS = {
    "caller": "mend the request: its message says what is off",
    "model": "the model failed on it: see `trimtab logs {name}`",
    "platform": "it may work later: see `trimtab status {name}`",
}


@dataclass(frozen=True)
class Reply:
    """An HTTP answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class ServingError(TrimtabError):
    """An endpoint answered, and not with a prediction.

    `status` is HTTP's; `fault` tells whose it is (`caller`, `model`, `platform`; empty: the answer does not
    say); `error_code` is MLflow's, `request_id` names the request in logs; both may be empty.
    """

    def __init__(self, message: str, *, where: str, hint: str, reply: Reply, error_code: str = "") -> None:
        super().__init__(message, where=where, hint=hint)
        self.status = reply.status
        self.fault = reply.headers.get(FAULT_HEADER, "")
        self.error_code = error_code
        self.request_id = reply.headers.get("x-request-id", "")

    def __reduce__(self) -> tuple[Any, ...]:
        """So that it comes back from another process."""
        return _unpickled, (self.message,), self.__dict__


def _unpickled(message: str) -> ServingError:
    return ServingError(message, where="", hint="", reply=Reply(0, {}, b""))


def value_of(reply: Reply, endpoint: str) -> Any:
    """The answer's JSON. Raises ServingError unless it is a success in JSON."""
    if not 200 <= reply.status < 300:
        raise refused(reply, endpoint)
    try:
        return json.loads(reply.body)
    except ValueError:
        hint = "does this address belong to trimtab?"
        message = f"answered {reply.status} with something that is not JSON: {_text(reply)}"
        raise ServingError(message, where=endpoint, hint=hint, reply=reply) from None


def predictions_of(value: Any) -> Any:
    """What was predicted, out of MLflow's envelope; an answer without one is it itself."""
    return value["predictions"] if isinstance(value, dict) and "predictions" in value else value


def refused(reply: Reply, endpoint: str) -> ServingError:
    """The error that a reply stands for."""
    said, code = _said(reply)
    fault = reply.headers.get(FAULT_HEADER, "")
    whose = f" ({fault}'s fault)" if fault else ""
    hint = _hint(reply.status, fault, endpoint)
    message = f"answered {reply.status}{whose}: {said}"
    return ServingError(message, where=endpoint, hint=hint, reply=reply, error_code=code)


def may_be_asked_again(reply: Reply, idempotent: bool = False) -> bool:
    """Whether it was surely turned away before a model saw it: 429, or 503 that asks to come again later.

    Not a model's own 503, nor, unless the request is `idempotent`, one of a pod that went away with it.
    """
    if reply.status not in (429, 503) or reply.headers.get(FAULT_HEADER) == "model":
        return False
    if idempotent or SENT_HEADER in reply.headers:
        return idempotent or reply.headers[SENT_HEADER] == "0"
    return reply.status == 429 or "retry-after" in reply.headers


def _said(reply: Reply) -> tuple[str, str]:
    """The message and the code, of MLflow's form of an error, FastAPI's, or plain text."""
    try:
        content = json.loads(reply.body)
    except ValueError:
        return _text(reply), ""
    if not isinstance(content, dict):
        return _text(reply), ""
    message = content.get("message") or content.get("detail") or content.get("error") or _text(reply)
    return str(message)[:MESSAGE_LENGTH_MAX], str(content.get("error_code") or "")


def _hint(status: int, fault: str, endpoint: str) -> str:
    if status in (401, 403):
        return "give the gateway's key: api_key=…, or TRIMTAB_API_KEY"
    if status == 404:
        return f"is there an endpoint `{endpoint}`? `trimtab status` lists them"
    return _HINTS.get(fault, "see `trimtab status {name}`").format(name=endpoint)


def _text(reply: Reply) -> str:
    return reply.body.decode(errors="replace").strip()[:MESSAGE_LENGTH_MAX] or "an empty body"
