"""Calls that name their endpoint in the body: OpenAI's clients with Databricks' base address. Pure.

`POST /serving-endpoints/chat/completions` with `{"model": "llm", …}`. A filter that is off elsewhere reads
the body's `model`, another makes a header of it, and the route is then chosen once more: by that, in a map.
A path that is not such a call has no body read.
"""

from __future__ import annotations

import re
from functools import cache

from envoy_data_plane.envoy.config.common.mutation_rules.v3 import HeaderMutation as Rule
from envoy_data_plane.envoy.config.core.v3 import (
    HeaderValue,
    HeaderValueOption,
    HeaderValueOptionHeaderAppendAction,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.config.route.v3 import FilterConfig, HeaderMatcher, Route, RouteAction, RouteMatch
from envoy_data_plane.envoy.extensions.filters.http.header_mutation.v3 import (
    HeaderMutation,
    HeaderMutationPerRoute,
    Mutations,
)
from envoy_data_plane.envoy.extensions.filters.http.json_to_metadata.v3 import (
    JsonToMetadata,
    JsonToMetadataKeyValuePair,
    JsonToMetadataMatchRules,
    JsonToMetadataRule,
    JsonToMetadataSelector,
)
from envoy_data_plane.envoy.extensions.http.early_header_mutation.header_mutation.v3 import (
    HeaderMutation as EarlyMutation,
)
from envoy_data_plane.envoy.type.matcher.v3 import RegexMatchAndSubstitute, RegexMatcher, StringMatcher
from envoy_data_plane.google.protobuf import Any

from trimtab.core.protocol import Protocol
from trimtab.xds import replies
from trimtab.xds.calls import CALLS, Call
from trimtab.xds.doors import INVOCATIONS_PREFIX

FILTER = "envoy.filters.http.json_to_metadata"
NAMING_FILTER = "envoy.filters.http.header_mutation"
MODEL_HEADER = "x-trimtab-model"  # of ours alone: cut off before the pod
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


def model_teller() -> HeaderMutation:
    """The filter behind it, which makes a header of what was read; `-` if nothing was."""
    value = HeaderValue(key=MODEL_HEADER, value=f"%DYNAMIC_METADATA({NAMESPACE}:{MODEL})%")
    overwrite = HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD
    rule = Rule(append=HeaderValueOption(header=value, append_action=overwrite))
    return HeaderMutation(mutations=Mutations(request_mutations=[rule]))


def callers_header_cut() -> TypedExtensionConfig:
    """Before anything looks at a request: a caller's header of this name is not what a body said."""
    cut = EarlyMutation(mutations=[Rule(remove=MODEL_HEADER)])
    return TypedExtensionConfig(
        name="envoy.http.early_header_mutation.header_mutation", typed_config=Any.pack(cut)
    )


def path_of(call: Call) -> str:
    """Where a call is made that names its endpoint in the body."""
    return INVOCATIONS_PREFIX + call.path.removeprefix(OWN_PREFIX)


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
        typed_per_filter_config={
            FILTER: Any.pack(FilterConfig(config=Any())),
            NAMING_FILTER: Any.pack(FilterConfig(config=Any.pack(HeaderMutationPerRoute()))),
        },
    )
