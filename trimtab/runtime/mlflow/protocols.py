"""What a pod speaks beside MLflow's own protocol: Open Inference over REST and gRPC, and OpenAI's.

Until the model is loaded there is only one answer, that it is not. What comes then is imported then, when the
model has brought in most of it: it must not make a start longer.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.types import Receive, Scope, Send

from trimtab.runtime.mlflow import routes, wording
from trimtab.runtime.mlflow.answer import Answer, Fault, error
from trimtab.runtime.mlflow.dispatch import Dispatch
from trimtab.runtime.mlflow.failure import said
from trimtab.runtime.mlflow.invocation import (
    LOADING,
    TOO_LARGE,
    ClientLeft,
    Invocations,
    body_of,
    head,
)
from trimtab.runtime.mlflow.log import say
from trimtab.runtime.mlflow.metrics import Measured, Meter
from trimtab.runtime.mlflow.telemetry import REQUEST_ID, Telemetry, header, request_id

if TYPE_CHECKING:
    from trimtab.runtime.mlflow.open_inference.service import OpenInference
    from trimtab.runtime.mlflow.openai_api.service import OpenAI
    from trimtab.runtime.mlflow.scoring import Scorer

V1, V2, LIVE = "/v1/", "/v2", "/v2/health/live"


class Protocols:
    """The ASGI application of the paths that `takes` says are its own."""

    def __init__(self, meter: Meter, telemetry: Telemetry) -> None:
        self._meter = meter
        self._telemetry = telemetry
        self._measured = Measured(self._respond, meter, telemetry)
        self._open_inference: OpenInference | None = None
        self._openai: OpenAI | None = None
        self._otherwise = LOADING

    def open(self, dispatch: Dispatch, scorer: Scorer, called: tuple[str, ...]) -> None:
        """Answer requests from now on; or refuse them, with an MLflow that has other insides."""
        try:
            from trimtab.runtime.mlflow.open_inference.service import Model, OpenInference  # noqa: PLC0415
            from trimtab.runtime.mlflow.openai_api.service import OpenAI  # noqa: PLC0415

            model = Model.of(scorer.metadata, called, scorer.version)
            openai = OpenAI(self._meter, self._telemetry, dispatch, scorer.metadata, called)
            self._open_inference, self._openai = (
                OpenInference(self._meter, self._telemetry, dispatch, model),
                openai,
            )
        except Exception as problem:  # noqa: BLE001  /invocations is there all the same
            words = f"only MLflow's own protocol with this MLflow: {said(problem)}"
            say(words)
            self._otherwise = error(501, "NOT_IMPLEMENTED", words, Fault.CALLER)

    @staticmethod
    def takes(path: str) -> bool:
        """Whether a path is of one of these protocols."""
        return path == V2 or path.startswith(("/v2/", V1, routes.GRPC))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        await (self.predicts(scope) or self._measured)(scope, receive, send)

    def predicts(self, scope: Scope) -> Invocations | None:
        """What takes this request, if it is one for a prediction."""
        service = self._openai if scope["path"].startswith(V1) else self._open_inference
        return None if service is None else service.predicts(scope)

    def told(self, scope: Scope, body: bytes | None) -> Answer:
        """The answer to any other request; of None the body is too large."""
        worded = _wording(scope["path"])
        if body is None:
            return worded(TOO_LARGE)
        if self._openai is not None and worded is wording.openai:
            return self._openai.told(scope)
        if self._open_inference is not None:
            return self._open_inference.told(scope, body)
        if scope["path"] == LIVE:
            return Answer(json.dumps({"live": True}), 200)
        return worded(self._otherwise)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A request that is none for a prediction."""
        try:
            body = await body_of(scope, receive)
        except ClientLeft:
            return
        answer = self.told(scope, body)
        encoded = answer.encoded()
        headers = head(answer, None, len(encoded), request_id(header(scope["headers"], REQUEST_ID)))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": encoded})


def _wording(path: str) -> Callable[[Answer], Answer]:
    if path.startswith(V1):
        return wording.openai
    return wording.grpc if path.startswith(routes.GRPC) else wording.open_inference
