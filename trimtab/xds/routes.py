"""Which request goes to which revision: the one route table. Pure.

Three doors lead to an endpoint (see `doors`), each by one look into a map (see `lookup`); behind each
are the calls of its protocols (see `calls`). A known path with another method is 405; whatever else is
behind a door, or behind none, is 404. Pods are no part of it: a revision that has none answers 503 by
itself (see `replies`), so the table is still while pods come and go.

There are dozens of routes per endpoint, and most of what each says all endpoints' say. So parts are encoded
once and joined (see `wire`): a route made as a message of its own takes a hundred times as long.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from functools import cache, cached_property, lru_cache
from operator import itemgetter

from envoy_data_plane.envoy.config.core.v3 import HeaderValue, HeaderValueOption
from envoy_data_plane.envoy.config.route.v3 import (
    HeaderMatcher,
    RetryPolicy,
    RetryPolicyRetryBackOff,
    RetryPolicyRetryHostPredicate,
    Route,
    RouteAction,
    RouteConfiguration,
    RouteMatch,
    RouteMatchGrpcRouteMatchOptions,
    VirtualHost,
    WeightedClusterClusterWeight,
)
from envoy_data_plane.envoy.extensions.filters.http.buffer.v3 import BufferPerRoute
from envoy_data_plane.envoy.extensions.retry.host.previous_hosts.v3 import PreviousHostsPredicate
from envoy_data_plane.google.protobuf import Any

from trimtab.core.names import EndpointName
from trimtab.core.protocol import Protocol
from trimtab.xds import lookup, replies, wire
from trimtab.xds.bridge import is_bridged, over
from trimtab.xds.by_model import BODY_CALLS, MODEL_HEADER, asking_route, path_of, to_own_path
from trimtab.xds.calls import CALLS, HIDDEN, SEGMENT, Call, health, merged
from trimtab.xds.doors import ENDPOINT_HEADER, HOST_DOOR, Door, hosts, method_is, path_doors, written_names
from trimtab.xds.keys import known_keys
from trimtab.xds.wire import Pieces
from trimtab.xds.world import (
    GRPC_PROTOCOLS,
    REPLAY_BYTES_MAX,
    ApiKey,
    EndpointView,
    RevisionView,
    World,
    cluster_name,
    grpc_cluster_name,
)

ROUTE_TABLE = "gateway"  # the name of the one RouteConfiguration
BUFFER_FILTER = "envoy.filters.http.buffer"

# A request that pods die of takes one more with each, but Envoy counts all tries alike. Of six pods under
# load, six times each: with 1 some requests failed where one pod died, with 2 where two or three did at once.
RETRIES_MAX = 3
DIGEST_BYTES = 16
HOST_CHOICES_MAX = 10  # tries to find a pod that this request did not meet before
# Longer than the total timeout, so that the timeout's own answer is the one that callers see.
IDLE_MARGIN_S = 10.0

# Field numbers of envoy.config.route.v3, and of envoy.type.matcher.v3: RegexMatcher, RegexMatchAndSubstitute.
TABLE_VIRTUAL_HOSTS = 2
VIRTUAL_HOST_NAME, VIRTUAL_HOST_DOMAINS, VIRTUAL_HOST_ROUTES, VIRTUAL_HOST_MATCHER = 1, 2, 3, 21
ROUTE_MATCH, ROUTE_ACTION, ROUTE_REPLY = 1, 2, 7
MATCH_PATH, MATCH_REGEX, MATCH_SEPARATED_PREFIX = 2, 10, 14
ACTION_CLUSTER, ACTION_WEIGHTED_CLUSTERS, ACTION_REGEX_REWRITE = 1, 3, 32
WEIGHTED_CLUSTERS, WEIGHT_NAME, WEIGHT_WEIGHT = 1, 1, 2
REGEX, REWRITE_PATTERN = 2, 1
UINT32_VALUE = 1  # of google.protobuf


class Rank(IntEnum):
    """Where a route stands in a table that Envoy looks through from the top.

    What is asked most comes first. Each takes what those above it left.
    """

    INVOKES = 0
    PREDICTS = 1
    REFUSED = 2
    ASKS = 3
    WRONG_METHOD = 4
    REST = 5


@dataclass(frozen=True)
class Target:
    """What the routes of an endpoint depend on; one that is equal to the last one's is not encoded again."""

    name: EndpointName
    timeout_s: float
    clusters: tuple[tuple[Protocol, tuple[tuple[str, int], ...]], ...]  # by protocol: (cluster, weight)


@dataclass(frozen=True)
class Routed:
    """One endpoint's parts of the table, encoded: the host that is its own, and entries of all others' host.

    Those are by whole path, by its beginning, by header and, of each of BODY_CALLS, by the model in the body;
    none of the last if it has no such calls. `digest` tells it from all others.
    """

    host: bytes
    whole: bytes
    begins: bytes
    header: bytes
    by_model: tuple[bytes, ...]

    @cached_property
    def digest(self) -> bytes:
        return _digest((self.host, self.whole, self.begins, self.header, *self.by_model))


def build_routes(world: World) -> bytes:
    """The encoded RouteConfiguration: a virtual host per endpoint, and one for every other host."""
    gateway = world.gateway
    routed = [routed_of(target_of(endpoint), gateway.domain) for endpoint in world.endpoints]
    return build_table(routed, gateway.api_keys)


def build_table(routed: Sequence[Routed], keys: tuple[ApiKey, ...]) -> bytes:
    """The same, of what the endpoints' routes are."""
    hosts = wire.pieces(_table_head(keys), *[each.host for each in routed])
    return (hosts + _shared_host(routed).within(TABLE_VIRTUAL_HOSTS)).joined()


def table_digest(routed: Sequence[Routed], keys: tuple[ApiKey, ...]) -> bytes:
    """Tells that table from all others, without making it: its parts, and how those are put together.

    The latter by the table of two endpoints at most, one that is asked by a model's name among them, if any
    is: another version of this module may make it otherwise.
    """
    sample = [*routed[:1], *[each for each in routed if each.by_model][:1]]
    return _digest((build_table(sample, keys), *[each.digest for each in routed]))


def _digest(parts: Sequence[bytes]) -> bytes:
    """Where each of them ends matters, too."""
    lengths = b",".join([b"%d" % len(each) for each in parts])
    return hashlib.blake2b(lengths + b";" + b"".join(parts), digest_size=DIGEST_BYTES).digest()


def target_of(endpoint: EndpointView) -> Target:
    """What the routes of an endpoint depend on: not its pods."""
    revisions = {revision.key: revision for revision in endpoint.revisions}
    clusters = []
    for protocol in Protocol:
        weights = tuple(
            (_cluster_of(revisions[share.revision], protocol), share.percent)
            for share in endpoint.shares
            if share.percent > 0 and protocol in revisions[share.revision].protocols
        )
        if weights:
            clusters.append((protocol, weights))
    return Target(endpoint.name, endpoint.request_timeout_s, tuple(clusters))


def _cluster_of(revision: RevisionView, protocol: Protocol) -> str:
    if protocol in GRPC_PROTOCOLS and not revision.grpc_bridged:
        return grpc_cluster_name(revision.key)
    return cluster_name(revision.key)


def _table_head(keys: tuple[ApiKey, ...]) -> bytes:
    table = RouteConfiguration(name=ROUTE_TABLE, ignore_port_in_host_matching=True)
    table.typed_per_filter_config = known_keys(keys)
    return bytes(table)


@lru_cache(maxsize=8192)
def routed_of(target: Target, domain: str) -> Routed:
    """What an endpoint has in the table of a gateway of that domain."""
    own = _in_order(HOST_DOOR, target)
    host = _virtual_host(str(target.name), hosts(target.name, domain))
    host += wire.repeated(VIRTUAL_HOST_ROUTES, own)
    whole, begins = [], []
    for door in path_doors(target.name):
        routes = _in_order(door, target)
        rest = lookup.routes(routes[-1:])
        whole.append(lookup.entry(door.prefix, rest))
        begins.append(lookup.entry(f"{door.prefix}/", lookup.routes(routes)))
        begins.append(lookup.entry(f"{door.prefix}?", rest))
    named = lookup.routes(own)
    header = b"".join(lookup.entry(name, named) for name in written_names(target.name))
    return Routed(
        wire.field(TABLE_VIRTUAL_HOSTS, host), b"".join(whole), b"".join(begins), header, _by_model(target)
    )


def _shared_host(routed: Sequence[Routed]) -> Pieces:
    """The host that is nobody's. All endpoints are behind it, so the one that is asked is looked up."""
    by_body = lookup.prefix(":path", wire.pieces(*_by_body(routed)), otherwise=_unnamed())
    header = wire.pieces(*[each.header for each in routed])
    by_header = lookup.exact(ENDPOINT_HEADER, header, otherwise=by_body)
    begins = wire.pieces(*[each.begins for each in routed])
    by_door = lookup.prefix(":path", begins, otherwise=by_header)
    by_path = lookup.exact(":path", wire.pieces(*[each.whole for each in routed]), otherwise=by_door)
    host = wire.pieces(_virtual_host("*", ["*"]))
    return host + lookup.matcher(by_path).within(VIRTUAL_HOST_MATCHER)


def _by_body(routed: Sequence[Routed]) -> list[bytes]:
    """Entries for the calls that name their endpoint in the body, by the header that is made of that."""
    found = [each.by_model for each in routed if each.by_model]
    by_call = [wire.pieces(*named) for named in zip(*found, strict=True)] or [wire.pieces()] * len(BODY_CALLS)
    return [
        lookup.entry(
            path_of(call), lookup.exact(MODEL_HEADER, by_name, otherwise=_unnamed(_asking(call))).joined()
        )
        for call, by_name in zip(BODY_CALLS, by_call, strict=True)
    ]


def _unnamed(*first: bytes) -> Pieces:
    """For callers who name no endpoint that there is."""
    return wire.pieces(lookup.routes([*first, *_nobodys()]))


@cache
def _asking(call: Call) -> bytes:
    return bytes(asking_route(call))


def _in_order(door: Door, target: Target) -> list[bytes]:
    return [route for _, route in sorted(_behind(door, target), key=itemgetter(0))]


def _by_model(target: Target) -> tuple[bytes, ...]:
    """Entries of callers who name the endpoint in the body, of each call; none if it has no such."""
    weights = dict(target.clusters).get(Protocol.OPENAI)
    if weights is None:
        return ()
    entries = []
    for call in BODY_CALLS:
        route = _route(
            wire.text(MATCH_PATH, path_of(call)) + method_is(call.method),
            action=_clusters(weights) + _timeouts(target.timeout_s, streams=call.streams) + to_own_path(),
        )
        found = lookup.routes([route + _without_model_header()])
        entries.append(b"".join(lookup.entry(name, found) for name in written_names(target.name)))
    return tuple(entries)


def _virtual_host(name: str, domains: list[str]) -> bytes:
    names = wire.repeated(VIRTUAL_HOST_DOMAINS, (domain.encode() for domain in domains))
    return wire.text(VIRTUAL_HOST_NAME, name) + names + _host_settings()


@cache
def _host_settings() -> bytes:
    return bytes(VirtualHost(retry_policy=_retry_policy(), request_body_buffer_limit=REPLAY_BYTES_MAX))


@cache
def _nobodys() -> tuple[bytes, ...]:
    """For what no endpoint took: say what was asked for, and where the names are."""
    unknown_header = Route(
        match=RouteMatch(prefix="/", headers=[HeaderMatcher(name=ENDPOINT_HEADER, present_match=True)]),
        direct_response=replies.unknown_endpoint_header(),
    )
    anything = Route(match=RouteMatch(prefix="/"), direct_response=replies.unknown_path())
    return bytes(unknown_header), bytes(anything)


def _behind(door: Door, target: Target) -> list[tuple[Rank, bytes]]:
    """All routes behind one door of an endpoint, the last of which takes whatever is left."""
    if not target.clusters:
        return [(Rank.REST, _rest(door, replies.nothing_serves(target.name)))]
    found: list[tuple[Rank, bytes]] = []
    served: list[Call] = []
    unable: list[Call] = []
    spoken = frozenset(protocol for protocol, _ in target.clusters)
    for protocol, weights in target.clusters:
        calls = _calls(door, protocol, spoken)
        able = tuple([call for call in calls if _able(call, weights)])
        served += able
        unable += [call for call in calls if not _able(call, weights)]
        for call in merged(able):
            route = _call_route(door, protocol, call, _able(call, weights), target.timeout_s)
            found.append((_rank(protocol, call), route))
    refused = replies.not_served(target.name, [f"{call.method} {door.prefix}{call.path}" for call in served])
    hidden = [path for protocol, _ in target.clusters for path in HIDDEN.get(protocol, ())]
    hidden = [] if door.invocations_only else hidden
    found += [(Rank.REFUSED, _exactly(door, path, refused)) for path in hidden]
    found += [(Rank.REFUSED, _exactly(door, call.path, refused) + _at_once()) for call in unable]
    found += [(Rank.WRONG_METHOD, route) for route in _wrong_methods(door, tuple(served))]
    return [*found, (Rank.REST, _rest(door, refused))]


def _able(call: Call, weights: tuple[tuple[str, int], ...]) -> tuple[tuple[str, int], ...]:
    """The clusters that can take a call."""
    return tuple(weight for weight in weights if not is_bridged(weight[0])) if call.duplex else weights


def _rank(protocol: Protocol, call: Call) -> Rank:
    if call.method != "POST":
        return Rank.ASKS
    return Rank.INVOKES if protocol is Protocol.INVOCATIONS else Rank.PREDICTS


def _calls(door: Door, protocol: Protocol, spoken: frozenset[Protocol]) -> tuple[Call, ...]:
    if door.invocations_only and protocol is not Protocol.INVOCATIONS:
        return ()
    return _calls_by(protocol, spoken, by_path=bool(door.prefix))


@cache
def _calls_by(protocol: Protocol, spoken: frozenset[Protocol], *, by_path: bool) -> tuple[Call, ...]:
    calls = (*CALLS[protocol], *health(protocol, spoken))
    return tuple(call for call in calls if not (by_path and call.host_only))


def _call_route(
    door: Door, protocol: Protocol, call: Call, weights: tuple[tuple[str, int], ...], timeout_s: float
) -> bytes:
    match = _path(door, call) + method_is(call.method)
    action = _timeouts(timeout_s, streams=call.streams)
    action += _to(call.becomes) if call.becomes else _cut(door.prefix.rpartition("/")[0])
    if protocol not in GRPC_PROTOCOLS:
        return _route(match, action=_clusters(weights) + action)
    route = _route(match + _is_grpc(), action=_grpc_clusters(weights) + action)
    return route if any(is_bridged(name) for name, _ in weights) else route + _at_once()


def _wrong_methods(door: Door, calls: tuple[Call, ...]) -> list[bytes]:
    """405 for the paths above, naming the methods that each of them has."""
    return [_route(_path(door, path)) + _wrong_method(allowed) for path, allowed in _methods_of(calls)]


@lru_cache(maxsize=1024)
def _methods_of(calls: tuple[Call, ...]) -> tuple[tuple[Call, tuple[str, ...]], ...]:
    methods: dict[Call, list[str]] = {}
    for call in calls:
        methods.setdefault(Call("", call.path, call.pattern), []).append(call.method)
    paths: dict[tuple[str, ...], list[Call]] = {}
    for path, allowed in methods.items():
        paths.setdefault(tuple(allowed), []).append(path)
    return tuple((path, allowed) for allowed, some in paths.items() for path in merged(tuple(some)))


def _exactly(door: Door, path: str, reply: bytes) -> bytes:
    return _route(wire.text(MATCH_PATH, door.prefix + path), reply=reply)


def _rest(door: Door, reply: bytes) -> bytes:
    anything = wire.text(MATCH_SEPARATED_PREFIX, door.prefix) if door.prefix else _any_path()
    return _route(anything, reply=reply)


def _path(door: Door, call: Call) -> bytes:
    if call.pattern:
        return wire.field(MATCH_REGEX, wire.text(REGEX, f"{re.escape(door.prefix)}({call.path})"))
    return wire.text(MATCH_PATH, door.prefix + call.path)


def _route(match: bytes, *, action: bytes = b"", reply: bytes = b"") -> bytes:
    """A Route of encoded parts."""
    route = wire.field(ROUTE_MATCH, match)
    route += wire.field(ROUTE_ACTION, action) if action else b""
    return route + wire.field(ROUTE_REPLY, reply) if reply else route


# What follows are parts of a Route, its match or its action that many routes share.


@cache
def _any_path() -> bytes:
    return bytes(RouteMatch(prefix="/"))


@cache
def _is_grpc() -> bytes:
    return bytes(RouteMatch(grpc=RouteMatchGrpcRouteMatchOptions()))


@cache
def _without_model_header() -> bytes:
    return bytes(Route(request_headers_to_remove=[MODEL_HEADER]))


@cache
def _wrong_method(allowed: tuple[str, ...]) -> bytes:
    allow = HeaderValueOption(header=HeaderValue(key="allow", value=", ".join(allowed)))
    return bytes(Route(direct_response=replies.wrong_method(list(allowed)), response_headers_to_add=[allow]))


@cache
def _at_once() -> bytes:
    """Do not hold back a request until it is whole: as a stream it may have no end."""
    return bytes(Route(typed_per_filter_config={BUFFER_FILTER: _unbuffered()}))


@cache
def _cut(before: str) -> bytes:
    """Leave of the path what the model server knows: `/serving-endpoints/iris/v2/…` becomes `/v2/…`."""
    if not before:
        return b""
    pattern = wire.text(REGEX, "^" + re.escape(before) + "/" + SEGMENT)
    return wire.field(ACTION_REGEX_REWRITE, wire.field(REWRITE_PATTERN, pattern))


@cache
def _to(path: str) -> bytes:
    """Another path instead of the one that matched."""
    return bytes(RouteAction(prefix_rewrite=path))


@lru_cache(maxsize=1024)
def _timeouts(timeout_s: float, *, streams: bool) -> bytes:
    """The whole answer within the endpoint's timeout; a stream only may not be silent for so long."""
    total_s, silence_s = (0.0, timeout_s) if streams else (timeout_s, timeout_s + IDLE_MARGIN_S)
    return bytes(RouteAction(timeout=timedelta(seconds=total_s), idle_timeout=timedelta(seconds=silence_s)))


def _clusters(weights: tuple[tuple[str, int], ...]) -> bytes:
    return wire.text(ACTION_CLUSTER, weights[0][0]) if len(weights) == 1 else _weighted(weights)


def _grpc_clusters(weights: tuple[tuple[str, int], ...]) -> bytes:
    """Where some pods take gRPC over the bridge and others do not, that is each cluster's own affair."""
    if not any(is_bridged(name) for name, _ in weights):
        return _clusters(weights)
    return _weighted(weights, _bridged)


def _weighted(
    weights: tuple[tuple[str, int], ...], settings: Callable[[str], bytes] = lambda _: b""
) -> bytes:
    """`settings`: what else is said of a cluster of that name."""
    clusters = [
        wire.text(WEIGHT_NAME, name)
        + wire.field(WEIGHT_WEIGHT, wire.number(UINT32_VALUE, weight))
        + settings(name)
        for name, weight in weights
    ]
    return wire.field(ACTION_WEIGHTED_CLUSTERS, wire.repeated(WEIGHTED_CLUSTERS, clusters))


def _bridged(cluster: str) -> bytes:
    return _over_the_bridge() if is_bridged(cluster) else _at_once_there()


@cache
def _over_the_bridge() -> bytes:
    share = WeightedClusterClusterWeight()
    over(share)
    return bytes(share)


@cache
def _at_once_there() -> bytes:
    return bytes(WeightedClusterClusterWeight(typed_per_filter_config={BUFFER_FILTER: _unbuffered()}))


def _unbuffered() -> Any:
    return Any.pack(BufferPerRoute(disabled=True))


def _retry_policy() -> RetryPolicy:
    """On another pod, and only if nothing of the answer was sent: refused, reset, gone.

    Not what a model answered, and not a full queue: asking again would only make it fuller.
    """
    another = RetryPolicyRetryHostPredicate(
        name="envoy.retry_host_predicates.previous_hosts", typed_config=Any.pack(PreviousHostsPredicate())
    )
    return RetryPolicy(
        retry_on="connect-failure,refused-stream,reset",
        num_retries=RETRIES_MAX,
        retry_host_predicate=[another],
        host_selection_retry_max_attempts=HOST_CHOICES_MAX,
        retry_back_off=RetryPolicyRetryBackOff(
            base_interval=timedelta(milliseconds=10), max_interval=timedelta(milliseconds=100)
        ),
    )
