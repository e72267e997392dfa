"""What a pod says of itself on /metrics: Prometheus text, names after OpenTelemetry's HTTP conventions."""

from __future__ import annotations

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trimtab.core.clock import Clock
from trimtab.runtime.mlflow.answer import FAULT_HEADER
from trimtab.runtime.mlflow.pool import Pool

# OpenTelemetry's advice for http.server.request.duration, with a finer start and a longer end.
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "_OTHER"  # OpenTelemetry's word for a method that is none of HTTP's: labels stay few


class Metrics:
    """The numbers of one pod, in a registry that no model writes to."""

    def __init__(self, pool: Pool) -> None:
        disable_created_metrics()
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.duration = Histogram(
            "http_server_request_duration_seconds",
            "Time from a request's head to the end of its answer.",
            ["http_request_method", "http_route", "http_response_status_code"],
            buckets=BUCKETS_S,
            registry=self._registry,
        )
        self.active = Gauge(
            "http_server_active_requests", "Requests in flight.", ["http_route"], registry=self._registry
        )
        self.predict = Histogram(
            "trimtab_predict_duration_seconds",
            "Time a request held a thread: parsing, predicting, writing the answer.",
            buckets=BUCKETS_S,
            registry=self._registry,
        )
        self.faults = Counter(
            "trimtab_request_faults",
            "Requests that failed, by fault.",
            ["fault"],
            registry=self._registry,
        )
        self.stage = Gauge(
            "trimtab_start_stage_seconds",
            "Time each step of the start took.",
            ["stage"],
            registry=self._registry,
        )
        self._watch(pool)

    def _watch(self, pool: Pool) -> None:
        threads = Gauge(
            "trimtab_predict_threads", "Predictions that may run at once.", registry=self._registry
        )
        threads.set(pool.threads)
        running = Gauge("trimtab_predict_running", "Predictions that run now.", registry=self._registry)
        running.set_function(lambda: pool.running)
        queued = Gauge("trimtab_predict_queued", "Requests that wait for a thread.", registry=self._registry)
        queued.set_function(lambda: pool.queued)

    def note_stage(self, name: str, took_s: float) -> None:
        """A step of the start is complete."""
        self.stage.labels(name).set(took_s)

    def response(self) -> Response:
        """The page itself."""
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)


class Measured:
    """Counts and times every request to `app`. `routes` are the paths that get a label of their own."""

    def __init__(self, app: ASGIApp, metrics: Metrics, routes: frozenset[str], clock: Clock) -> None:
        self._app = app
        self._metrics = metrics
        self._routes = routes
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        began_s = self._clock.now_s()
        route = scope["path"] if scope["path"] in self._routes else ""
        active = self._metrics.active.labels(route)
        status = 499  # nginx's word for a client that left before its answer

        async def seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._note_fault(message)
            await send(message)

        active.inc()
        try:
            await self._app(scope, receive, seen)
        finally:
            active.dec()
            method = scope["method"] if scope["method"] in METHODS else OTHER
            labels = (method, route, str(status))
            self._metrics.duration.labels(*labels).observe(self._clock.now_s() - began_s)

    def _note_fault(self, message: Message) -> None:
        for name, value in message["headers"]:
            if name == _FAULT_HEADER:
                self._metrics.faults.labels(value.decode()).inc()


_FAULT_HEADER = FAULT_HEADER.encode()
