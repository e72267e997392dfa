"""The calls, whole or in parts, and the list of models."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from trimtab.runtime.mlflow import wording
from trimtab.runtime.mlflow.answer import Answer, Fault, error
from trimtab.runtime.mlflow.dispatch import Dispatch
from trimtab.runtime.mlflow.invocation import (
    STOPPED,
    TIMED_OUT,
    TOO_LARGE,
    ClientLeft,
    Invocations,
    body_of,
)
from trimtab.runtime.mlflow.job import Job, Waiter
from trimtab.runtime.mlflow.metrics import Meter
from trimtab.runtime.mlflow.openai_api.calls import Call, call_of, fields_of
from trimtab.runtime.mlflow.openai_api.events import Stream
from trimtab.runtime.mlflow.openai_api.job import Asked, BadCall, CallJob, read
from trimtab.runtime.mlflow.telemetry import Telemetry

MODELS = "/v1/models"
OWNER = "trimtab"
LARGE_BYTES = 64 << 10  # a millisecond of parsing, at worst
_ASKED = "trimtab.asked"  # in a scope: what its body was found to ask


class OpenAI:
    """All that is below `/v1/`."""

    def __init__(
        self,
        meter: Meter,
        telemetry: Telemetry,
        dispatch: Dispatch,
        metadata: Any,
        called: tuple[str, ...],
    ) -> None:
        self._called = called
        self._call = call_of(metadata)
        self._calls: Calls | None = None
        if self._call is not None:
            self._calls = Calls(meter, telemetry, dispatch, self._call, called, fields_of(metadata))

    def predicts(self, scope: Scope) -> Calls | None:
        """What takes this request, if it is a call that the model answers."""
        calls = self._calls
        return calls if calls and scope["method"] == "POST" and scope["path"] == calls.route else None

    def told(self, scope: Scope) -> Answer:
        """The answer to any other request."""
        path = scope["path"]
        if self._call is None:
            return _missing("the model answers none of OpenAI's calls; ask it by /invocations")
        if path == self._call.route:
            return _refused(405, f"use POST for {path}")
        name = path.removeprefix(f"{MODELS}/")
        if path != MODELS and name not in self._called:
            return _missing(f"there is no {path}; the model answers {self._call.route}")
        if scope["method"] != "GET":
            return _refused(405, f"use GET for {path}")
        if path != MODELS:
            return Answer(json.dumps(_model(name)), 200)
        return Answer(json.dumps({"object": "list", "data": [_model(each) for each in self._called]}), 200)


class Calls(Invocations):
    """The one call that a model answers."""

    def __init__(
        self,
        meter: Meter,
        telemetry: Telemetry,
        dispatch: Dispatch,
        call: Call,
        called: tuple[str, ...],
        fields: frozenset[str],
    ) -> None:
        super().__init__(meter, telemetry)
        self.dispatch = self._dispatch = dispatch
        self.route = call.route
        self._call = call
        self._called = called
        self._fields = fields

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One call, as ASGI has it: the body says which way it goes."""
        try:
            body = await asyncio.wait_for(body_of(scope, receive), self._dispatch.timeout_s)
            asked = TOO_LARGE if body is None else await self._asked(body)
        except ClientLeft:
            await super().__call__(scope, _left, send)
            return
        except asyncio.TimeoutError:  # noqa: UP041  not the built-in one before Python 3.11
            asked = TIMED_OUT
        except asyncio.CancelledError:  # the server's grace period is over
            asked = STOPPED
        if isinstance(asked, Answer) or not asked.stream:
            await super().__call__({**scope, _ASKED: asked}, _nothing_more, send)
            return
        began_s = self._meter.begin(self.route)
        stream = Stream(asked, self._dispatch, scope, receive, send)
        try:
            await stream.run()
        finally:
            answer, headers = stream.answer, scope["headers"]
            fault = answer.fault if answer is not None else None
            if fault is not None:
                self._meter.fault(fault)
            took_s = self._meter.end("POST", self.route, stream.status, began_s)
            self._telemetry.ended(
                "POST", self.route, stream.status, took_s, headers, stream.given_id, answer, fault, stream.job
            )

    async def _asked(self, body: bytes) -> Asked | Answer:
        """A large body is read elsewhere: it takes long, and of several the loop has a turn between two."""
        return await asyncio.to_thread(self._read, body) if len(body) > LARGE_BYTES else self._read(body)

    def _read(self, body: bytes) -> Asked | Answer:
        try:
            return read(self._call, self._called, self._fields, body)
        except BadCall as bad:
            return bad.answer

    def job(self, scope: Scope, body: bytes, answered: Waiter) -> Job | Answer:  # noqa: ARG002
        """The job of a body that was read already."""
        asked = scope[_ASKED]
        return asked if isinstance(asked, Answer) else CallJob(asked, answered)

    def worded(self, answer: Answer) -> Answer:
        """`{"error": …}`."""
        return wording.openai(answer)


async def _left() -> Message:
    return {"type": "http.disconnect"}


async def _nothing_more() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": OWNER}


def _missing(words: str) -> Answer:
    return wording.openai(error(404, "RESOURCE_DOES_NOT_EXIST", words, Fault.CALLER))


def _refused(status: int, words: str) -> Answer:
    return wording.openai(error(status, "BAD_REQUEST", words, Fault.CALLER))
