"""What a pod answers over HTTP: MLflow's scoring protocol, health and metrics; `protocols` has the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from trimtab.core.clock import Clock
from trimtab.runtime.mlflow.answer import FAULT_HEADER, JSON, Answer, Fault
from trimtab.runtime.mlflow.dispatch import Dispatch
from trimtab.runtime.mlflow.invocation import LOADING, RETRY_AFTER_S, ROUTE, Invocations
from trimtab.runtime.mlflow.liveness import trouble, within_s
from trimtab.runtime.mlflow.metrics import Measured, Meter, Metrics
from trimtab.runtime.mlflow.protocols import Protocols
from trimtab.runtime.mlflow.request_log import RequestLog
from trimtab.runtime.mlflow.routes import PREDICTIONS
from trimtab.runtime.mlflow.telemetry import REQUEST_ID, Telemetry, header, request_id

NOT_READY = replace(LOADING, fault=None)  # a probe's question is no request that failed


class Service:
    """The ASGI application of one pod. Answers 503 until `open` hands it a model."""

    def __init__(self, metrics: Metrics, clock: Clock, telemetry: Telemetry | None = None) -> None:
        self._metrics = metrics
        self.telemetry = telemetry = telemetry or Telemetry(RequestLog({}, clock))
        self.dispatch: Dispatch | None = None
        routes = [
            Route(ROUTE, _post_only, methods=["POST"]),
            Route("/ping", self._ready),
            Route("/health", self._ready),
            Route("/version", self._version),
            Route("/health/live", self._live),
            Route("/health/ready", self._ready),
            Route("/metrics", self._metrics_page),
        ]
        app = Starlette(routes=routes, exception_handlers={HTTPException: _refused})
        self.meter = Meter(metrics, frozenset((*(route.path for route in routes), *PREDICTIONS)), clock)
        self._app = Measured(app, self.meter, telemetry)
        self._invocations = Invocations(self.meter, telemetry)
        self.protocols = Protocols(self.meter, telemetry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        if scope["path"] == ROUTE and scope["method"] == "POST":
            await self._invocations(scope, receive, send)
        elif self.protocols.takes(scope["path"]):
            await self.protocols(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def open(self, dispatch: Dispatch) -> None:
        """Answer requests from now on."""
        self.dispatch = self._invocations.dispatch = dispatch

    async def _ready(self, _: Request) -> Response:
        return _later(NOT_READY) if self.dispatch is None else Response("\n", media_type=JSON)

    async def _live(self, request: Request) -> Response:
        """200, or 503 and why if what predicts is stuck: `?within=SECONDS` says how long it may take."""
        dispatch = self.dispatch
        found = ""
        if dispatch is not None:
            found = trouble(
                dispatch.working, within_s(request.query_params.get("within"), dispatch.timeout_s)
            )
        return PlainTextResponse(found, 503) if found else Response("\n", media_type=JSON)

    async def _version(self, _: Request) -> Response:
        dispatch = self.dispatch
        return _later(NOT_READY) if dispatch is None else Response(dispatch.version, media_type=JSON)

    async def _metrics_page(self, _: Request) -> Response:
        return self._metrics.response()


async def _post_only(_: Request) -> Response:
    """Never called: a POST takes the short way. The route is there to refuse other methods."""
    raise HTTPException(405)


def _later(answer: Answer) -> Response:
    response = answer.response()
    response.headers["retry-after"] = str(RETRY_AFTER_S)
    return response


async def _refused(request: Request, refusal: Exception) -> Response:
    """404 and 405 in the words of FastAPI, which MLflow's own server is made of."""
    assert isinstance(refusal, HTTPException)
    given_id = request_id(header(request.scope["headers"], REQUEST_ID))
    headers: Mapping[str, str] = {
        **(refusal.headers or {}),
        FAULT_HEADER: Fault.CALLER.value,
        REQUEST_ID.decode(): given_id.decode(),
    }
    return JSONResponse({"detail": refusal.detail}, refusal.status_code, headers)
