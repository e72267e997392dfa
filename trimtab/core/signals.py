"""Signals: timed observations of a revision or of a pod. A missing signal is unknown, never zero."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.core.revision import RevisionKey


@dataclass(frozen=True)
class RevisionSignal:
    """What one Envoy saw of one revision in one flush of its statistics (1 s).

    `in_flight` and `queued` are gauges at `at_s` (requests); the rest are sums over the
    `period_s` seconds that end at `at_s`. `request_time_s` sums the whole time of each completed
    request at Envoy, its time in the queue included: divided by `period_s` it is mean
    concurrency (Little). Times are monotonic seconds at the receiver.
    """

    revision: RevisionKey
    envoy: str  # the node's id
    at_s: float
    period_s: float
    arrivals: int  # requests that Envoy sent towards the revision, retries not counted
    completions: int
    rejected: int  # refused because the queue was full (429)
    failed: int  # answered 5xx, the model's own included
    in_flight: int
    queued: int
    request_time_s: float


@dataclass(frozen=True)
class EndpointSignal:
    """What one Envoy saw of one pod in the same flush: gauges at `at_s`. `address` is `host:port`."""

    revision: RevisionKey
    envoy: str
    address: str
    at_s: float
    in_flight: int


@dataclass(frozen=True)
class LatencySignal:
    """Latency at Envoy over one flush, from its histogram: quantiles in seconds of `count` requests."""

    revision: RevisionKey
    envoy: str
    at_s: float
    count: int
    p50_s: float
    p99_s: float
