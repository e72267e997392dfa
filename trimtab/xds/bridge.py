"""gRPC to pods that speak HTTP/1.1 alone: the same port, cluster and limit as for all else. Pure.

A call without a stream of requests is a POST whose body is one framed message, and so is its answer. Envoy
hands both on as they are, and appends what HTTP/1.1 has no place for: the trailer with gRPC's status 0. An
error is an answer without a body, whose headers say its status and its words: Trailers-Only, to gRPC.
https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

from envoy_data_plane.envoy.config.route.v3 import FilterConfig as Enabled
from envoy_data_plane.envoy.config.route.v3 import WeightedClusterClusterWeight
from envoy_data_plane.envoy.extensions.filters.http.grpc_http1_reverse_bridge.v3 import FilterConfig
from envoy_data_plane.google.protobuf import Any

from trimtab.xds.world import GRPC_SUFFIX

FILTER = "envoy.filters.http.grpc_http1_reverse_bridge"
CONTENT_TYPE = "application/grpc"  # another would make the filter take Envoy's own answers for broken ones


def reverse_bridge() -> FilterConfig:
    """The filter. It leaves gRPC's frames: they say whether a message is compressed."""
    return FilterConfig(content_type=CONTENT_TYPE)


def over(cluster: WeightedClusterClusterWeight) -> None:
    """Let the calls that go to this cluster go over the bridge."""
    cluster.typed_per_filter_config[FILTER] = Any.pack(Enabled(config=Any()))


def is_bridged(cluster: str) -> bool:
    """Whether gRPC to this cluster has to go over the bridge: it is not one of its own."""
    return not cluster.endswith(GRPC_SUFFIX)
