"""A revision as Envoy clusters: one per transport that its protocols need. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache

from envoy_data_plane.envoy.config.cluster.v3 import (
    CircuitBreakers,
    CircuitBreakersThresholds,
    CircuitBreakersThresholdsRetryBudget,
    Cluster,
    ClusterCommonLbConfig,
    ClusterDiscoveryType,
    ClusterEdsClusterConfig,
    LoadBalancingPolicy,
    LoadBalancingPolicyPolicy,
    OutlierDetection,
    TrackClusterStats,
)
from envoy_data_plane.envoy.config.core.v3 import (
    AggregatedConfigSource,
    ApiVersion,
    ConfigSource,
    Http1ProtocolOptions,
    Http2ProtocolOptions,
    HttpProtocolOptions,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.extensions.load_balancing_policies.least_request.v3 import (
    LeastRequest,
    LeastRequestSelectionMethod,
)
from envoy_data_plane.envoy.extensions.load_balancing_policies.round_robin.v3 import RoundRobin
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptions as UpstreamProtocolOptions,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptionsExplicitHttpConfig as ExplicitHttp,
)
from envoy_data_plane.envoy.type.v3 import Percent
from envoy_data_plane.google.protobuf import Any

from trimtab.xds import wire
from trimtab.xds.world import RevisionView, clusters_of, limit_of

CONNECT_TIMEOUT = timedelta(seconds=1)
# The first assignment of a new cluster. Bounds how long a cluster may hold back the acknowledgement.
ASSIGNMENT_TIMEOUT = timedelta(seconds=10)
UNLIMITED = 1_000_000_000  # Envoy's own bounds of 1,024 would clip demand; per pod and queue are ours
RETRY_BUDGET_PERCENT = 20.0
BUFFER_BYTES = 32 << 10

CLUSTER_NAME = 1  # the field number in envoy.config.cluster.v3
UPSTREAM_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


@dataclass(frozen=True)
class Built:
    """A Cluster whose limits are apart, since Envoys share them: `stem` and `limits` are the message.

    `limit` is how many requests a pod may hold in flight, `queue_max` how many may wait in one Envoy.
    """

    name: str
    stem: bytes
    limit: int
    queue_max: int


def build_clusters(revision: RevisionView) -> tuple[Built, ...]:
    """Each cluster of a revision. Pods are not part of it."""
    return tuple(
        Built(
            name,
            wire.text(CLUSTER_NAME, name) + _alike(revision.idle_timeout_s, grpc=grpc),
            limit_of(revision, grpc=grpc),
            revision.queue_max,
        )
        for name, grpc in clusters_of(revision)
    )


@lru_cache(maxsize=8192)
def limits(limit: int, queue_max: int) -> bytes:
    """The part of an encoded Cluster that bounds what it holds."""
    return bytes(Cluster(circuit_breakers=_circuit_breakers(limit, queue_max)))


@lru_cache(maxsize=64)
def _alike(idle_timeout_s: float, *, grpc: bool) -> bytes:
    """What many clusters have in common."""
    return bytes(
        Cluster(
            type=ClusterDiscoveryType.EDS,
            eds_cluster_config=ClusterEdsClusterConfig(eds_config=over_ads(ASSIGNMENT_TIMEOUT)),
            connect_timeout=CONNECT_TIMEOUT,
            per_connection_buffer_limit_bytes=BUFFER_BYTES,
            load_balancing_policy=_least_request(),
            common_lb_config=ClusterCommonLbConfig(
                healthy_panic_threshold=Percent(value=0.0),  # else pods that all drain would get new requests
                update_merge_window=timedelta(),  # else a drain waits up to a second
            ),
            outlier_detection=_outlier_detection(),
            typed_extension_protocol_options={
                UPSTREAM_OPTIONS: Any.pack(_upstream(idle_timeout_s, grpc=grpc))
            },
            track_cluster_stats=TrackClusterStats(per_endpoint_stats=True),
        )
    )


def over_ads(first_fetch_timeout: timedelta) -> ConfigSource:
    """The source of everything: the one ADS stream."""
    return ConfigSource(
        ads=AggregatedConfigSource(),
        resource_api_version=ApiVersion.V3,
        initial_fetch_timeout=first_fetch_timeout,
    )


def _least_request() -> LoadBalancingPolicy:
    """The pod with the fewest requests, waiting ones included, of all pods.

    Of all rather than of two at random: a request is bound to its pod when it arrives, and of
    eight pods with one idle, two choices find the idle one in 23 of 100 cases. Round robin is
    for clients that do not know the first.
    """
    wanted = LeastRequest(selection_method=LeastRequestSelectionMethod.FULL_SCAN)
    policies = (("least_request", wanted), ("round_robin", RoundRobin()))
    return LoadBalancingPolicy(
        policies=[
            LoadBalancingPolicyPolicy(
                typed_extension_config=TypedExtensionConfig(
                    name=f"envoy.load_balancing_policies.{name}", typed_config=Any.pack(policy)
                )
            )
            for name, policy in policies
        ]
    )


def _circuit_breakers(limit: int, queue_max: int) -> CircuitBreakers:
    """A limit per pod, a bound for the queue, and a budget for retries.

    One connection carries one request (see `_upstream`), so connections per pod are requests in
    flight per pod. A request whose connection is just being opened counts as waiting.

    The budget always covers what one pod can hold, in flight and waiting; in a large revision it is
    a fifth of the load. It does not depend on the number of pods: a changed cluster is built anew
    by Envoy, and pods come and go.
    """
    return CircuitBreakers(
        thresholds=[
            CircuitBreakersThresholds(
                max_connections=UNLIMITED,
                max_pending_requests=queue_max,
                max_requests=UNLIMITED,
                retry_budget=CircuitBreakersThresholdsRetryBudget(
                    budget_percent=Percent(value=RETRY_BUDGET_PERCENT),
                    min_retry_concurrency=limit + queue_max,
                ),
            )
        ],
        per_host_thresholds=[CircuitBreakersThresholds(max_connections=limit)],
    )


def _outlier_detection() -> OutlierDetection:
    """Leave a pod that cannot be reached alone for a moment; never judge what a model answers.

    A dead pod has no requests, so it would be everybody's first choice until the fleet reports it.
    Only failures on our side of the socket count (refused, reset, no answer in time), not a 5xx
    that a model sends. At most half of the pods are put aside, hence never the only one: there,
    waiting for it to come back is better than refusing at once.
    """
    return OutlierDetection(
        split_external_local_origin_errors=True,
        consecutive_local_origin_failure=2,
        enforcing_consecutive_local_origin_failure=100,
        enforcing_consecutive_5xx=0,
        enforcing_consecutive_gateway_failure=0,
        enforcing_success_rate=0,
        enforcing_local_origin_success_rate=0,
        interval=timedelta(milliseconds=500),
        base_ejection_time=timedelta(seconds=1),
        max_ejection_time=timedelta(seconds=10),
        max_ejection_percent=50,
    )


def _upstream(idle_timeout_s: float, *, grpc: bool) -> UpstreamProtocolOptions:
    """HTTP/1.1, or HTTP/2 with one stream per connection: either way one request per connection.

    Idle connections are closed by us, before the server does: the side that sends must be the one that
    closes, or a request meets a connection that is just being closed.
    """
    transport = (
        ExplicitHttp(http2_protocol_options=Http2ProtocolOptions(max_concurrent_streams=1))
        if grpc
        else ExplicitHttp(http_protocol_options=Http1ProtocolOptions())
    )
    return UpstreamProtocolOptions(
        common_http_protocol_options=HttpProtocolOptions(idle_timeout=timedelta(seconds=idle_timeout_s)),
        explicit_http_config=transport,
    )
