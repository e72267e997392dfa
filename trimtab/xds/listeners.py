"""The one port that callers reach, hardened as an edge. Pure.

Settings as Envoy recommends for the edge:
https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/best_practices/edge
"""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache

from betterproto2 import Message
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    ApiVersion,
    CidrRange,
    ConfigSource,
    Http2ProtocolOptions,
    HttpProtocolOptions,
    HttpProtocolOptionsHeadersWithUnderscoresAction,
    PathConfigSource,
    SocketAddress,
    TransportSocket,
)
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener
from envoy_data_plane.envoy.extensions.filters.http.buffer.v3 import Buffer
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpConnectionManagerCodecType,
    HttpConnectionManagerInternalAddressConfig,
    HttpConnectionManagerPathWithEscapedSlashesAction,
    HttpFilter,
    Rds,
)
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CommonTlsContext,
    DownstreamTlsContext,
    SdsSecretConfig,
    TlsParameters,
    TlsParametersTlsProtocol,
)
from envoy_data_plane.google.protobuf import Any

from trimtab.xds import bridge, by_model, faults, telemetry
from trimtab.xds.clusters import over_ads
from trimtab.xds.keys import FILTER, key_check
from trimtab.xds.replies import build_local_replies
from trimtab.xds.routes import BUFFER_FILTER, ROUTE_TABLE
from trimtab.xds.world import BODY_BYTES_MAX, Gateway

LISTENER = "gateway"
CALLERS_CERTIFICATE = "callers"  # what it is called in Gateway.certificate
BUFFER_BYTES = 32 << 10
STREAMS_MAX = 100  # HTTP/2 streams of one connection
STREAM_WINDOW_BYTES, CONNECTION_WINDOW_BYTES = 64 << 10, 1 << 20
BACKLOG_MAX = 1024  # connections not yet accepted; Envoy's 128 is less than a spike's first moment
HEADERS_TIMEOUT = timedelta(seconds=10)  # to send all headers, once begun
# Silence of a request on its way in. Once it has a route, that route's own bound holds.
UPLOAD_IDLE_TIMEOUT = timedelta(seconds=60)
CONNECTION_IDLE_TIMEOUT = timedelta(minutes=15)
ROUTES_TIMEOUT = timedelta(seconds=15)
# Callers at internal addresses could steer Envoy by x-envoy-… request headers (timeout, retries).
# Nobody may, not even from loopback; an empty list would stand for Envoy's own: loopback and RFC 1918.
NOBODY = CidrRange(address_prefix="255.255.255.255", prefix_len=32)


@lru_cache(maxsize=8)
def build_listener(gateway: Gateway) -> bytes:
    """The encoded Listener on the gateway's address."""
    manager = Filter(
        name="envoy.filters.network.http_connection_manager",
        typed_config=Any.pack(_connection_manager(gateway)),
    )
    address = SocketAddress(address=gateway.host, port_value=gateway.port)
    return bytes(
        Listener(
            name=LISTENER,
            address=Address(socket_address=address),
            filter_chains=[FilterChain(filters=[manager], transport_socket=_tls(gateway.certificate))],
            per_connection_buffer_limit_bytes=BUFFER_BYTES,
            tcp_backlog_size=BACKLOG_MAX,
            enable_reuse_port=False,  # else a second Envoy on this port would quietly share its callers
        )
    )


def _tls(certificate: str) -> TransportSocket | None:
    """Callers come over TLS, 1.2 at least. Envoy reads the certificate anew when its files change."""
    if not certificate:
        return None
    found = SdsSecretConfig(
        name=CALLERS_CERTIFICATE,
        sds_config=ConfigSource(
            path_config_source=PathConfigSource(path=certificate), resource_api_version=ApiVersion.V3
        ),
    )
    context = CommonTlsContext(
        tls_params=TlsParameters(tls_minimum_protocol_version=TlsParametersTlsProtocol.TLSv1_2),
        alpn_protocols=["h2", "http/1.1"],
        tls_certificate_sds_secret_configs=[found],
    )
    typed = Any.pack(DownstreamTlsContext(common_tls_context=context))
    return TransportSocket(name="envoy.transport_sockets.tls", typed_config=typed)


def _connection_manager(gateway: Gateway) -> HttpConnectionManager:
    return HttpConnectionManager(
        codec_type=HttpConnectionManagerCodecType.AUTO,
        stat_prefix=LISTENER,
        rds=Rds(config_source=over_ads(ROUTES_TIMEOUT), route_config_name=ROUTE_TABLE),
        http_filters=_filters(keys=bool(gateway.api_keys)),
        access_log=telemetry.access_logs(gateway),
        tracing=telemetry.tracing(gateway),
        request_id_extension=telemetry.request_ids(),
        preserve_external_request_id=True,
        use_remote_address=True,
        internal_address_config=HttpConnectionManagerInternalAddressConfig(cidr_ranges=[NOBODY]),
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action=HttpConnectionManagerPathWithEscapedSlashesAction.REJECT_REQUEST,
        stream_idle_timeout=UPLOAD_IDLE_TIMEOUT,
        early_header_mutation_extensions=[by_model.callers_header_cut()],
        request_headers_timeout=HEADERS_TIMEOUT,
        always_set_request_id_in_response=True,
        local_reply_config=build_local_replies(),
        http1_safe_max_connection_duration=gateway.connection_max_s > 0,  # with an answer, not before one
        common_http_protocol_options=HttpProtocolOptions(
            idle_timeout=CONNECTION_IDLE_TIMEOUT,
            max_connection_duration=timedelta(seconds=gateway.connection_max_s)
            if gateway.connection_max_s
            else None,
            headers_with_underscores_action=HttpProtocolOptionsHeadersWithUnderscoresAction.REJECT_REQUEST,
        ),
        http2_protocol_options=Http2ProtocolOptions(
            max_concurrent_streams=STREAMS_MAX,
            initial_stream_window_size=STREAM_WINDOW_BYTES,
            initial_connection_window_size=CONNECTION_WINDOW_BYTES,
        ),
    )


def _filters(*, keys: bool) -> list[HttpFilter]:
    buffer = Buffer(max_request_bytes=BODY_BYTES_MAX)
    reader = _http_filter(by_model.FILTER, by_model.model_reader())
    reader.disabled = True  # but for the calls that name their endpoint in the body
    namer = _http_filter(by_model.NAMING_FILTER, by_model.model_teller())
    namer.disabled = True
    router = _http_filter("envoy.filters.http.router", Router())
    teller = _http_filter(faults.FILTER, faults.fault_teller())
    bridged = _http_filter(bridge.FILTER, bridge.reverse_bridge())
    bridged.disabled = True  # but for pods that take gRPC over HTTP/1.1
    found = [teller, _http_filter(BUFFER_FILTER, buffer), reader, namer, bridged, router]
    if keys:
        found.insert(0, _http_filter(FILTER, key_check()))
    return found


def _http_filter(name: str, config: Message) -> HttpFilter:
    return HttpFilter(name=name, typed_config=Any.pack(config))
