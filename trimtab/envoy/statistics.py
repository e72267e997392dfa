"""What Envoy's statistics say of each revision. Pure: whole flushes in, signals out.

How Envoy counts (tried with 1.40), and hence what the numbers of a signal are made of:

    upstream_rq_total             attempts when they get a connection; not yet while they wait
    upstream_rq_active            requests at a pod, waiting ones not included
    upstream_rq_pending_active    requests that wait
    upstream_rq_pending_overflow  refused because too many waited; never tried again
    upstream_rq_pending_failure_eject, upstream_rq_cancelled
                                  attempts that ended while they waited: no connection, client gone or timeout
    upstream_cx_none_healthy      attempts for which there was no pod: refused too, since callers come again
    upstream_rq_retry             attempts that were not a request's first
    upstream_rq_time              time of each request that a pod answered, waiting and retries included
    upstream_rq_xx, class 5       answers 5xx as the caller got them; refused ones are among them
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median_high

from trimtab.core.revision import RevisionKey
from trimtab.core.signals import (
    CertificatesSignal,
    EnvoySignal,
    LatencySignal,
    PodsSignal,
    RevisionSignal,
)
from trimtab.envoy.histogram import Histogram
from trimtab.envoy.otlp import Counts, Flush

PERIOD_MAX_S = 60.0  # a longer one is a step of the wall clock, not a flush


@dataclass(frozen=True)
class StageTimes:
    """How long requests of one revision took that a pod answered: histograms of microseconds.

    `whole` from the end of the request to the end of its answer, `served` since it was sent to that pod.
    """

    revision: RevisionKey
    at_s: float
    whole: Histogram
    served: Histogram


@dataclass(frozen=True)
class Signals:
    """What one flush of one Envoy says."""

    revisions: tuple[RevisionSignal, ...] = ()
    pods: PodsSignal | None = None
    latencies: tuple[LatencySignal, ...] = ()
    stages: tuple[StageTimes, ...] = ()
    unusable: tuple[str, ...] = ()  # certificates that Envoy could not use: see `envoy.secrets`
    envoy: EnvoySignal | None = None
    certificates: CertificatesSignal | None = None
    leaves: str = ""  # the Envoy that tells, if it drains: it will end, and not come back


@dataclass(frozen=True)
class Before:
    """What must be known of the flush before: its time at the receiver, its length, and who waited then."""

    at_s: float
    period_s: float | None
    uptime_s: float | None
    queued: dict[RevisionKey, int]


def signals_of(flush: Flush, before: Before | None, at_s: float) -> tuple[Signals, Before]:
    """The signals of a whole flush received at `at_s` (monotonic s), and what the next one needs.

    Without a period (see `_period_s`) there are no revision signals.
    """
    queued = {key: counts.queued for key, counts in flush.revisions.items()}
    period_s = _period_s(flush, before, at_s)
    revisions: tuple[RevisionSignal, ...] = ()
    if period_s is not None:
        waited = _waited_before(flush, before)
        revisions = tuple(
            _revision_signal(key, flush.node, counts, waited.get(key, 0), at_s, period_s)
            for key, counts in flush.revisions.items()
        )
    latencies = tuple(
        LatencySignal(key, flush.node, at_s, t.count, t.quantile_s(0.5), t.quantile_s(0.99))
        for key, counts in flush.revisions.items()
        if (t := counts.times) is not None and t.count
    )
    stages = tuple(
        StageTimes(key, at_s, counts.whole, counts.served)
        for key, counts in flush.revisions.items()
        if counts.whole is not None and counts.served is not None
    )
    told = Signals(
        revisions,
        PodsSignal(flush.node, at_s, flush.pods) if flush.pods else None,
        latencies,
        stages,
        flush.unusable,
        _envoy_signal(flush, at_s, period_s),
        CertificatesSignal(flush.node, at_s, flush.certificates) if flush.certificates else None,
        flush.node if flush.draining else "",
    )
    return told, Before(at_s, period_s, flush.uptime_s, queued)


def _envoy_signal(flush: Flush, at_s: float, period_s: float | None) -> EnvoySignal | None:
    """None is unknown. A worker has a turn at each flush at least: one that says nothing does not tell.

    A turn counts when it ends, so that one second may tell of more than it had.
    """
    if period_s is None or not flush.worked_us:
        return None
    worked_s = sum(flush.worked_us) / len(flush.worked_us) / 1e6
    return EnvoySignal(flush.node, at_s, period_s, min(1.0, worked_s / period_s))


def _revision_signal(
    key: RevisionKey, node: str, counts: Counts, waited: int, at_s: float, period_s: float
) -> RevisionSignal:
    """Who began to wait has arrived, though Envoy counts an attempt only once it has a connection.

    Counters and gauges are read one after the other while requests go on, hence the bounds at 0.
    """
    times = counts.times
    return RevisionSignal(
        revision=key,
        envoy=node,
        at_s=at_s,
        period_s=period_s,
        arrivals=max(0, counts.attempts + counts.queued - waited),
        completions=times.count if times else 0,
        rejected=counts.rejected + counts.without_pod,
        failed=max(0, counts.answered_5xx - counts.rejected),
        in_flight=counts.in_flight,
        queued=counts.queued,
        request_time_s=times.total_s if times else 0.0,
    )


def _waited_before(flush: Flush, before: Before | None) -> dict[RevisionKey, int]:
    """Who waited at the flush before. After a restart of Envoy: nobody; unknown: those who wait now."""
    if before is None:
        return {key: counts.queued for key, counts in flush.revisions.items()}
    return {} if _restarted(flush, before) else before.queued


def _restarted(flush: Flush, before: Before) -> bool:
    return flush.uptime_s is not None and before.uptime_s is not None and flush.uptime_s < before.uptime_s


def _period_s(flush: Flush, before: Before | None, at_s: float) -> float | None:
    """Seconds that the sums of a flush cover; None is unknown.

    Three tell of it, and each may be wrong: Envoy by its wall clock, which steps (and which it does not
    tell in the first flush after its start); the time since the last flush came, which a message that was
    late or lost stretches; the period before, which a flush that was late in Envoy exceeds. The middle one
    counts, the longer of two. Of a clock set back by 0.9 s they say 0.1, 1 and 1: taken at its word, Envoy
    would have seen ten times as many requests per second.
    """
    stated_s = (flush.at_ns - flush.since_ns) / 1e9
    told = [stated_s] if flush.since_ns and 0 < stated_s <= PERIOD_MAX_S else []
    if before is not None:
        told.append(at_s - before.at_s)
        told += [before.period_s] if before.period_s is not None else []
    period_s = median_high(told) if told else 0.0
    return period_s if period_s > 0 else None
