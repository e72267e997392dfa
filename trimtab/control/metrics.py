"""The control plane's own metrics, in Prometheus' form; docs/metrics.md lists them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from trimtab.control.options import Address
from trimtab.core.errors import InvalidInput
from trimtab.core.turns import give_way

LOOK_BUCKETS_S = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
TOLD_BUCKETS_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)
ENDPOINT = ("namespace", "endpoint")
SET_AT_ONCE = 50  # series: each takes some 5 us


class Metrics:
    """Counters and gauges of one control plane, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._shown: dict[Gauge, frozenset[tuple[str, ...]]] = {}
        own = self.registry
        self._look_s = Histogram(
            "trimtab_reconcile_duration_seconds",
            "Time of one look at everything.",
            buckets=LOOK_BUCKETS_S,
            registry=own,
        )
        self.told_s = Histogram(
            "trimtab_pod_news_to_envoy_seconds",
            "From news of pods until an Envoy was sent what follows from it, of each Envoy.",
            buckets=TOLD_BUCKETS_S,
            registry=own,
        )
        self.errors = Counter(
            "trimtab_errors", "Errors that were contained, by where.", ["where"], registry=own
        )
        self.snapshots = Counter("trimtab_snapshots_published", "Snapshots handed to Envoy.", registry=own)
        self.signals = Counter(
            "trimtab_signals", "Statistics of revisions received from Envoy.", registry=own
        )
        self.decisions = Counter(
            "trimtab_decisions",
            "Decisions of the autoscaler, by axis (pods, limit) and the rule that won.",
            ["axis", "rule"],
            registry=own,
        )
        self.pod_failures = Counter("trimtab_pod_failures", "Pods that failed.", ENDPOINT, registry=own)
        self.pods = Gauge("trimtab_pods", "Pods by phase.", [*ENDPOINT, "phase"], registry=own)
        self.pods_wanted = Gauge("trimtab_pods_wanted", "Pods that should serve.", ENDPOINT, registry=own)
        self.in_flight = Gauge("trimtab_requests_in_flight", "Requests at pods.", ENDPOINT, registry=own)
        self.queued = Gauge("trimtab_requests_queued", "Requests that wait in Envoy.", ENDPOINT, registry=own)
        self.endpoints = Gauge("trimtab_endpoints", "Endpoints by state.", ["state"], registry=own)
        self.envoy_connected = Gauge(
            "trimtab_envoy_connected", "1 while an Envoy takes its configuration.", registry=own
        )
        self.envoy_busy = Gauge(
            "trimtab_envoy_busy",
            "Share of its workers' time that an Envoy worked.",
            ["envoy"],
            registry=own,
        )
        self.envoy_restarts = Gauge(
            "trimtab_envoy_restarts", "How often Envoy was started again.", registry=own
        )
        self.nacks = Gauge(
            "trimtab_envoy_nacks", "Types of resource that Envoy refused as last sent.", registry=own
        )

        self.certificates_refused = Counter(
            "trimtab_envoy_certificates_refused",
            "How often an Envoy could not use a certificate that was written anew (callers, own, authority).",
            ["certificate"],
            registry=own,
        )
        self.certificate_ends = Gauge(
            "trimtab_envoy_certificate_not_after_seconds",
            "Until when a certificate that an Envoy uses is good, in seconds since 1970.",
            ["envoy", "certificate"],
            registry=own,
        )
        self.unusable = Gauge(
            "trimtab_unusable_files",
            "1 while a file was written anew (api-keys, xds-tls) and cannot be used: what it held before is.",
            ["file"],
            registry=own,
        )

        self._begins = Gauge(
            "trimtab_certificate_not_before_seconds",
            "From when the certificate in use (xds-tls, api-tls) is good, in seconds since 1970.",
            ["file"],
            registry=own,
        )
        self._ends = Gauge(
            "trimtab_certificate_not_after_seconds",
            "Until when it is good.",
            ["file"],
            registry=own,
        )

    def certificate(self, file: str, lasts: Callable[[], tuple[float, float]]) -> None:
        """Show from when until when the one of this name is good, which `lasts` tells at any time."""
        self._begins.labels(file).set_function(lambda: lasts()[0])
        self._ends.labels(file).set_function(lambda: lasts()[1])

    def look(self) -> AbstractContextManager[object]:
        """A context manager that times one look."""
        timer: AbstractContextManager[object] = self._look_s.time()
        return timer

    async def show(self, gauge: Gauge, values: Mapping[tuple[str, ...], float]) -> None:
        """Make these the series of a labelled gauge, by their labels' values; others are dropped.

        A scrape from the server's thread may come at any time: no series is missing in between. One call at
        a time; of thousands of series a few are set in a turn of the loop.
        """
        for number, (labels, value) in enumerate(values.items(), 1):
            gauge.labels(*labels).set(value)
            if number % SET_AT_ONCE == 0:
                await give_way()
        for labels in self._shown.get(gauge, frozenset()) - values.keys():
            gauge.remove(*labels)
        self._shown[gauge] = frozenset(values)

    def serve(self, address: Address) -> tuple[Address, WSGIServer]:
        """Serve /metrics; port 0 takes a free one. Raises InvalidInput if the port is taken."""
        try:
            server, _ = start_http_server(address.port, address.host, self.registry)
        except OSError as error:
            hint = "stop what holds it, or give another --metrics-listen"
            raise InvalidInput(
                f"{address} cannot be listened on: {error.strerror}", where="--metrics-listen", hint=hint
            ) from error
        return Address(address.host, server.server_port), server
