"""What Envoy tells of requests: spans, a log of those that failed on our side, the times of stages. Pure.

A request's id is the caller's, if it has one; the same stands in Envoy's log and span, in the pod's, and in
the answer. Whether a trace is sampled is the caller's decision too, by its `traceparent`.
"""

from __future__ import annotations

from datetime import timedelta

from envoy_data_plane.envoy.config.accesslog.v3 import (
    AccessLog,
    AccessLogFilter,
    ExtensionFilter,
    ResponseFlagFilter,
)
from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterDiscoveryType
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    DataSource,
    GrpcService,
    GrpcServiceEnvoyGrpc,
    HeaderValue,
    HeaderValueOption,
    Http1ProtocolOptions,
    Http2ProtocolOptions,
    HttpService,
    HttpUri,
    SocketAddress,
    SubstitutionFormatString,
    TransportSocket,
)
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    Endpoint,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.envoy.config.trace.v3 import OpenTelemetryConfig, TracingHttp
from envoy_data_plane.envoy.extensions.access_loggers.file.v3 import FileAccessLog
from envoy_data_plane.envoy.extensions.access_loggers.filters.cel.v3 import ExpressionFilter
from envoy_data_plane.envoy.extensions.access_loggers.stats.v3 import (
    Config as StageStatistics,
)
from envoy_data_plane.envoy.extensions.access_loggers.stats.v3 import (
    ConfigHistogram,
    ConfigHistogramUnit,
    ConfigStat,
    ConfigTag,
)
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManagerTracing,
    RequestIdExtension,
)
from envoy_data_plane.envoy.extensions.request_id.uuid.v3 import UuidRequestIdConfig
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CertificateValidationContext,
    CommonTlsContext,
    UpstreamTlsContext,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptions as UpstreamProtocolOptions,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptionsExplicitHttpConfig as ExplicitHttp,
)
from envoy_data_plane.envoy.type.v3 import Percent, Scope
from envoy_data_plane.google.protobuf import Any, Struct

from trimtab.xds.clusters import UPSTREAM_OPTIONS
from trimtab.xds.world import Gateway, Tracing

TRACES_CLUSTER = "traces"
EXPORT_TIMEOUT = timedelta(seconds=5)
CONNECT_TIMEOUT = timedelta(seconds=5)

STAGES_SCOPE = "stages"  # of the statistics below: `stages.whole`, in microseconds
STAGES = {
    "whole": "DS_RX_END:US_RX_END",  # from the request's end to that of its answer: queue, network, pod
    "served": "US_TX_BEG:US_RX_END",  # of that, since it was sent to the pod that answered
}
CLUSTER_TAG = "envoy.cluster_name"  # as Envoy's own statistics have it

LOG_LINE = {
    "at": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
    "method": "%REQ(:METHOD)%",
    "path": "%PATH(NQ:ORIG_OR_PATH)%",
    "host": "%REQ(:AUTHORITY)%",
    "status": "%RESPONSE_CODE%",
    "why": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "took_ms": "%DURATION%",
    "revision": "%UPSTREAM_CLUSTER%",
    "pod": "%UPSTREAM_HOST%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "trace_id": "%TRACE_ID%",
}


def request_ids() -> RequestIdExtension:
    """A UUID for whoever has none; no bit of anybody's id is changed to tell of traces."""
    config = UuidRequestIdConfig(pack_trace_reason=False, use_request_id_for_trace_sampling=False)
    return RequestIdExtension(typed_config=Any.pack(config))


def access_logs(gateway: Gateway) -> list[AccessLog]:
    """The times of stages, and a line for what no pod can log: refused, cut off, left by the caller."""
    found = [_stage_times()]
    if gateway.access_log:
        found.append(_failures(gateway.access_log))
    return found


def _failures(path: str) -> AccessLog:
    line = SubstitutionFormatString(json_format=Struct.from_dict(LOG_LINE), omit_empty_values=True)
    return AccessLog(
        name="envoy.access_loggers.file",
        filter=AccessLogFilter(response_flag_filter=ResponseFlagFilter()),  # whatever flag it has
        typed_config=Any.pack(FileAccessLog(path=path, log_format=line)),
    )


def _stage_times() -> AccessLog:
    """Histograms per cluster, of requests that a pod answered."""
    answered = ExpressionFilter(expression='response.code_details == "via_upstream"')
    cluster = ConfigTag(name=CLUSTER_TAG, value_format="%UPSTREAM_CLUSTER%")
    histograms = [
        ConfigHistogram(
            stat=ConfigStat(name=name, tags=[cluster]),
            unit=ConfigHistogramUnit.Microseconds,
            value_format=f"%COMMON_DURATION({span}:us)%",
        )
        for name, span in STAGES.items()
    ]
    return AccessLog(
        name="envoy.access_loggers.stats",
        filter=AccessLogFilter(
            extension_filter=ExtensionFilter(
                name="envoy.access_loggers.extension_filters.cel", typed_config=Any.pack(answered)
            )
        ),
        typed_config=Any.pack(StageStatistics(stats_scope=Scope(prefix=STAGES_SCOPE), histograms=histograms)),
    )


def tracing(gateway: Gateway) -> HttpConnectionManagerTracing | None:
    """A span for the request and one for each try at a pod; None where no place for traces is named."""
    if gateway.tracing is None:
        return None
    exporter = OpenTelemetryConfig(service_name=gateway.tracing.service)
    if gateway.tracing.grpc:
        exporter.grpc_service = _grpc(gateway.tracing)
    else:
        exporter.http_service = _http(gateway.tracing)
    return HttpConnectionManagerTracing(
        provider=TracingHttp(name="envoy.tracers.opentelemetry", typed_config=Any.pack(exporter)),
        random_sampling=Percent(value=gateway.tracing.percent),
        spawn_upstream_span=True,
    )


def _http(to: Tracing) -> HttpService:
    headers = [HeaderValueOption(header=HeaderValue(key=key, value=value)) for key, value in to.headers]
    uri = HttpUri(uri=to.url, cluster=TRACES_CLUSTER, timeout=EXPORT_TIMEOUT)
    return HttpService(http_uri=uri, request_headers_to_add=headers)


def _grpc(to: Tracing) -> GrpcService:
    return GrpcService(
        envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=TRACES_CLUSTER),
        timeout=EXPORT_TIMEOUT,
        initial_metadata=[HeaderValue(key=key, value=value) for key, value in to.headers],
    )


def build_traces_cluster(gateway: Gateway) -> tuple[tuple[str, bytes], ...]:
    """(name, encoded Cluster) of the place for traces, if there is one."""
    to = gateway.tracing
    if to is None:
        return ()
    address = Address(socket_address=SocketAddress(address=to.host, port_value=to.port))
    endpoint = LbEndpoint(endpoint=Endpoint(address=address))
    transport = (
        ExplicitHttp(http2_protocol_options=Http2ProtocolOptions())
        if to.grpc
        else ExplicitHttp(http_protocol_options=Http1ProtocolOptions())
    )
    cluster = Cluster(
        name=TRACES_CLUSTER,
        type=ClusterDiscoveryType.STRICT_DNS,
        connect_timeout=CONNECT_TIMEOUT,
        load_assignment=ClusterLoadAssignment(
            cluster_name=TRACES_CLUSTER, endpoints=[LocalityLbEndpoints(lb_endpoints=[endpoint])]
        ),
        transport_socket=_tls(to) if to.trusted else None,
        typed_extension_protocol_options={
            UPSTREAM_OPTIONS: Any.pack(UpstreamProtocolOptions(explicit_http_config=transport))
        },
    )
    return ((TRACES_CLUSTER, bytes(cluster)),)


def _tls(to: Tracing) -> TransportSocket:
    trusted = CertificateValidationContext(trusted_ca=DataSource(filename=to.trusted))
    common = CommonTlsContext(validation_context=trusted)
    context = UpstreamTlsContext(sni=to.host, auto_sni_san_validation=True, common_tls_context=common)
    return TransportSocket(name="envoy.transport_sockets.tls", typed_config=Any.pack(context))
