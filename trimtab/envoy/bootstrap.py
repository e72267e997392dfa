"""Envoy's bootstrap: where its control plane is, which statistics it sends, and who may administer it.

Pure rendering: values in, JSON out. All that changes while Envoy runs (listeners, routes, clusters,
pods) comes over ADS; what is here is read once, when Envoy starts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.envoy.histogram import BOUNDS_MS, BOUNDS_US
from trimtab.envoy.secrets import AUTHORITY, CERTIFICATE, ENDS, ROTATION_FAILED, reference
from trimtab.host.files import socket_path
from trimtab.xds.telemetry import STAGES_SCOPE

Json = dict[str, Any]

REGEX_STEPS_MAX = 2_000

# Of each worker: how long each turn of its loop worked, between two waits. Their sum is how busy it was.
WORKER_TURNS = "dispatcher.loop_duration_us"
TURN_BOUNDS_US = (100.0, 1_000.0, 10_000.0, 100_000.0)  # only the sum is read

CONTROL_PLANE = "control_plane"  # the cluster of the control plane in every Envoy
NODE_ATTRIBUTE = "trimtab.node"  # resource attribute of OTLP messages: Envoy adds no node id by itself

# Of a cluster's statistics, what `statistics` reads and what a person debugging would ask for.
CLUSTER_STATISTICS = (
    "membership_(total|healthy)",
    "upstream_rq_(total|active|time|completed|cancelled|timeout|5xx|retry|retry_success|retry_overflow)",
    "upstream_rq_(tx_reset|rx_reset|per_try_timeout)",
    "upstream_rq_pending_(active|overflow|failure_eject)",
    "upstream_cx_(active|total|none_healthy|connect_fail|connect_timeout|overflow)",
)

# What of all statistics is sent: what `otlp` reads, and nothing of a pod but its requests in flight.
SENT = (
    r"cluster\..*\.(rq_active|membership_total)",
    r"cluster\..*\.upstream_(cx_none_healthy|rq_(total|active|time|5xx|cancelled|retry))",
    r"cluster\..*\.upstream_rq_pending_(active|overflow|failure_eject)",
    r"server\.(uptime|state)",
    rf"listener_manager\.worker_\d+\.{WORKER_TURNS}",
    rf"sds\..*\.{ROTATION_FAILED}",
    rf"(cluster|listener)\..*\.ssl\.certificate\..*\.{ENDS}",
    rf"{STAGES_SCOPE}\..*",
)


@dataclass(frozen=True)
class Bootstrap:
    """What one Envoy is told when it starts. Both sockets must lie in a folder that only we can read.

    With a `control_address`, a name and a port, the control plane is asked there, and not on its socket; then
    `tls` is a folder of `tls.crt`, `tls.key` and the `ca.crt` that has signed for that name. They are read by
    way of files in the folder of the admin socket: see `secrets`.
    """

    node: str
    control_socket: Path  # ADS and the intake of statistics, on one gRPC server
    admin_socket: Path
    flush_interval_s: float = 1.0
    data_points_max: int = 500  # of one message: what the receiver parses in one go, in some milliseconds
    downstream_connections_max: int = 10_000
    heap_bytes_max: int = (
        2 << 30
    )  # bodies that wait are held here: about 130 of 16 MB, or any number of small ones
    control_address: tuple[str, int] | None = None
    tls: Path | None = None
    tells_busy: bool = False  # how busy its workers are, by which the Envoys of a cluster are sized

    @classmethod
    def for_home(cls, home: Path, node: str = "local") -> Bootstrap:
        """The Envoy of a machine: sockets in the run folder of `home`."""
        return cls(node, socket_path(home, "xds.sock"), socket_path(home, "envoy-admin.sock"))

    @classmethod
    def for_pod(
        cls, node: str, folder: Path, control_address: tuple[str, int], tls: Path | None = None
    ) -> Bootstrap:
        """The Envoy of a pod: its admin socket is in `folder`, its control plane elsewhere."""
        admin = folder / "admin.sock"
        xds = folder / "xds.sock"
        return cls(node, xds, admin, control_address=control_address, tls=tls, tells_busy=True)


def render(bootstrap: Bootstrap) -> bytes:
    """The bootstrap as JSON that people can read; the same input gives the same bytes."""
    return json.dumps(document(bootstrap), indent=2).encode() + b"\n"


def document(bootstrap: Bootstrap) -> Json:
    """The bootstrap as Envoy's `envoy.config.bootstrap.v3.Bootstrap`."""
    return {
        "node": {"id": bootstrap.node, "cluster": "trimtab"},
        "admin": {"address": _pipe(bootstrap.admin_socket)},
        "dynamic_resources": _dynamic_resources(),
        "static_resources": {"clusters": [_control_plane(bootstrap)]},
        "stats_config": _stats_config(),
        "enable_dispatcher_stats": bootstrap.tells_busy,
        "stats_flush_interval": f"{bootstrap.flush_interval_s:g}s",
        "stats_sinks": [_statistics_sink(bootstrap)],
        "layered_runtime": {"layers": [{"name": "static", "static_layer": _runtime()}]},
        "overload_manager": _overload_manager(bootstrap),
    }


def _pipe(path: Path) -> Json:
    return {"pipe": {"path": str(path), "mode": 0o600}}


def _dynamic_resources() -> Json:
    """Discovery over one delta stream, tried again within 2 s for as long as the control plane is away.

    Without a first configuration there is nothing to serve: Envoy waits for it (timeout 0) rather
    than open with half of it.
    """
    over_ads = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
    return {
        "ads_config": {
            "api_type": "DELTA_GRPC",
            "transport_api_version": "V3",
            "set_node_on_first_message_only": True,
            "grpc_services": [
                {
                    "envoy_grpc": {
                        "cluster_name": CONTROL_PLANE,
                        "retry_policy": {"retry_back_off": {"base_interval": "0.1s", "max_interval": "2s"}},
                    }
                }
            ],
        },
        "lds_config": over_ads,
        "cds_config": over_ads,
    }


def _control_plane(bootstrap: Bootstrap) -> Json:
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    http2 = {"connection_keepalive": {"interval": "10s", "timeout": "10s"}}  # notices a hung control plane
    address: Json = {"pipe": {"path": str(bootstrap.control_socket)}}
    kind: Json = {"type": "STATIC"}
    if bootstrap.control_address is not None:
        host, port = bootstrap.control_address
        address = {"socket_address": {"address": host, "port_value": port}}
        kind = {"type": "STRICT_DNS", "dns_lookup_family": "V4_PREFERRED"}
        if bootstrap.tls is not None:
            kind["transport_socket"] = _tls(bootstrap.admin_socket.parent, host)
    return {
        "name": CONTROL_PLANE,
        **kind,
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            options: _typed(options, {"explicit_http_config": {"http2_protocol_options": http2}})
        },
        "load_assignment": {
            "cluster_name": CONTROL_PLANE,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }


def _tls(folder: Path, name: str) -> Json:
    """Both show a certificate of the same authority, and the other side's is for `name`."""
    context = {
        "sni": name,
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "tls_certificate_sds_secret_configs": [reference(folder, CERTIFICATE)],
            "validation_context_sds_secret_config": reference(folder, AUTHORITY),
        },
    }
    tls = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
    return {"name": "envoy.transport_sockets.tls", "typed_config": _typed(tls, context)}


def _stats_config() -> Json:
    """Keep what is read: each counter costs memory per cluster and bytes per second.

    Per-endpoint statistics are not subject to the matcher.
    """
    patterns: list[Json] = [
        {"safe_regex": {"regex": rf"cluster\.[^.]*\.{name}"}} for name in CLUSTER_STATISTICS
    ]
    patterns += [
        {"safe_regex": {"regex": r"listener\..*\.downstream_(cx_(active|total|overflow)|pre_cx_timeout)"}},
        {"safe_regex": {"regex": r"http\..*\.downstream_(rq_(active|total|[2345]xx)|cx_active)"}},
        {"safe_regex": {"regex": r"(control_plane|cluster_manager|listener_manager\.lds)\..*"}},
        {"safe_regex": {"regex": rf"listener_manager\.([^.]*|worker_\d+\.{WORKER_TURNS})"}},
        {"safe_regex": {"regex": r"server\.(uptime|live|state|memory_allocated|total_connections)"}},
        {"prefix": "overload."},
        {"safe_regex": {"regex": rf"sds\.[^.]*\.{ROTATION_FAILED}"}},
        {"safe_regex": {"regex": rf"(cluster|listener)\..*\.ssl\.certificate\.[^.]*\.{ENDS}"}},
        {"prefix": f"{STAGES_SCOPE}."},
    ]
    buckets = [
        {"match": {"prefix": "cluster."}, "buckets": list(BOUNDS_MS)},
        {"match": {"prefix": f"{STAGES_SCOPE}."}, "buckets": list(BOUNDS_US)},
        {"match": {"prefix": "listener_manager."}, "buckets": list(TURN_BOUNDS_US)},
    ]
    return {
        "stats_matcher": {"inclusion_list": {"patterns": patterns}},
        "histogram_bucket_settings": buckets,
    }


def _statistics_sink(bootstrap: Bootstrap) -> Json:
    node = {"attributes": {NODE_ATTRIBUTE: bootstrap.node}}
    detectors = "envoy.extensions.tracers.opentelemetry.resource_detectors.v3"
    sink = {
        "grpc_service": {"envoy_grpc": {"cluster_name": CONTROL_PLANE}, "timeout": "5s"},
        "report_counters_as_deltas": True,
        "report_histograms_as_deltas": True,
        "max_data_points_per_request": bootstrap.data_points_max,
        "custom_metric_conversions": {"matcher_list": {"matchers": [_all_but("|".join(SENT))]}},
        "resource_detectors": [
            {
                "name": "envoy.tracers.opentelemetry.resource_detectors.static_config",
                "typed_config": _typed(f"{detectors}.StaticConfigResourceDetectorConfig", node),
            }
        ],
    }
    return {
        "name": "envoy.stat_sinks.open_telemetry",
        "typed_config": _typed("envoy.extensions.stat_sinks.open_telemetry.v3.SinkConfig", sink),
    }


def _all_but(sent: str) -> Json:
    """Drops all statistics whose whole name the expression does not match.

    Of each pod there are four gauges and six counters, which no other matcher keeps from being sent. And
    where there are conversions, Envoy gathers the points of one name into one metric, which is read much
    faster.
    """
    name = "envoy.extensions.matching.common_inputs.stats.v3.StatFullNameMatchInput"
    sink = "envoy.extensions.stat_sinks.open_telemetry.v3.SinkConfig"
    is_sent = {
        "single_predicate": {
            "input": {"name": "name", "typed_config": _typed(name, {})},
            "value_match": {"safe_regex": {"google_re2": {}, "regex": sent}},
        }
    }
    drop = {"name": "drop", "typed_config": _typed(f"{sink}.DropAction", {})}
    return {"predicate": {"not_matcher": is_sent}, "on_match": {"action": drop}}


def _runtime() -> Json:
    """Least request must see the requests that wait, or new ones pile up behind a busy pod.

    Routes hold all paths of a protocol in one regular expression, and names of 127 characters in some: Envoy
    refuses what compiles to more than 100 steps (one for most characters), and all other routes with it.
    """
    return {
        "envoy.reloadable_features.least_request_lb_count_pending_requests": True,
        "re2.max_program_size.error_level": REGEX_STEPS_MAX,
    }


def _overload_manager(bootstrap: Bootstrap) -> Json:
    """Bounds on callers' connections and on memory: what is beyond is refused, what is there goes on."""
    heap = "envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig"
    connections = "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
    return {
        "resource_monitors": [
            {
                "name": "envoy.resource_monitors.global_downstream_max_connections",
                "typed_config": _typed(
                    connections, {"max_active_downstream_connections": bootstrap.downstream_connections_max}
                ),
            },
            {
                "name": "envoy.resource_monitors.fixed_heap",
                "typed_config": _typed(heap, {"max_heap_size_bytes": bootstrap.heap_bytes_max}),
            },
        ],
        "refresh_interval": "0.25s",
        "actions": [_action("shrink_heap", 0.9), _action("stop_accepting_requests", 0.95)],
    }


def _action(name: str, heap_share: float) -> Json:
    """What to do while the heap is beyond a share of its bound."""
    trigger = {"name": "envoy.resource_monitors.fixed_heap", "threshold": {"value": heap_share}}
    return {"name": f"envoy.overload_actions.{name}", "triggers": [trigger]}


def _typed(message: str, fields: Json) -> Json:
    return {"@type": f"type.googleapis.com/{message}", **fields}
