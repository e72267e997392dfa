"""A span per request, and in it one per stage: queue, batch, predict. OpenTelemetry's, exported by OTLP.

It is on where the standard variables name a place for traces (OTEL_EXPORTER_OTLP_ENDPOINT or
OTEL_EXPORTER_OTLP_TRACES_ENDPOINT), and heeds the others as far as OpenTelemetry's library does: protocol,
headers, sampler. The library is not ours to bring: a model's environment has its SDK, which MLflow needs
(from 2.14 on), or the log says what is missing. Its exporter is used where it is there, else `otlp`.

The event loop notes a request in a queue; a thread makes the spans, so nobody waits for them. They continue
the caller's `traceparent`, and a trace that the caller does not sample has none.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from trimtab.runtime.mlflow.answer import Fault
from trimtab.runtime.mlflow.job import now_s
from trimtab.runtime.mlflow.log import say
from trimtab.runtime.mlflow.otlp import HttpExporter
from trimtab.runtime.mlflow.request_log import Ended

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
SDK = "opentelemetry-sdk"
GRPC_EXPORTER = "opentelemetry-exporter-otlp-proto-grpc"
WAITING_MAX = 4096  # requests whose spans are not yet made; what comes on top has none
LOOK_EACH_S = 0.2
CLOSE_WITHIN_S = 3.0  # behind worker.FINISH_S, and before the pod is killed


@dataclass(frozen=True)
class _Noted:
    """What a request's spans are made from; not its job and answer: bodies are large, and thousands wait."""

    request: Ended
    parent: str  # its traceparent
    ended_ns: int  # by the wall clock
    job_age_s: float  # how long before that its job was made
    stages: tuple[tuple[str, float], ...]  # and the seconds of each
    cause: str


def wanted(environment: Mapping[str, str]) -> bool:
    """Whether the standard variables ask for traces."""
    off = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    other = environment.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp"
    return not (off or other) and any(environment.get(name) for name in ENDPOINTS)


def configured(pod: str) -> Spans | None:
    """Spans of the pod called `pod`, if they are asked for and can be had; else the log says why not."""
    if not wanted(os.environ):
        return None
    try:
        return Spans(_tracer_provider(pod))
    except ImportError as error:
        package = GRPC_EXPORTER if "exporter" in (error.name or "") else SDK
        hint = f"add {package} to the model's requirements"
        hint += ", or set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf" if package == GRPC_EXPORTER else ""
        say(f"no spans: {error}; {hint}")
    except Exception as error:  # noqa: BLE001  a wrong variable must not cost the pod
        say(f"no spans: {type(error).__name__}: {error}")
    return None


class Spans:
    """Takes requests that have ended, and exports their spans from a thread of its own."""

    def __init__(self, provider: Any) -> None:
        """`provider` is an `opentelemetry.sdk.trace.TracerProvider`."""
        self._provider = provider
        self._tracer = provider.get_tracer("trimtab.runtime")
        self._waiting: deque[_Noted] = deque()
        self._closing = threading.Event()
        self._heeds_callers = os.environ.get("OTEL_TRACES_SAMPLER", "parentbased").startswith("parentbased")
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    def add(self, request: Ended, parent: str) -> None:
        """Note a request; `parent` is the caller's `traceparent`, or nothing."""
        if self._heeds_callers and parent and not int(parent[53:55], 16) & 1:
            return  # not sampled, and none of the work for it is done
        if len(self._waiting) >= WAITING_MAX:
            self.dropped += 1
        else:
            self._waiting.append(_noted(request, parent))

    def close(self) -> None:
        """Export what is left, for at most CLOSE_WITHIN_S."""
        self._closing.set()
        self._thread.join(CLOSE_WITHIN_S)

    def _run(self) -> None:
        while not self._closing.wait(LOOK_EACH_S):
            self._drain()
        self._drain()
        self._provider.shutdown()
        if self.dropped:
            say(f"spans: {self.dropped} requests have none")

    def _drain(self) -> None:
        while self._waiting:
            try:
                self._make(self._waiting.popleft())
            except Exception as error:  # noqa: BLE001  one request without its spans
                self.dropped += 1
                if self.dropped & (self.dropped - 1) == 0:  # the 1st, 2nd, 4th, 8th …
                    say(f"spans: {type(error).__name__}: {error}")

    def _make(self, noted: _Noted) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context  # noqa: PLC0415

        request, ended_ns = noted.request, noted.ended_ns
        begin_ns = ended_ns - _ns(request.took_s)
        span = self._tracer.start_span(
            f"{request.method} {request.route}",
            context=_context(noted.parent),
            kind=SpanKind.SERVER,
            attributes=_attributes(request, noted.cause),
            start_time=begin_ns,
        )
        if request.fault is not None and request.fault is not Fault.CALLER:
            span.set_status(Status(StatusCode.ERROR, noted.cause))
        if span.is_recording():
            inside = set_span_in_context(span)
            # It was timed microseconds before it was noted: a stage must not begin before its request.
            at_ns = max(begin_ns, ended_ns - _ns(noted.job_age_s))
            for name, took_s in noted.stages:
                stage = self._tracer.start_span(name, context=inside, start_time=at_ns)
                at_ns += _ns(took_s)
                stage.end(at_ns)
            ended_ns = max(ended_ns, at_ns) if noted.stages else ended_ns
        span.end(ended_ns)


def _noted(request: Ended, parent: str) -> _Noted:
    job, answer = request.job, request.answer
    stages: tuple[tuple[str, float], ...] = ()
    if job is not None:
        stages = ("queue", job.queue_s), ("batch", job.batch_s), ("predict", job.predict_s)
    age_s = now_s() - job.created_s if job is not None else 0.0
    lean = replace(request, job=None, answer=None)
    return _Noted(lean, parent, time.time_ns(), age_s, stages, answer.cause if answer is not None else "")


def _tracer_provider(pod: str) -> Any:
    """With an exporter, resource and sampler as the environment says. Raises ImportError."""
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415  not everybody has it
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    provider = TracerProvider(resource=Resource.create({"service.instance.id": pod}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_exporter()))
    return provider


def _exporter() -> Any:
    protocol = next((found for name in PROTOCOLS if (found := os.environ.get(name))), "http/protobuf")
    if protocol == "grpc":
        return import_module("opentelemetry.exporter.otlp.proto.grpc.trace_exporter").OTLPSpanExporter()
    try:
        return import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter").OTLPSpanExporter()
    except ImportError:
        return HttpExporter(os.environ)


def _context(parent: str) -> Any:
    """The caller's, or an empty one: never that of a thread."""
    from opentelemetry.context import Context  # noqa: PLC0415
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    return TraceContextTextMapPropagator().extract({"traceparent": parent} if parent else {}, Context())


def _attributes(request: Ended, cause: str) -> dict[str, Any]:
    """Names of OpenTelemetry's semantic conventions for HTTP servers."""
    found: dict[str, Any] = {
        "http.request.method": request.method,
        "http.response.status_code": request.status,
        "http.response.header.x-request-id": [request.request_id],
        "http.route": request.route,
        "url.path": request.route,
        "url.scheme": "http",
    }
    if request.fault is not None:
        found["error.type"] = cause.partition(":")[0] or request.fault.value
    return found


def _ns(seconds: float) -> int:
    return round(1e9 * seconds)
