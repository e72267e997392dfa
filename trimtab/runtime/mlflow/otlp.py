"""Spans over OTLP/HTTP without OpenTelemetry's exporter: for a model whose environment has the SDK alone.

MLflow brings the SDK and not the exporter. To install that one too could move what the model pinned: it asks
for the SDK's very version, and for versions of protobuf, requests and googleapis-common-protos. What it
sends is a small message, so it is written here by hand, field by field, and posted by the standard library.
https://opentelemetry.io/docs/specs/otlp/#otlphttp
https://github.com/open-telemetry/opentelemetry-proto/blob/main/opentelemetry/proto/trace/v1/trace.proto
"""

from __future__ import annotations

import gzip
import http.client
import ssl
import struct
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from time import monotonic as now_s
from typing import Any
from urllib.parse import unquote, urlsplit

from trimtab.runtime.mlflow.log import say

PATH = "/v1/traces"  # behind the endpoint of all signals
TIMEOUT_S = 10.0  # of one export, with its repetitions; OpenTelemetry's default
FIRST_WAIT_S = 0.5
AGAIN = frozenset({429, 502, 503, 504})  # by the protocol these may be sent again
_PREFIX = "OTEL_EXPORTER_OTLP_"
_HAS_REMOTE, _REMOTE = 0x100, 0x200  # in `flags`: whether it is known that the parent is another process's


class HttpExporter:
    """What the SDK's `BatchSpanProcessor` asks of an exporter, as the standard variables want it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Raises ValueError, OSError or ssl.SSLError for variables that cannot be."""
        self._url = _endpoint(environment)
        self._timeout_s = float(_told(environment, "TIMEOUT") or TIMEOUT_S)
        self._compressed = _told(environment, "COMPRESSION") == "gzip"
        self._headers = {"content-type": "application/x-protobuf", **_headers(_told(environment, "HEADERS"))}
        if self._compressed:
            self._headers["content-encoding"] = "gzip"
        certificate = _told(environment, "CERTIFICATE") or None
        self._context = (
            ssl.create_default_context(cafile=certificate) if self._url.startswith("https:") else None
        )
        self._ended = threading.Event()
        self._lost = 0

    def export(self, spans: Sequence[Any]) -> Any:
        """Send the SDK's `ReadableSpan`s; a `SpanExportResult`. Raises nothing."""
        from opentelemetry.sdk.trace.export import SpanExportResult  # noqa: PLC0415  not everybody has it

        body = encoded(spans)
        problem = self._sent(gzip.compress(body) if self._compressed else body)
        if not problem:
            return SpanExportResult.SUCCESS
        self._lost += 1
        if self._lost & (self._lost - 1) == 0:  # the 1st, 2nd, 4th, 8th …
            say(f"spans: {self._url} did not take them: {problem}")
        return SpanExportResult.FAILURE

    def force_flush(self, timeout_millis: int = 0) -> bool:  # noqa: ARG002  as the SDK has it
        """Nothing is kept back here."""
        return True

    def shutdown(self) -> None:
        """Wait for nothing any more."""
        self._ended.set()

    def _sent(self, body: bytes) -> str:
        """Post it, again where that is allowed; what was wrong in the end, or nothing."""
        until_s, wait_s = now_s() + self._timeout_s, FIRST_WAIT_S
        while True:
            problem, again = self._posted(body, max(0.1, until_s - now_s()))
            if not problem or not again or now_s() + wait_s > until_s or self._ended.wait(wait_s):
                return problem
            wait_s *= 2

    def _posted(self, body: bytes, within_s: float) -> tuple[str, bool]:
        request = urllib.request.Request(self._url, body, self._headers, method="POST")  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=within_s, context=self._context):  # noqa: S310
                return "", False
        except urllib.error.HTTPError as error:
            with error:
                return f"{error.code} {error.reason}", error.code in AGAIN
        except (OSError, http.client.HTTPException) as error:
            return f"{type(error).__name__}: {error}", True


def _told(environment: Mapping[str, str], name: str) -> str:
    """A variable: that of traces before that of all signals."""
    return environment.get(f"{_PREFIX}TRACES_{name}") or environment.get(_PREFIX + name, "")


def _endpoint(environment: Mapping[str, str]) -> str:
    own = environment.get(f"{_PREFIX}TRACES_ENDPOINT")
    url = own or environment[f"{_PREFIX}ENDPOINT"].rstrip("/") + PATH
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(f"{url} is no address of the form http://HOST:PORT")
    return url


def _headers(text: str) -> dict[str, str]:
    """`name=value,…`, percent-encoded."""
    pairs = (pair.partition("=") for pair in text.split(",") if "=" in pair)
    return {unquote(name).strip().lower(): unquote(value).strip() for name, _, value in pairs}


# --- the message ------------------------------------------------------------------------------------------


def encoded(spans: Iterable[Any]) -> bytes:
    """An ExportTraceServiceRequest. All spans of one provider share its resource."""
    by_scope: dict[Any, list[Any]] = {}
    resource = None
    for span in spans:
        resource = span.resource
        by_scope.setdefault(span.instrumentation_scope, []).append(span)
    if resource is None:
        return b""
    scopes = b"".join(_part(2, _scope_spans(scope, some)) for scope, some in by_scope.items())
    return _part(1, _part(1, _attributes(1, resource.attributes)) + scopes + _text(3, resource.schema_url))


def _scope_spans(scope: Any, spans: Iterable[Any]) -> bytes:
    named = _text(1, scope.name) + _text(2, scope.version)
    return _part(1, named) + b"".join(_part(2, _span(span)) for span in spans)


def _span(span: Any) -> bytes:
    context, parent = span.context, span.parent
    flags = _HAS_REMOTE | (_REMOTE if parent is not None and parent.is_remote else 0)
    return b"".join(
        (
            _part(1, context.trace_id.to_bytes(16, "big")),
            _part(2, context.span_id.to_bytes(8, "big")),
            _text(3, context.trace_state.to_header()),
            _part(4, parent.span_id.to_bytes(8, "big")) if parent is not None else b"",
            _text(5, span.name),
            _number(6, span.kind.value + 1),  # the SDK's kinds begin with 0, the protocol's with 1
            _tag(7, 1) + struct.pack("<Q", span.start_time),
            _tag(8, 1) + struct.pack("<Q", span.end_time),
            _attributes(9, span.attributes),
            _part(15, _text(2, span.status.description) + _number(3, span.status.status_code.value)),
            _tag(16, 5) + struct.pack("<I", flags),
        )
    )


def _attributes(number: int, found: Mapping[str, Any] | None) -> bytes:
    pairs = (found or {}).items()
    return b"".join(_part(number, _text(1, name) + _part(2, _value(value))) for name, value in pairs)


def _value(value: Any) -> bytes:
    """An AnyValue, of which exactly one field is there, were it empty."""
    if isinstance(value, str):
        return _part(1, value.encode(errors="replace"))
    if isinstance(value, bool):
        return _tag(2, 0) + _varint(value)
    if isinstance(value, int):
        return _tag(3, 0) + _varint(value)
    if isinstance(value, float):
        return _tag(4, 1) + struct.pack("<d", value)
    if isinstance(value, (list, tuple)):
        return _part(5, b"".join(_part(1, _value(one)) for one in value))
    return _part(1, str(value).encode(errors="replace"))


# --- protobuf's wire format: https://protobuf.dev/programming-guides/encoding/ ------------------------------


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # a negative one has all of its 64 bits
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _tag(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _part(number: int, data: bytes) -> bytes:
    return _tag(number, 2) + _varint(len(data)) + data


def _text(number: int, text: str | None) -> bytes:
    return _part(number, text.encode(errors="replace")) if text else b""


def _number(number: int, value: int) -> bytes:
    return _tag(number, 0) + _varint(value) if value else b""
