"""The newest signals of revisions, pods and Envoys: for the status, for drains, for the autoscaler."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TypeVar

from trimtab.core.names import EndpointName
from trimtab.core.pod import Pod
from trimtab.core.revision import RevisionKey
from trimtab.core.signals import (
    CertificatesSignal,
    EnvoySignal,
    LatencySignal,
    PodsSignal,
    RevisionSignal,
)

LOOK_BACK_S = 10.0  # what the status calls "now": long enough to be calm, short enough to follow a spike
FRESH_S = 5.0  # a gauge older than this is unknown
ENVOYS_MAX = 1_000
CPU_PERIOD_S = 2.0  # shorter ones are mostly the kernel's 10 ms ticks
BATCH_MAX = 600  # signals that wait for a decision: five seconds of 120 Envoys


S = TypeVar("S", RevisionSignal, LatencySignal)
N = TypeVar("N", PodsSignal, CertificatesSignal)


@dataclass(frozen=True)
class LoadNow:
    """What Envoy saw of a revision over the last seconds; None is unknown."""

    requests_per_s: float | None = None
    in_flight: float | None = None
    queued: float | None = None
    rejected_per_s: float | None = None
    failed_per_s: float | None = None
    p50_s: float | None = None
    p99_s: float | None = None


@dataclass
class _Seen:
    waiting: deque[RevisionSignal] = field(default_factory=lambda: deque(maxlen=BATCH_MAX))
    recent: deque[RevisionSignal] = field(default_factory=lambda: deque(maxlen=BATCH_MAX))
    latencies: deque[LatencySignal] = field(default_factory=lambda: deque(maxlen=BATCH_MAX))
    asked: bool = False  # see `Observations.asked`


class Observations:
    """Keeps a bounded number of signals per revision, and of each Envoy the last gauges of pods."""

    def __init__(self) -> None:
        self._revisions: dict[RevisionKey, _Seen] = {}
        self._pods: dict[str, PodsSignal] = {}  # of each Envoy the last
        self._cpu: dict[str, tuple[float, float, float | None]] = {}
        self._envoys: dict[str, deque[EnvoySignal]] = {}
        self._certificates: dict[str, CertificatesSignal] = {}  # of each Envoy the last

    def add(
        self,
        revisions: tuple[RevisionSignal, ...],
        pods: PodsSignal | None,
        latencies: tuple[LatencySignal, ...],
    ) -> None:
        for signal in revisions:
            seen = self._revisions.get(signal.revision) or self._begun(signal.revision)
            seen.waiting.append(signal)
            if not seen.asked:
                seen.asked = _asks(signal) or len(seen.waiting) > BATCH_MAX // 2
            _keep(seen.recent, signal)
        for latency in latencies:
            _keep((self._revisions.get(latency.revision) or self._begun(latency.revision)).latencies, latency)
        if pods is not None:
            _note(self._pods, pods)

    def _begun(self, revision: RevisionKey) -> _Seen:
        """Of one that nothing was told of so far."""
        seen = self._revisions[revision] = _Seen()
        return seen

    def add_certificates(self, signal: CertificatesSignal) -> None:
        """Until when those of an Envoy are good."""
        _note(self._certificates, signal)

    def certificate_ends(self, now_s: float) -> dict[tuple[str, ...], float]:
        """Seconds since 1970, by Envoy and certificate; without Envoys that told nothing over FRESH_S."""
        return {
            (signal.envoy, name): at_s
            for signal in self._certificates.values()
            if now_s - signal.at_s <= FRESH_S
            for name, at_s in signal.ends.items()
        }

    def add_envoy(self, signal: EnvoySignal) -> None:
        """How busy an Envoy was. Those that have long told nothing are forgotten."""
        if signal.envoy not in self._envoys:
            for envoy, told in list(self._envoys.items()):
                if signal.at_s - told[-1].at_s > FRESH_S or len(self._envoys) >= ENVOYS_MAX:
                    del self._envoys[envoy]
        told = self._envoys.setdefault(signal.envoy, deque(maxlen=BATCH_MAX))
        while told and signal.at_s - told[0].at_s > FRESH_S:
            told.popleft()
        told.append(signal)

    def busy(self, now_s: float) -> dict[str, float]:
        """By Envoy the share of its workers' time over the last FRESH_S; without those that told nothing."""
        found = {}
        for envoy, told in self._envoys.items():
            recent = [signal for signal in told if now_s - signal.at_s <= FRESH_S]
            if recent:
                worked_s = sum(signal.busy * signal.period_s for signal in recent)
                found[envoy] = worked_s / sum(signal.period_s for signal in recent)
        return found

    def waiting(self, revision: RevisionKey) -> tuple[RevisionSignal, ...]:
        """What the next `take` will give."""
        seen = self._revisions.get(revision)
        return tuple(seen.waiting) if seen else ()

    def asked(self, revision: RevisionKey) -> bool:
        """Whether any of that tells of a request, or there is about to be too much of it."""
        seen = self._revisions.get(revision)
        return seen is not None and seen.asked

    def take(self, revision: RevisionKey) -> tuple[RevisionSignal, ...]:
        """The signals that came since the last call."""
        seen = self._revisions.get(revision)
        if seen is None:
            return ()
        taken, seen.asked = tuple(seen.waiting), False
        seen.waiting.clear()
        return taken

    def load(self, revision: RevisionKey, now_s: float) -> LoadNow:
        """Means over LOOK_BACK_S, gauges as of the last flush, each summed over the Envoys."""
        seen = self._revisions.get(revision)
        recent = [s for s in seen.recent if now_s - s.at_s <= LOOK_BACK_S] if seen else []
        if seen is None or not recent:
            return LoadNow()
        newest = [s for s in {s.envoy: s for s in recent}.values() if now_s - s.at_s <= FRESH_S]
        p50_s, p99_s = _quantiles([q for q in seen.latencies if now_s - q.at_s <= LOOK_BACK_S])
        return LoadNow(
            requests_per_s=_per_s(recent, lambda s: s.arrivals),
            in_flight=sum(s.in_flight for s in newest) if newest else None,
            queued=sum(s.queued for s in newest) if newest else None,
            rejected_per_s=_per_s(recent, lambda s: s.rejected),
            failed_per_s=_per_s(recent, lambda s: s.failed),
            p50_s=p50_s,
            p99_s=p99_s,
        )

    def in_flight(self, pod: Pod, now_s: float, envoys: Collection[str] = ()) -> tuple[float, int] | None:
        """(time of the oldest report, requests in flight at all Envoys) of a pod; None if not fresh.

        Known only once each of `envoys` has told of it, and of a pod with a port for gRPC only once both
        are: a drain must not see half of it.
        """
        found = [self._at(address, now_s) for address in pod.addresses]
        if not all(found) or any(set(envoys) - {s.envoy for s in signals} for signals in found):
            return None
        at_s = min(signal.at_s for signals in found for signal in signals)
        return at_s, sum(map(_in_flight, pod.addresses, found))

    def by_address(self, pod: Pod, now_s: float) -> tuple[int, ...] | None:
        """The same by each of its addresses; None if one of them is not fresh."""
        found = [self._at(address, now_s) for address in pod.addresses]
        return tuple(map(_in_flight, pod.addresses, found)) if all(found) else None

    def _at(self, address: str, now_s: float) -> list[PodsSignal]:
        """Those that tell of this address."""
        return [s for s in self._pods.values() if address in s.in_flight and now_s - s.at_s <= FRESH_S]

    def cpu_cores(self, pod: Pod, now_s: float) -> float | None:
        """Cores that a pod used since it was last looked at, at least CPU_PERIOD_S ago; None is unknown."""
        if pod.cpu_seconds is None:
            return None
        since_s, used_s, cores = self._cpu.get(pod.id, (now_s, pod.cpu_seconds, None))
        if now_s - since_s >= CPU_PERIOD_S:
            cores = max(0.0, (pod.cpu_seconds - used_s) / (now_s - since_s))
            since_s, used_s = now_s, pod.cpu_seconds
        self._cpu[pod.id] = (since_s, used_s, cores)
        return cores

    def forget(self, endpoint: EndpointName) -> None:
        """At once: the next one of its name begins anew."""
        for key in [key for key in self._revisions if key.endpoint == endpoint]:
            del self._revisions[key]

    def keep_only(self, revisions: set[RevisionKey], pods: tuple[Pod, ...]) -> None:
        """Forget what is gone."""
        ids = {pod.id for pod in pods}
        for pod_id in self._cpu.keys() - ids:
            del self._cpu[pod_id]
        for key in self._revisions.keys() - revisions:
            del self._revisions[key]


def _asks(signal: RevisionSignal) -> bool:
    return bool(signal.arrivals or signal.in_flight or signal.queued or signal.rejected)


def _in_flight(address: str, told: list[PodsSignal]) -> int:
    return sum(signal.in_flight[address] for signal in told)


def _note(known: dict[str, N], new: N) -> None:
    """Envoys that have long told nothing are forgotten when another one comes."""
    if new.envoy not in known:
        for envoy, told in list(known.items()):
            if new.at_s - told.at_s > FRESH_S or len(known) >= ENVOYS_MAX:
                del known[envoy]
    known[new.envoy] = new


def _keep(told: deque[S], new: S) -> None:
    """What is older than anybody looks back goes: each look goes through all that is there."""
    while told and new.at_s - told[0].at_s > LOOK_BACK_S:
        told.popleft()
    told.append(new)


def _per_s(signals: list[RevisionSignal], count: Callable[[RevisionSignal], int]) -> float:
    """Each Envoy's mean rate over the time for which it reported, summed: one may have come just now."""
    by_envoy: dict[str, list[RevisionSignal]] = defaultdict(list)
    for signal in signals:
        by_envoy[signal.envoy].append(signal)
    return sum(
        sum(map(count, told)) / max(sum(signal.period_s for signal in told), 1e-3)
        for told in by_envoy.values()
    )


def _quantiles(latencies: list[LatencySignal]) -> tuple[float | None, float | None]:
    """The median: the flushes' medians, weighted. The p99: the worst flush's, which overstates it."""
    count = sum(latency.count for latency in latencies)
    if not count:
        return None, None
    return sum(q.p50_s * q.count for q in latencies) / count, max(q.p99_s for q in latencies if q.count)
