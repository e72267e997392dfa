"""Calls that name their endpoint in the body: OpenAI's clients with Databricks' base address. Pure.

`POST /serving-endpoints/chat/completions` with `{"model": "llm", …}`. A filter that is off elsewhere reads
the body's `model`, and the route is then chosen once more. A path that is not such a call has no body read.
"""

from __future__ import annotations

import re
from functools import cache

from envoy_data_plane.envoy.config.route.v3 import FilterConfig, HeaderMatcher, Route, RouteAction, RouteMatch
from envoy_data_plane.envoy.extensions.filters.http.json_to_metadata.v3 import (
    JsonToMetadata,
    JsonToMetadataKeyValuePair,
    JsonToMetadataMatchRules,
    JsonToMetadataRule,
    JsonToMetadataSelector,
)
from envoy_data_plane.envoy.type.matcher.v3 import (
    MetadataMatcher,
    MetadataMatcherPathSegment,
    RegexMatchAndSubstitute,
    RegexMatcher,
    StringMatcher,
    ValueMatcher,
)
from envoy_data_plane.google.protobuf import Any

from trimtab.core.names import EndpointName
from trimtab.core.protocol import Protocol
from trimtab.xds import replies
from trimtab.xds.calls import CALLS, Call
from trimtab.xds.doors import INVOCATIONS_PREFIX, written_names

FILTER = "envoy.filters.http.json_to_metadata"
NAMESPACE, MODEL = "trimtab", "model"
OWN_PREFIX = "/v1"  # of these calls where the endpoint is named otherwise

BODY_CALLS: tuple[Call, ...] = tuple(
    call
    for call in CALLS[Protocol.OPENAI]
    if call.path in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
)


def model_reader() -> JsonToMetadata:
    """The filter that reads `model`; what is not JSON, or names none, is left to the route that asked."""
    told = JsonToMetadataKeyValuePair(metadata_namespace=NAMESPACE, key=MODEL)
    rule = JsonToMetadataRule(selectors=[JsonToMetadataSelector(key=MODEL)], on_present=told)
    json = RegexMatcher(regex="application/json.*")
    return JsonToMetadata(
        request_rules=JsonToMetadataMatchRules(
            rules=[rule], allow_content_types_regex=json, allow_empty_content_type=True
        )
    )


def path_of(call: Call) -> str:
    """Where a call is made that names its endpoint in the body."""
    return INVOCATIONS_PREFIX + call.path.removeprefix(OWN_PREFIX)


def named_in_body(endpoint: EndpointName) -> bytes:
    """Of requests whose body names the endpoint: a part of RouteMatch."""
    names = "|".join(re.escape(name) for name in written_names(endpoint))
    matcher = StringMatcher(safe_regex=RegexMatcher(regex=names))
    named = MetadataMatcher(
        filter=NAMESPACE,
        path=[MetadataMatcherPathSegment(key=MODEL)],
        value=ValueMatcher(string_match=matcher),
    )
    return bytes(RouteMatch(dynamic_metadata=[named]))


@cache
def to_own_path() -> bytes:
    """Ask the model server at its own path of the call: a part of RouteAction."""
    pattern = RegexMatcher(regex="^" + re.escape(INVOCATIONS_PREFIX))
    return bytes(RouteAction(regex_rewrite=RegexMatchAndSubstitute(pattern=pattern, substitution=OWN_PREFIX)))


def asking_route(call: Call) -> Route:
    """What takes such a call first: it has the body read, and answers if that names no endpoint."""
    post = HeaderMatcher(name=":method", string_match=StringMatcher(exact=call.method))
    return Route(
        match=RouteMatch(path=path_of(call), headers=[post]),
        direct_response=replies.unknown_model(),
        typed_per_filter_config={FILTER: Any.pack(FilterConfig(config=Any()))},
    )
