"""From looks at pods, each some seconds after the last, to signals: differences, means and gauges."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from math import inf

from trimtab.control.signals.held import Held, Span
from trimtab.control.signals.reading import Reading, Totals
from trimtab.core.pod import Pod
from trimtab.core.revision import RevisionKey
from trimtab.core.signals import GpuSignal, PodSignal

WAITING_MAX = 4_096
"""Signals of one revision that wait to be taken; more drop the oldest. 600 pods over one 30 s decision."""

BASE_MAX_S = 60.0
"""Of a pod whose page could not be read for longer than this, counters begin anew: it is long past."""


@dataclass(frozen=True)
class Look:
    """One pod at one time; what is None could not be had."""

    at_s: float
    pod: Pod
    reading: Reading | None = None
    gpu: GpuSignal | None = None


@dataclass
class _Seen:
    """The look that the next is compared with, and the means of what its gauges show."""

    base: Look
    in_flight: Held = field(default_factory=Held)
    queued: Held = field(default_factory=Held)


class PodSignals:
    """The last look at each pod, and a bounded number of signals on their way to the autoscaler."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}
        self._waiting: dict[RevisionKey, deque[PodSignal]] = {}

    def look(self, look: Look) -> None:
        """Make a signal of the difference to the look before; the first at a pod makes none.

        A round in which the page could not be read tells what else is known, and the next that has a
        page spans both: nothing that was counted is lost, or told twice.
        """
        seen = self._seen.get(look.pod.id)
        if seen is None:
            self._seen[look.pod.id] = _Seen(look)
            return
        base, period_s = seen.base, look.at_s - seen.base.at_s
        if period_s <= 0:
            return
        signal = _signal(seen, look, period_s)
        self._waiting.setdefault(look.pod.revision, deque(maxlen=WAITING_MAX)).append(signal)
        if look.reading is not None or base.reading is None or period_s > BASE_MAX_S:
            seen.base = look

    def take(self, revision: RevisionKey) -> tuple[PodSignal, ...]:
        """The signals that came since the last call, oldest first."""
        return tuple(self._waiting.pop(revision, ()))

    def keep_only(self, pods: Collection[Pod]) -> None:
        """Forget what is gone."""
        ids, revisions = {pod.id for pod in pods}, {pod.revision for pod in pods}
        for pod_id in self._seen.keys() - ids:
            del self._seen[pod_id]
        for revision in self._waiting.keys() - revisions:
            del self._waiting[revision]


def _signal(seen: _Seen, look: Look, period_s: float) -> PodSignal:
    pod = look.pod
    known = PodSignal(
        revision=pod.revision,
        pod=pod.id,
        at_s=look.at_s,
        period_s=period_s,
        cpu_cores=_per_s(seen.base, look, seen.base.pod.cpu_seconds, pod.cpu_seconds),
        memory_bytes=pod.memory_bytes,
        io_wait=_share(_per_s(seen.base, look, seen.base.pod.io_stalled_s, pod.io_stalled_s)),
        gpu=look.gpu or (look.reading.gpu if look.reading else None),
    )
    if look.reading is None:
        return known
    return _with_requests(known, seen, look.reading)


def _with_requests(known: PodSignal, seen: _Seen, now: Reading) -> PodSignal:
    """The same with what the pod's page tells: `now`, and the one before if its server is the same."""
    before = seen.base.reading
    added = _added(before, now)
    if before is None or added is None:
        seen.in_flight, seen.queued = Held(), Held()
        return replace(known, in_flight=now.in_flight, queued=now.queued, cache_used=now.cache_used)
    waited_s = _difference(before.queue_time_s, now.queue_time_s)
    span = Span(known.period_s, before.queued, now.queued, waited_s, _lag_s(added), _present_max(now, added))
    queued = seen.queued.mean(span)
    held, time_s = (before.in_flight, now.in_flight), added.request_time_s
    in_flight = seen.in_flight.mean(replace(span, gauge_before=held[0], gauge_now=held[1], time_s=time_s))
    return replace(
        known,
        in_flight=in_flight if queued is None or in_flight is None else max(in_flight, queued),
        queued=queued,
        completions=added.completions,
        request_time_s=added.request_time_s,
        failed=added.failed,
        batch=_batch(before, now),
        cache_used=now.cache_used,
    )


def _batch(before: Reading, now: Reading) -> float | None:
    """Mean size of the batches that the model was asked; None if it was asked nothing."""
    inferences = _difference(before.inferences, now.inferences)
    executions = _difference(before.executions, now.executions)
    return inferences / executions if inferences is not None and executions else None


def _lag_s(added: Totals) -> float:
    """Mean duration of what completed; without end if nothing did."""
    if not added.completions or added.request_time_s is None:
        return inf
    return added.request_time_s / added.completions


def _present_max(now: Reading, added: Totals) -> float:
    """Requests that were there at any time: those still there, and those that completed."""
    if now.in_flight is None or added.completions is None:
        return inf
    return now.in_flight + added.completions


def _added(before: Reading | None, now: Reading) -> Totals | None:
    """What the counters of the pod as a whole gained; None without a page before.

    None too where a counter went back: the server began anew, and when is not known.
    """
    if before is None:
        return None
    old, new = before.parts.get(now.whole, Totals()), now.totals
    pairs = (
        (old.completions, new.completions),
        (old.failed, new.failed),
        (old.model_faults, new.model_faults),
        (old.request_time_s, new.request_time_s),
        (before.queue_time_s, now.queue_time_s),
    )
    if any(a is not None and b is not None and b < a for a, b in pairs):
        return None
    completions, failed, model_faults, request_time_s, _ = (_difference(a, b) for a, b in pairs)
    return Totals(completions, failed, model_faults, request_time_s)


def _difference(before: float | None, now: float | None) -> float | None:
    return None if before is None or now is None or now < before else now - before


def _per_s(base: Look, look: Look, before: float | None, now: float | None) -> float | None:
    """Growth a second of what the fleet measured, over the time between its measurements."""
    added = _difference(before, now)
    began_s, ended_s = base.pod.measured_at_s, look.pod.measured_at_s
    if began_s is None or ended_s is None:
        began_s, ended_s = base.at_s, look.at_s
    same = base.pod.process_id == look.pod.process_id
    return added / (ended_s - began_s) if same and added is not None and ended_s > began_s else None


def _share(value: float | None) -> float | None:
    return None if value is None else min(1.0, value)
