"""Messages of statistics as Envoy sends them."""

from __future__ import annotations

from collections.abc import Iterable

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint, ScopeMetrics

from trimtab.envoy.bootstrap import NODE_ATTRIBUTE

HTTP = "default/iris/r1"
SECOND_NS = 1_000_000_000

Point = tuple[str, str, int]  # statistic, cluster, value


def message(
    points: Iterable[Point],
    *,
    at_s: float = 10,
    since_s: float = 9,
    node: str = "local",
    pods: dict[str, int] | None = None,
    uptime_s: int | None = None,
    times: dict[float, int] | None = None,
    worked_us: list[float] | None = None,
    state: int | None = None,
    certificates: dict[tuple[str, str], int] | None = None,
) -> bytes:
    """A message like Envoy's: gauges for what is a gauge there, deltas for the rest."""
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    resource.resource.attributes.add(key=NODE_ATTRIBUTE).value.string_value = node
    scope = resource.scope_metrics.add()
    stamp = {"time_unix_nano": int(at_s * SECOND_NS)}

    def labelled(point, **labels):  # type: ignore[no-untyped-def]
        for key, value in labels.items():
            point.attributes.add(key=f"envoy.{key}").value.string_value = value

    for name, known in (("server.uptime", uptime_s), ("server.state", state)):
        if known is not None:
            scope.metrics.add(name=name).gauge.data_points.add(as_int=known, **stamp)
    for name, cluster, value in points:
        metric = scope.metrics.add(name=f"cluster.{name}")
        is_gauge = name in ("membership_total", "upstream_rq_active", "upstream_rq_pending_active")
        if is_gauge:
            point = metric.gauge.data_points.add(as_int=value, **stamp)
        else:
            point = metric.sum.data_points.add(
                as_int=value, start_time_unix_nano=int(since_s * SECOND_NS), **stamp
            )
        labelled(point, cluster_name=cluster)
        if name == "upstream_rq_xx":
            labelled(point, response_code_class="5")
    for address, value in (pods or {}).items():
        metric = scope.metrics.add(name="cluster.endpoint.rq_active")
        labelled(
            metric.gauge.data_points.add(as_int=value, **stamp), cluster_name=HTTP, endpoint_address=address
        )
    if times:
        metric = scope.metrics.add(name="cluster.upstream_rq_time")
        counts = [*times.values(), 0]
        point = metric.histogram.data_points.add(
            explicit_bounds=list(times), bucket_counts=counts, sum=100.0, count=sum(counts), **stamp
        )
        labelled(point, cluster_name=HTTP)
    _certificates(scope, certificates or {}, stamp)
    _turns(scope, worked_us or [], stamp)
    return request.SerializeToString()


def _certificates(scope: ScopeMetrics, ends: dict[tuple[str, str], int], stamp: dict[str, int]) -> None:
    """Until when each is good, by the part of Envoy that uses it and its name."""
    for (part, name), end in ends.items():
        metric = scope.metrics.add(name=f"{part}.ssl.certificate.expiration_unix_time_seconds")
        point = metric.gauge.data_points.add(as_int=end, **stamp)
        point.attributes.add(key="envoy.tls_certificate").value.string_value = name


def _turns(scope: ScopeMetrics, worked_us: list[float], stamp: dict[str, int]) -> None:
    """How long each worker worked."""
    if worked_us:
        metric = scope.metrics.add(name="listener_manager.worker_dispatcher.loop_duration_us")
        metric.histogram.data_points.extend(HistogramDataPoint(sum=worked, **stamp) for worked in worked_us)


def flush_messages(node: str, *, at_s: float, parts: int) -> list[bytes]:
    """One flush in so many messages."""
    return [
        message([("upstream_rq_total", HTTP, number + 1)], at_s=at_s, since_s=at_s - 1, node=node)
        for number in range(parts)
    ]
