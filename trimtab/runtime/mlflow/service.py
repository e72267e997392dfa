"""What a pod answers over HTTP: MLflow's scoring protocol, health and metrics."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from trimtab.core.clock import Clock
from trimtab.core.errors import Exhausted
from trimtab.runtime.mlflow.answer import FAULT_HEADER, JSON, Answer, Fault, error
from trimtab.runtime.mlflow.metrics import Measured, Metrics
from trimtab.runtime.mlflow.pool import Pool

if TYPE_CHECKING:
    from trimtab.runtime.mlflow.scoring import Scorer

BODY_BYTES_MAX = 16 << 20  # Envoy's bound too; a direct caller meets it here
RETRY_AFTER_S = 1

LOADING = error(503, "TEMPORARILY_UNAVAILABLE", "The model is still loading.", Fault.PLATFORM)
NOT_READY = replace(LOADING, fault=None)  # a probe's question is no request that failed
TOO_LARGE = error(
    413, "BAD_REQUEST", f"The request's body is larger than {BODY_BYTES_MAX >> 20} MiB.", Fault.CALLER
)
STOPPED = error(
    503, "TEMPORARILY_UNAVAILABLE", "The pod was stopped before the model answered.", Fault.PLATFORM
)
TIMED_OUT = Answer("Request processing time exceeded limit", 504, JSON, Fault.MODEL)


class Service:
    """The ASGI application of one pod. Answers 503 until `open` hands it a model."""

    def __init__(self, pool: Pool, metrics: Metrics, clock: Clock) -> None:
        self._pool = pool
        self._metrics = metrics
        self._scorer: Scorer | None = None
        routes = [
            Route("/invocations", self._invocations, methods=["POST"]),
            Route("/ping", self._ready),
            Route("/health", self._ready),
            Route("/version", self._version),
            Route("/health/live", self._live),
            Route("/health/ready", self._ready),
            Route("/metrics", self._metrics_page),
        ]
        app = Starlette(routes=routes, exception_handlers={HTTPException: _refused})
        self._app = Measured(app, metrics, frozenset(route.path for route in routes), clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        await self._app(scope, receive, send)

    def open(self, scorer: Scorer) -> None:
        """Answer requests from now on."""
        self._scorer = scorer

    async def _invocations(self, request: Request) -> Response:
        scorer = self._scorer
        if scorer is None:
            return _later(LOADING)
        try:
            return await asyncio.wait_for(self._predict(scorer, request), scorer.timeout_s)
        except asyncio.TimeoutError:  # noqa: UP041  not the built-in one before Python 3.11
            return TIMED_OUT.response()
        except asyncio.CancelledError:  # the server cancels what outlasts its grace period, and nothing else
            return _later(STOPPED)
        except ClientDisconnect:
            return Response(status_code=499)  # nobody reads it; the metrics do

    async def _predict(self, scorer: Scorer, request: Request) -> Response:
        body = await _body(request)
        if body is None:
            return TOO_LARGE.response()
        content_type = request.headers.get("content-type", "")
        try:
            answer = await self._pool.run(functools.partial(self._timed, scorer, body, content_type))
        except Exhausted as full:
            message = f"{full.message}; {full.hint}"
            return _later(error(503, "TEMPORARILY_UNAVAILABLE", message, Fault.PLATFORM))
        return answer.response()

    def _timed(self, scorer: Scorer, body: bytes, content_type: str) -> Answer:
        began_s = time.perf_counter()
        try:
            return scorer.answer(body, content_type)
        finally:
            self._metrics.predict.observe(time.perf_counter() - began_s)

    async def _ready(self, _: Request) -> Response:
        return _later(NOT_READY) if self._scorer is None else Response("\n", media_type=JSON)

    async def _live(self, _: Request) -> Response:
        return Response("\n", media_type=JSON)

    async def _version(self, _: Request) -> Response:
        scorer = self._scorer
        return _later(NOT_READY) if scorer is None else Response(scorer.version, media_type=JSON)

    async def _metrics_page(self, _: Request) -> Response:
        return self._metrics.response()


def _later(answer: Answer) -> Response:
    response = answer.response()
    response.headers["retry-after"] = str(RETRY_AFTER_S)
    return response


async def _body(request: Request) -> bytes | None:
    """The request's body; None as soon as it is known to be too large."""
    if int(request.headers.get("content-length", 0)) > BODY_BYTES_MAX:
        return None
    parts: list[bytes] = []
    length = 0
    async for part in request.stream():
        length += len(part)
        if length > BODY_BYTES_MAX:
            return None
        parts.append(part)
    return b"".join(parts)


async def _refused(_: Request, refusal: Exception) -> Response:
    """404 and 405 in the words of FastAPI, which MLflow's own server is made of."""
    assert isinstance(refusal, HTTPException)
    headers: Mapping[str, str] = {**(refusal.headers or {}), FAULT_HEADER: Fault.CALLER.value}
    return JSONResponse({"detail": refusal.detail}, refusal.status_code, headers)
