"""Envoy's statistics as they come over OTLP: bytes in, counts per revision out. Pure.

One flush may come as several messages; all of them carry the same time. Deltas of zero are left
out, gauges that were ever set are not: a cluster that is mentioned at all was reported, and what
is not said of it is 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from struct import Struct
from typing import NamedTuple

from trimtab.core.revision import RevisionKey
from trimtab.envoy import metrics_pb2 as otlp
from trimtab.envoy.bootstrap import NODE_ATTRIBUTE, WORKER_TURNS
from trimtab.envoy.histogram import Histogram, histogram_of
from trimtab.envoy.secrets import ENDS, ROTATION_FAILED
from trimtab.xds.telemetry import STAGES, STAGES_SCOPE
from trimtab.xds.world import revision_of

_CLUSTER, _ADDRESS = "envoy.cluster_name", "envoy.endpoint_address"
_RESPONSE_CLASS = "envoy.response_code_class"
_UPTIME = "server.uptime"
_STATE, _DRAINING = "server.state", 1
_KNOWN = "cluster.membership_total"  # set as soon as there is a cluster: says "quiet", not "unknown"
_LATENCY = "cluster.upstream_rq_time"
_ANSWERS = "cluster.upstream_rq_xx"
_STAGES = {f"{STAGES_SCOPE}.{name}": name for name in STAGES}
_UNUSABLE, _SECRET = f"sds.{ROTATION_FAILED}", "envoy.xds_resource_name"
_ENDS = frozenset(f"{part}.ssl.certificate.{ENDS}" for part in ("cluster", "listener"))
_CERTIFICATE = "envoy.tls_certificate"
_TURNS = f"listener_manager.worker_{WORKER_TURNS}"  # Envoy makes the worker's number an attribute
_POD_IN_FLIGHT = "cluster.endpoint.rq_active"
# Where each statistic is summed, and with which sign.
_SUMMED = {
    "cluster.upstream_rq_total": ("attempts", 1),
    "cluster.upstream_rq_cancelled": ("attempts", 1),
    "cluster.upstream_rq_pending_failure_eject": ("attempts", 1),
    "cluster.upstream_cx_none_healthy": ("without_pod", 1),
    "cluster.upstream_rq_retry": ("attempts", -1),
    "cluster.upstream_rq_pending_overflow": ("rejected", 1),
    "cluster.upstream_rq_active": ("in_flight", 1),
    "cluster.upstream_rq_pending_active": ("queued", 1),
}
LABELS_MAX = 65_536  # distinct ones that are known, of numbers and of histograms: some 400 bytes each
# How a Number begins as protobuf writes it, its fields in order: (start,) time, count; then attributes.
_GAUGE, _GAUGE_TAGS = Struct("<BQBq"), (3 << 3 | 1, 6 << 3 | 1)
_SUM, _SUM_TAGS = Struct("<BQBQBq"), (2 << 3 | 1, *_GAUGE_TAGS)


class MalformedError(ValueError):
    """A message that is not one of Envoy's."""


@dataclass
class Counts:
    """One revision in one flush, all its clusters together."""

    attempts: int = 0  # that ended their wait, less those that were not a request's first
    rejected: int = 0  # too many waited
    without_pod: int = 0  # there was none that could be asked
    answered_5xx: int = 0  # those two are among them
    in_flight: int = 0
    queued: int = 0
    times: Histogram | None = None
    whole: Histogram | None = None  # these two in microseconds: see xds.telemetry
    served: Histogram | None = None


@dataclass
class Flush:
    """One flush of one node: what its messages said so far. `at_ns` is Envoy's clock and names it."""

    node: str
    at_ns: int
    since_ns: int = 0  # when the one before it was; 0 is unknown
    uptime_s: float | None = None
    revisions: dict[RevisionKey, Counts] = field(default_factory=dict)
    pods: dict[str, int] = field(default_factory=dict)  # address → in flight
    unusable: tuple[str, ...] = ()  # certificates (see `secrets`) that were written anew and cannot be used
    certificates: dict[str, int] = field(default_factory=dict)  # until when each is good: s since 1970
    draining: bool = False  # it was asked to: callers are told to leave, and then it ends
    worked_us: tuple[float, ...] = ()  # of the time since the flush before, one for each worker that told


def parse(data: bytes) -> Flush:
    """What one message says. Raises MalformedError; half of a message is never taken."""
    try:
        return _flush(otlp.Metrics.FromString(data))
    except MalformedError:
        raise
    except Exception as error:
        raise MalformedError(f"cannot be read: {error}") from error


def joined(first: Flush, second: Flush) -> Flush:
    """Two messages of the same flush as one. `first` is used up. Raises MalformedError if they do not fit."""
    if (first.node, first.at_ns) != (second.node, second.at_ns):
        raise MalformedError("messages of different flushes")
    for key, counts in second.revisions.items():
        known = first.revisions.setdefault(key, Counts())
        for times in ("times", "whole", "served"):
            setattr(known, times, _both(getattr(known, times), getattr(counts, times)))
        known.attempts += counts.attempts
        known.rejected += counts.rejected
        known.without_pod += counts.without_pod
        known.answered_5xx += counts.answered_5xx
        known.in_flight += counts.in_flight
        known.queued += counts.queued
    for address, in_flight in second.pods.items():
        first.pods[address] = first.pods.get(address, 0) + in_flight
    first.unusable += second.unusable
    _ends(first.certificates, second.certificates)
    first.worked_us += second.worked_us
    first.draining |= second.draining
    first.since_ns = first.since_ns or second.since_ns
    first.uptime_s = second.uptime_s if first.uptime_s is None else first.uptime_s
    return first


def _flush(request: otlp.Metrics) -> Flush:
    flush: Flush | None = None
    for resource in request.resource_metrics:
        node = _said(resource.resource.attributes).get(NODE_ATTRIBUTE, "")
        if not node or (flush is not None and node != flush.node):
            raise MalformedError(f"does not name one node by the resource attribute {NODE_ATTRIBUTE}")
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                flush = flush or Flush(node, _time_ns(metric))
                _read(metric, flush)
    if flush is None:
        raise MalformedError("holds no metric")
    return flush


def _read(metric: otlp.Metric, flush: Flush) -> None:
    name = metric.name
    points = metric.sum.data_points if metric.HasField("sum") else metric.gauge.data_points
    if not flush.since_ns and metric.HasField("sum"):
        flush.since_ns = otlp.Number.FromString(points[0]).start_time_unix_nano
    if name in _SUMMED:
        _sum(map(_number, points), *_SUMMED[name], flush)
    elif name == _POD_IN_FLIGHT:
        _read_pods(points, flush.pods)
    elif name == _LATENCY:
        _read_times(metric.histogram.data_points, "times", flush)
    elif name in _STAGES:
        _read_times(metric.histogram.data_points, _STAGES[name], flush)
    elif name == _TURNS:
        flush.worked_us += tuple(point.sum for point in metric.histogram.data_points)
    elif name == _ANSWERS:
        failed = [each for each in map(_number, points) if each[0].response_class == "5"]
        _sum(failed, "answered_5xx", 1, flush)
    else:
        _read_state(name, points, flush)


def _read_state(name: str, points: Sequence[bytes], flush: Flush) -> None:
    if name == _KNOWN:
        for labels, _ in map(_number, points):
            _counts(labels, flush)
    elif name == _UPTIME:
        flush.uptime_s = _number(points[0])[1]
    elif name == _STATE:
        flush.draining = _number(points[0])[1] == _DRAINING
    elif name == _UNUSABLE:
        flush.unusable += tuple(labels.secret for labels, value in map(_number, points) if value)
    elif name in _ENDS:
        for labels, value in map(_number, points):
            _ends(flush.certificates, {labels.certificate: value})


def _ends(known: dict[str, int], told: Mapping[str, int]) -> None:
    """Two listeners may use one certificate, and for a moment the one before it."""
    for name, at_s in told.items():
        known[name] = min(at_s, known.get(name, at_s))


def _sum(numbers: Iterable[tuple[Labels, int]], into: str, sign: int, flush: Flush) -> None:
    for labels, value in numbers:
        counts = _counts(labels, flush)
        if counts is not None:
            setattr(counts, into, getattr(counts, into) + sign * value)


def _read_pods(points: Iterable[bytes], pods: dict[str, int]) -> None:
    for labels, value in map(_number, points):
        if labels.revision is not None:
            pods[labels.address] = pods.get(labels.address, 0) + value


def _read_times(points: Iterable[otlp.HistogramPoint], into: str, flush: Flush) -> None:
    for point in points:
        counts = _counts(_labels(tuple(point.attributes)), flush)
        if counts is not None:
            times = histogram_of(point.explicit_bounds, point.bucket_counts, point.sum)
            setattr(counts, into, _both(getattr(counts, into), times))


def _counts(labels: Labels, flush: Flush) -> Counts | None:
    """Where a point of a revision's cluster is summed; None for other clusters."""
    key = labels.revision
    if key is None:
        return None
    known = flush.revisions.get(key)
    if known is None:
        known = flush.revisions[key] = Counts()
    return known


class Labels(NamedTuple):
    """What the attributes of one point say; empty where they do not."""

    revision: RevisionKey | None  # None: of another cluster
    address: str
    response_class: str
    secret: str
    certificate: str


def _number(point: bytes) -> tuple[Labels, int]:
    """The labels and the count of a point of a counter or a gauge.

    Where it is written as protobuf writes it, which nobody has to do, what is behind the count names the
    labels: to find them by that takes a tenth of reading them.
    """
    if len(point) > _SUM.size:
        time_tag, _, value_tag, value = _GAUGE.unpack_from(point)
        if (time_tag, value_tag) == _GAUGE_TAGS and value >= 0:
            return _behind[point[_GAUGE.size :]], value
        start_tag, _, time_tag, _, value_tag, value = _SUM.unpack_from(point)
        if (start_tag, time_tag, value_tag) == _SUM_TAGS and value >= 0:
            return _behind[point[_SUM.size :]], value
    read = otlp.Number.FromString(point)
    return _labels(tuple(read.attributes)), _value(read)


class _Behind(dict[bytes, Labels]):
    """Labels by what is behind the count of a Number. When it is full it begins anew.

    An lru_cache of them all takes thrice as long: it notes at each which was the last.
    """

    def __missing__(self, rest: bytes) -> Labels:
        if len(self) >= LABELS_MAX:
            self.clear()
        labels = self[rest] = _read_labels(otlp.Number.FromString(rest).attributes)
        return labels


_behind = _Behind()


@lru_cache(maxsize=LABELS_MAX)
def _labels(attributes: tuple[bytes, ...]) -> Labels:
    """Those of histograms are found again here, which are few and have no fields in fixed places."""
    return _read_labels(attributes)


def _read_labels(attributes: Iterable[bytes]) -> Labels:
    said = _said(attributes)
    revision = revision_of(said.get(_CLUSTER, ""))
    return Labels(
        revision,
        said.get(_ADDRESS, ""),
        said.get(_RESPONSE_CLASS, ""),
        said.get(_SECRET, ""),
        said.get(_CERTIFICATE, ""),
    )


def _said(attributes: Iterable[bytes]) -> dict[str, str]:
    read = map(otlp.Attribute.FromString, attributes)
    return {attribute.key: attribute.value.string_value for attribute in read}


def _value(point: otlp.Number) -> int:
    value = point.as_int if point.HasField("as_int") else round(point.as_double)
    if value < 0:
        raise MalformedError("a count below 0")
    return value


def _time_ns(metric: otlp.Metric) -> int:
    numbers = metric.gauge.data_points or metric.sum.data_points
    if numbers:
        return otlp.Number.FromString(numbers[0]).time_unix_nano
    if not metric.histogram.data_points:
        raise MalformedError(f"no data points in {metric.name}")
    return metric.histogram.data_points[0].time_unix_nano


def _both(first: Histogram | None, second: Histogram | None) -> Histogram | None:
    return first.plus(second) if first and second else first or second
