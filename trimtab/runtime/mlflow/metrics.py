"""What a pod says of itself on /metrics: Prometheus text, names after OpenTelemetry's HTTP conventions."""

from __future__ import annotations

import functools
from typing import Protocol

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
from trimtab.runtime.mlflow.answer import FAULT_HEADER, Fault
from trimtab.runtime.mlflow.pool import Pool
from trimtab.runtime.mlflow.telemetry import REQUEST_ID, Telemetry, header
from trimtab.runtime.mlflow.times import Durations, Times

# OpenTelemetry's advice for http.server.request.duration, with a finer start and a longer end.
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60)
# Quantiles of these are subtracted from Envoy's, so they are the ends of its buckets (envoy/histogram.py):
# with others two distributions that are the same would differ by half a bucket. 0.11 ms to 910 s.
_ENDS = (11, 13, 16, 19, 23, 28, 34, 41, 51, 61, 76, 91)
FINE_BUCKETS_S = tuple(digits * 10**power / 1e6 for power in range(1, 8) for digits in _ENDS)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
SCHEME = "http"  # a pod speaks no TLS
OTHER = "_OTHER"  # OpenTelemetry's word for a method that is none of HTTP's: labels stay few


class Holder(Protocol):
    """What holds requests: the pool, or the batcher."""

    @property
    def running(self) -> int: ...

    @property
    def queued(self) -> int: ...


class Metrics:
    """The numbers of one pod, in a registry that no model writes to."""

    def __init__(self, pool: Pool) -> None:
        disable_created_metrics()
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.duration = Times(
            "http_server_request_duration_seconds",
            "Time from a request's head to the end of its answer.",
            ["http_request_method", "http_route", "http_response_status_code", "error_type", "url_scheme"],
            BUCKETS_S,
        )
        self._registry.register(self.duration)
        self.active = Gauge(
            "http_server_active_requests",
            "Requests in flight.",
            ["http_request_method", "http_route", "url_scheme"],
            registry=self._registry,
        )
        about = "Time a request held a thread: parsing, predicting, writing the answer."
        predict = Times("trimtab_predict_duration_seconds", about, [], FINE_BUCKETS_S)
        self._registry.register(predict)
        self.predict = predict.labels()
        about = "Time of a request that was predicted, from the end of its body to its answer."
        request = Times("trimtab_request_duration_seconds", about, [], FINE_BUCKETS_S)
        self._registry.register(request)
        self.request = request.labels()
        self.batch = Histogram(
            "trimtab_predict_batch_requests",
            "Requests that were predicted together.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
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
        self._holders: list[Holder] = [pool]
        self._count_held(pool.threads)

    def watch(self, holder: Holder) -> None:
        """Count what it holds too."""
        self._holders.append(holder)

    def _count_held(self, threads: int) -> None:
        at_once = Gauge(
            "trimtab_predict_threads", "Predictions that may run at once.", registry=self._registry
        )
        at_once.set(threads)
        running = Gauge(
            "trimtab_predict_running", "Requests that are predicted now.", registry=self._registry
        )
        running.set_function(lambda: sum(holder.running for holder in self._holders))
        queued = Gauge("trimtab_predict_queued", "Requests that wait for a thread.", registry=self._registry)
        queued.set_function(lambda: sum(holder.queued for holder in self._holders))

    def note_stage(self, name: str, took_s: float) -> None:
        """A step of the start is complete."""
        self.stage.labels(name).set(took_s)

    def response(self) -> Response:
        """The page itself."""
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)


class Meter:
    """Counts requests, in the event loop alone: plain numbers, looked at when the page is."""

    def __init__(self, metrics: Metrics, routes: frozenset[str], clock: Clock) -> None:
        self.clock = clock
        self._metrics = metrics
        self._routes = routes
        self._active: dict[tuple[str, str], int] = {}
        self._durations: dict[tuple[str, str, int], Durations] = {}
        self._faults = {fault: metrics.faults.labels(fault.value) for fault in Fault}

    def route(self, path: str) -> str:
        """The label of a path: its own if it is one of the routes."""
        return path if path in self._routes else ""

    def begin(self, route: str, method: str = "POST") -> float:
        """A request is in flight; the time at which it came."""
        key = (_label(method), route)
        if key not in self._active:
            self._active[key] = 0
            gauge = self._metrics.active.labels(*key, SCHEME)
            gauge.set_function(functools.partial(self._active.__getitem__, key))
        self._active[key] += 1
        return self.clock.now_s()

    def end(self, method: str, route: str, status: int, began_s: float) -> float:
        """It was answered, or given up; the seconds it took."""
        took_s = self.clock.now_s() - began_s
        method = _label(method)
        self._active[method, route] -= 1
        key = (method, route, status)
        duration = self._durations.get(key)
        if duration is None:
            error = str(status) if status >= 500 else ""  # what a caller did wrong is no error of a server
            duration = self._metrics.duration.labels(method, route, str(status), error, SCHEME)
            self._durations[key] = duration
        duration.observe(took_s)
        return took_s

    def fault(self, fault: Fault) -> None:
        """It failed."""
        self._faults[fault].inc()


def _label(method: str) -> str:
    return method if method in METHODS else OTHER


class Measured:
    """Counts and times every request to `app`."""

    def __init__(self, app: ASGIApp, meter: Meter, telemetry: Telemetry) -> None:
        self._app = app
        self._meter = meter
        self._telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        route = self._meter.route(scope["path"])
        began_s = self._meter.begin(route, scope["method"])
        status = 499  # nginx's word for a client that left before its answer
        fault: Fault | None = None
        given_id = b""

        async def seen(message: Message) -> None:
            nonlocal status, fault, given_id
            if message["type"] == "http.response.start":
                status = message["status"]
                fault = self._fault(message)
                given_id = header(message["headers"], REQUEST_ID)
            await send(message)

        try:
            await self._app(scope, receive, seen)
        finally:
            took_s = self._meter.end(scope["method"], route, status, began_s)
            if fault is not None:  # else somebody asked for health or metrics, and got it
                self._telemetry.ended(
                    scope["method"], route, status, took_s, scope["headers"], given_id, fault=fault
                )

    def _fault(self, message: Message) -> Fault | None:
        told = header(message["headers"], _FAULT_HEADER).decode()
        if not told:
            return None
        self._meter.fault(Fault(told))
        return Fault(told)


_FAULT_HEADER = FAULT_HEADER.encode()
