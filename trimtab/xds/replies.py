"""What Envoy itself answers, in the shape that the path's protocol has for errors. Pure.

`{"error": "…"}` at Open Inference's paths, `{"error": {"message": …, …}}` at OpenAI's, at all others MLflow's
`{"error_code": …, "message": …}`. To gRPC Envoy says it by gRPC's status.

Each such answer carries `x-trimtab-fault`: `caller` if the request has to be changed, `platform`
if the same request may succeed later, `model` if a pod had it for too long. Whose fault a server's own
errors are tells `faults`. Where it may, `x-trimtab-sent` tells how many bytes pods were sent of it, of all
attempts together: 0 says that no model can have seen it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from envoy_data_plane.envoy.config.accesslog.v3 import (
    AccessLogFilter,
    AndFilter,
    ComparisonFilter,
    ComparisonFilterOp,
    HeaderFilter,
    ResponseFlagFilter,
    StatusCodeFilter,
)
from envoy_data_plane.envoy.config.core.v3 import (
    DataSource,
    HeaderValue,
    HeaderValueOption,
    HeaderValueOptionHeaderAppendAction,
    RuntimeUInt32,
    SubstitutionFormatString,
)
from envoy_data_plane.envoy.config.route.v3 import DirectResponseAction, HeaderMatcher
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    LocalReplyConfig,
    ResponseMapper,
)
from envoy_data_plane.envoy.type.matcher.v3 import RegexMatcher, StringMatcher
from envoy_data_plane.google.protobuf import Struct

from trimtab.core.names import EndpointName
from trimtab.xds import wire
from trimtab.xds.doors import INVOCATIONS_PREFIX
from trimtab.xds.world import BODY_BYTES_MAX

FAULT_HEADER = "x-trimtab-fault"
SENT_HEADER, SENT = "x-trimtab-sent", "%UPSTREAM_WIRE_BYTES_SENT%"
CALLER, MODEL, PLATFORM = "caller", "model", "platform"
RETRY_AFTER_S = 1
ENVOYS_WORDS = "%LOCAL_REPLY_BODY%"
REPLY_STATUS, REPLY_BODY = 1, 2  # field numbers of envoy.config.route.v3.DirectResponseAction,
SOURCE_INLINE_STRING = 3  # and of envoy.config.core.v3.DataSource


@dataclass(frozen=True)
class _Reply:
    """How an answer of Envoy's is worded: what selects it, and what it becomes."""

    code: str
    message: str
    fault: str
    flags: tuple[str, ...] = ()  # Envoy's response flags; else
    status: int = 0  # the status that Envoy gave; 0 with no flags: any
    becomes: int = 0  # the status to send instead; 0: as it is
    retry_after: bool = False


# The first that fits is taken. Flags: https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/observability/access_log/usage
REPLIES = (
    _Reply(
        "REQUEST_LIMIT_EXCEEDED",
        "the endpoint's queue is full; send the request again later",
        PLATFORM,
        flags=("UO",),
        becomes=429,
        retry_after=True,
    ),
    _Reply(
        "TEMPORARILY_UNAVAILABLE",
        "the endpoint has no pod ready to take the request; `trimtab status` says why",
        PLATFORM,
        flags=("UH", "NC"),
        becomes=503,
        retry_after=True,
    ),
    _Reply(
        "TEMPORARILY_UNAVAILABLE",
        "the pod that had the request went away before it answered; `trimtab logs` may say why",
        PLATFORM,
        flags=("UF", "UC", "UR", "LR", "URX"),
        becomes=503,
        retry_after=True,
    ),
    _Reply(
        "DEADLINE_EXCEEDED",
        "the model did not answer within the endpoint's request_timeout_s",
        MODEL,  # its pod had the request: this time does not run while it waits for one
        flags=("UT",),
        becomes=504,
    ),
    _Reply(
        "UNAUTHENTICATED",
        "no valid API key; send one as `Authorization: Bearer KEY` or `x-api-key: KEY`",
        CALLER,
        status=401,
    ),
    _Reply("ENDPOINT_NOT_FOUND", ENVOYS_WORDS, CALLER, status=404),
    _Reply("BAD_REQUEST", ENVOYS_WORDS, CALLER, status=405),
    _Reply("BAD_REQUEST", "the request did not arrive in time", CALLER, status=408),
    _Reply(
        "BAD_REQUEST",
        f"the body is larger than {BODY_BYTES_MAX >> 20} MiB; send less at a time",
        CALLER,
        status=413,
    ),
    _Reply("BAD_REQUEST", "the request's headers are too large", CALLER, status=431),
    _Reply("BAD_REQUEST", "the request is not well-formed HTTP: %RESPONSE_CODE_DETAILS%", CALLER, status=400),
    _Reply("TEMPORARILY_UNAVAILABLE", ENVOYS_WORDS, PLATFORM, status=503, retry_after=True),
    _Reply("INTERNAL_ERROR", f"{ENVOYS_WORDS} (%RESPONSE_CODE_DETAILS%)", PLATFORM),
)


@dataclass(frozen=True)
class _Shape:
    """How a protocol's errors look. `paths` is a regular expression; empty: all that is left."""

    paths: str
    body: Callable[[_Reply], dict[str, Any]]


_OPENAI_CODES = {404: "model_not_found", 401: "invalid_api_key", 429: "rate_limit_exceeded"}


def _openai(reply: _Reply) -> dict[str, Any]:
    kind = "invalid_request_error" if reply.fault == CALLER else "server_error"
    code = _OPENAI_CODES.get(reply.becomes or reply.status)
    return {"error": {"message": reply.message, "type": kind, "param": None, "code": code}}


# A path is seen as the caller wrote it, or as the pod would get it. The first shape that fits is taken.
_BEHIND_A_NAME = f"({INVOCATIONS_PREFIX}/[^/?]+)?"
SHAPES = (
    _Shape(rf"{_BEHIND_A_NAME}/v2([/?].*)?", lambda reply: {"error": reply.message}),
    _Shape(
        rf"{_BEHIND_A_NAME}/v1([/?].*)?|{INVOCATIONS_PREFIX}/((chat/)?completions|embeddings)(\?.*)?", _openai
    ),
    _Shape("", lambda reply: {"error_code": reply.code, "message": reply.message}),
)


def build_local_replies() -> LocalReplyConfig:
    """The wording of everything that Envoy answers by itself."""
    return LocalReplyConfig(mappers=[_mapper(reply, shape) for shape in SHAPES for reply in REPLIES])


def unknown_path() -> DirectResponseAction:
    """404 for a path and host at which no endpoint answers."""
    return _direct_format(
        404,
        "no endpoint answers %REQ(:PATH)% on host %REQ(:AUTHORITY)%; `trimtab status` lists the endpoints",
    )


def unknown_endpoint_header() -> DirectResponseAction:
    """404 for a name in `x-trimtab-endpoint` that no endpoint has."""
    return _direct_format(
        404, "no endpoint is called `%REQ(X-TRIMTAB-ENDPOINT)%`; `trimtab status` lists the endpoints"
    )


def unknown_model() -> DirectResponseAction:
    """404 for a body whose `model` is no endpoint that speaks OpenAI's API."""
    return _direct_format(
        404,
        "the body's `model` (%DYNAMIC_METADATA(trimtab:model)%) is no endpoint that speaks OpenAI's API; "
        "`trimtab status` lists the endpoints",
    )


def not_served(endpoint: EndpointName, served: list[str]) -> bytes:
    """404 for a path that the endpoint's protocols do not have, or that is not for the outside. Encoded."""
    what = "; ".join(call for call in served if "[" not in call)
    return _encoded(404, f"`{endpoint.short}` does not serve this path; it serves {what}")


def wrong_method(allowed: list[str]) -> DirectResponseAction:
    """405, naming the methods that the path has."""
    body = DataSource(inline_string=f"use {' or '.join(allowed)} for this path")
    return DirectResponseAction(status=405, body=body)


def nothing_serves(endpoint: EndpointName) -> bytes:
    """503 for an endpoint of which nothing was ready yet. Encoded."""
    return _encoded(503, f"`{endpoint.short}` is not ready yet; `trimtab status {endpoint.short}` says why")


def _encoded(status: int, message: str) -> bytes:
    """As a DirectResponseAction: each endpoint has its own, of each of its doors."""
    body = wire.field(REPLY_BODY, wire.text(SOURCE_INLINE_STRING, message))
    return wire.number(REPLY_STATUS, status) + body


def _direct_format(status: int, message: str) -> DirectResponseAction:
    source = DataSource(inline_string=message)
    return DirectResponseAction(
        status=status, body_format=SubstitutionFormatString(text_format_source=source)
    )


def _mapper(reply: _Reply, shape: _Shape) -> ResponseMapper:
    headers = {FAULT_HEADER: reply.fault}
    if reply.retry_after:
        headers |= {"retry-after": str(RETRY_AFTER_S), SENT_HEADER: SENT}
    body = Struct.from_dict(shape.body(reply))
    return ResponseMapper(
        filter=_at(shape.paths, _filter(reply)) if shape.paths else _filter(reply),
        status_code=reply.becomes or None,
        body_format_override=SubstitutionFormatString(json_format=body),
        headers_to_add=[_header(key, value) for key, value in headers.items()],
    )


def _header(key: str, value: str) -> HeaderValueOption:
    overwrite = HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD
    return HeaderValueOption(header=HeaderValue(key=key, value=value), append_action=overwrite)


def _at(paths: str, what: AccessLogFilter) -> AccessLogFilter:
    path = StringMatcher(safe_regex=RegexMatcher(regex=paths))
    there = AccessLogFilter(header_filter=HeaderFilter(header=HeaderMatcher(name=":path", string_match=path)))
    return AccessLogFilter(and_filter=AndFilter(filters=[there, what]))


def _filter(reply: _Reply) -> AccessLogFilter:
    if reply.flags:
        return AccessLogFilter(response_flag_filter=ResponseFlagFilter(flags=list(reply.flags)))
    # Envoy wants a name by which the value could be overridden at run time; nobody does.
    value = RuntimeUInt32(default_value=reply.status, runtime_key="trimtab.reply.status")
    op = ComparisonFilterOp.EQ if reply.status else ComparisonFilterOp.GE
    comparison = ComparisonFilter(op=op, value=value)
    return AccessLogFilter(status_code_filter=StatusCodeFilter(comparison=comparison))
