"""Spans sent without OpenTelemetry's exporter are those that it would have sent."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode

from tests.runtime.receiver import receiver
from trimtab.runtime.mlflow import otlp, spans
from trimtab.runtime.mlflow.otlp import HttpExporter, encoded

VALUES = st.one_of(
    st.text(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.lists(st.text(), max_size=3),
    st.lists(st.integers(-5, 5), max_size=3),
)
ATTRIBUTES = st.dictionaries(st.text(min_size=1), VALUES, max_size=4)


def made(names: list[str], attributes: dict[str, Any], kind: SpanKind, status: Status) -> list[ReadableSpan]:
    """Spans of the SDK, each the child of the one before."""
    kept = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource({"service.name": "iris", "n": 3}, "https://schema"))
    provider.add_span_processor(SimpleSpanProcessor(kept))
    tracer, context = provider.get_tracer("trimtab.runtime", "1"), None
    for name in names:
        span = tracer.start_span(name, context=context, kind=kind, attributes=attributes)
        span.set_status(status)
        span.end()
        from opentelemetry.trace import set_span_in_context  # noqa: PLC0415

        context = set_span_in_context(span)
    return list(kept.get_finished_spans())


@given(
    st.lists(st.text(), min_size=1, max_size=3),
    ATTRIBUTES,
    st.sampled_from(SpanKind),
    st.sampled_from(
        [
            Status(),
            Status(StatusCode.OK),
            Status(StatusCode.ERROR, "ValueError: bad"),
            Status(StatusCode.ERROR),
        ]
    ),
)
def test_the_message_is_the_exporters(
    names: list[str], attributes: dict[str, Any], kind: SpanKind, status: Status
) -> None:
    some = made(names, attributes, kind, status)
    assert ExportTraceServiceRequest.FromString(encoded(some)) == encode_spans(some)


def some_spans() -> list[ReadableSpan]:
    return made(["POST /invocations"], {}, SpanKind.SERVER, Status())


@pytest.mark.parametrize("compression", ["", "gzip"])
def test_a_receiver_gets_them(compression: str) -> None:
    with receiver() as found:
        told = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"{found.address}/",
            "OTEL_EXPORTER_OTLP_COMPRESSION": compression,
        }
        assert HttpExporter(told).export(some_spans()) is SpanExportResult.SUCCESS
    assert [(span.service, span.name) for span in found.spans] == [("iris", "POST /invocations")]


@pytest.fixture
def choosy() -> Iterator[Any]:
    """A receiver that answers what it is told to, and notes what it was sent."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            seen.append((self.path, dict(self.headers)))
            self.send_response(statuses.pop(0) if statuses else 200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    statuses: list[int] = []
    seen: list[tuple[str, dict[str, str]]] = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", statuses, seen
    server.shutdown()
    server.server_close()


def test_what_may_be_sent_again_is_and_the_rest_is_told(
    choosy: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otlp, "FIRST_WAIT_S", 0.01)
    address, statuses, seen = choosy
    exporter = HttpExporter(
        {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{address}/own/path",
            "OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Basic%20abc,x-tenant=7",
        }
    )
    statuses += [503, 429]
    assert exporter.export(some_spans()) is SpanExportResult.SUCCESS
    assert len(seen) == 3
    path, headers = seen[0]
    told = {name.lower(): value for name, value in headers.items()}
    assert (path, told["authorization"], told["x-tenant"]) == ("/own/path", "Basic abc", "7")
    assert told["content-type"] == "application/x-protobuf"
    statuses += [400]
    assert exporter.export(some_spans()) is SpanExportResult.FAILURE
    assert len(seen) == 4, "a 400 is not sent again"
    assert "/own/path did not take them: 400" in capsys.readouterr().err


def test_nobody_there_costs_its_timeout_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "FIRST_WAIT_S", 0.01)
    told = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_TIMEOUT": "0.3"}
    exporter = HttpExporter(told)
    assert exporter.export(some_spans()) is SpanExportResult.FAILURE
    exporter.shutdown()
    monkeypatch.setattr(exporter, "_timeout_s", 600.0)
    assert exporter.export(some_spans()) is SpanExportResult.FAILURE, "told to end, it waits for nothing"


@pytest.mark.parametrize("address", ["127.0.0.1:4318", "ftp://x", "http://"])
def test_an_address_that_is_none_is_told(
    address: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.exporter.otlp.proto.http", None)
    assert spans.configured("pod") is None
    assert "no spans: ValueError" in capsys.readouterr().err


def test_a_pod_whose_environment_has_no_exporter_sends_them(
    start_pod: Callable[..., Any], models: Path, tmp_path: Path
) -> None:
    """As in an environment of a model's own: MLflow brings the SDK, and nobody the exporter."""
    from tests.runtime.conftest import until  # noqa: PLC0415

    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['opentelemetry.exporter'] = None\n")
    trace = "5" * 32
    with receiver() as found:
        pod = start_pod(
            models / "odd_model",
            PYTHONPATH=str(tmp_path),
            OTEL_EXPORTER_OTLP_ENDPOINT=found.address,
            OTEL_BSP_SCHEDULE_DELAY="100",
        ).wait_ready()
        pod.ask("POST", "/invocations", b"{", traceparent=f"00-{trace}-{'b' * 16}-01")
        until(lambda: len(found.of(trace)) >= 4, f"its spans; log: {pod.log.read_text()[-2000:]}")
        pod.kill()
    assert {span.name: span.parent for span in found.of(trace)}["POST /invocations"] == "b" * 16
