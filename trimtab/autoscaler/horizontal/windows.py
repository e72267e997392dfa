"""Windows over signals: what came late, twice, out of order, or not at all, from one Envoy or from several.

A signal belongs to the second before its time. Seconds are counted back from the newest signal of
any Envoy, so neither the phase of the flushes nor the age of the last one shifts them. A second
for which an Envoy reported nothing repeats its last one: a gap is not a lull.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from operator import attrgetter
from typing import NamedTuple

from trimtab.autoscaler.horizontal.tuning import Tuning
from trimtab.core.signals import RevisionSignal

COUNT_MAX = 1e7  # more requests in one flush than any Envoy can pass: a larger one is no observation
PERIOD_MIN_S, PERIOD_MAX_S = 0.01, 60.0  # a flush over less, at a start, tells nothing about a second
AHEAD_MAX_S = 1.0  # a signal from the future is as good as none

Peaks = tuple[tuple[float, float], ...]  # (at_s, value), values falling: see `push_peak`

_content = attrgetter(
    "at_s", "arrivals", "completions", "rejected", "in_flight", "queued", "request_time_s", "period_s"
)


class Sample(NamedTuple):
    """What the windows keep of one signal: a rate per second, and gauges in requests."""

    at_s: float
    asked_per_s: float  # arrivals, and rejected ones up to their share
    in_flight: float
    queued: float


ASKED, IN_FLIGHT, QUEUED = 1, 2, 3  # where they are in a Sample


@dataclass(frozen=True, slots=True)
class EnvoyHistory:
    """The last samples of one Envoy, oldest first; at least one."""

    envoy: str
    samples: tuple[Sample, ...]

    @property
    def newest_s(self) -> float:
        """When this Envoy was last heard of."""
        return self.samples[-1].at_s


@dataclass(slots=True)
class Evidence:
    """Sums over the signals that were new to one decision, all Envoys together."""

    span_s: float = 0.0  # covered by the Envoy that reported most
    seconds: float = 0.0  # covered by all Envoys together
    arrivals: float = 0.0
    rejected: float = 0.0
    completions: float = 0.0
    in_flight_s: float = 0.0  # in flight × time
    quiet_completions: float = 0.0  # of seconds whose requests have met no queue
    quiet_request_s: float = 0.0  # time at Envoy of those

    def add(self, signal: RevisionSignal, quiet: bool) -> None:
        """Count one signal."""
        self.seconds += signal.period_s
        self.arrivals += signal.arrivals
        self.rejected += signal.rejected
        self.completions += signal.completions
        self.in_flight_s += signal.in_flight * signal.period_s
        if quiet:
            self.quiet_completions += signal.completions
            self.quiet_request_s += signal.request_time_s


class View(NamedTuple):
    """What is known after new signals: each Envoy that still counts, by name."""

    envoys: tuple[EnvoyHistory, ...]
    newest_s: float  # of any Envoy; minus infinity if none is known
    evidence: Evidence


class _Believed(NamedTuple):
    """What is known when signals come: how long requests last, and how many may arrive at most."""

    service_time_s: float
    asked_max_per_s: float


def absorb(
    envoys: tuple[EnvoyHistory, ...],
    signals: Iterable[RevisionSignal],
    now_s: float,
    tuning: Tuning,
    *,
    service_time_s: float = 0.0,
    asked_max_per_s: float = inf,
) -> View:
    """Add new signals to the histories, drop what is old. Order and repetition make no difference.

    `service_time_s` as known so far: a request that completes now may have been queued so long ago.
    `asked_max_per_s`: more than so many arrivals count as so many, or one wild signal would count in
    each decision for as long as it is in the window.
    """
    arrived: dict[str, list[RevisionSignal]] = {}
    for signal in signals:
        if _plausible(signal, now_s):
            arrived.setdefault(signal.envoy, []).append(signal)
    evidence = Evidence()
    before = {history.envoy: history for history in envoys}
    for envoy, new in arrived.items():
        known = before[envoy].samples if envoy in before else ()
        before[envoy] = EnvoyHistory(
            envoy, _merge(known, new, evidence, _Believed(service_time_s, asked_max_per_s), tuning)
        )
    alive = [history for history in before.values() if now_s - history.newest_s < tuning.forget_s]
    if len(alive) > 1:
        alive.sort(key=attrgetter("envoy"))
    newest_s = max([history.newest_s for history in alive], default=-inf)
    return View(tuple(alive), newest_s, evidence)


def share_left(age_s: float, tuning: Tuning) -> float:
    """How much of an Envoy's last sample still counts: 1 while fresh, then fading to 0."""
    if age_s <= tuning.fresh_s:
        return 1.0
    return max(0.0, (tuning.forget_s - age_s) / (tuning.forget_s - tuning.fresh_s))


def by_second(view: View, seconds: int, field: int, tuning: Tuning) -> list[float]:
    """A field of `Sample` (its index) summed over Envoys, for each of the last seconds, oldest first.

    At least one; fewer than `seconds` if the oldest sample is younger: what was before it is unknown.
    """
    oldest_s = min([history.samples[0].at_s for history in view.envoys])
    known = min(seconds, int(view.newest_s - oldest_s + 1.5))
    lines = [_line(history.samples, view.newest_s, known, field, tuning) for history in view.envoys]
    return lines[0] if len(lines) == 1 else [sum(values) for values in zip(*lines, strict=True)]


def push_peak(peaks: Peaks, at_s: float, value: float, window_s: float) -> Peaks:
    """Add a value to a window's falling maxima: its first entry is the largest value in the window.

    Amortised one step per call, since an entry that a larger one follows can never be the maximum.
    """
    end = len(peaks)
    while end and peaks[end - 1][1] <= value:
        end -= 1
    begin = 0
    while begin < end and peaks[begin][0] <= at_s - window_s:
        begin += 1
    return (*peaks[begin:end], (at_s, value))


def _plausible(signal: RevisionSignal, now_s: float) -> bool:
    """False for what cannot have been observed, NaN included."""
    return (
        -inf < signal.at_s <= now_s + AHEAD_MAX_S
        and PERIOD_MIN_S <= signal.period_s <= PERIOD_MAX_S
        and 0 <= signal.arrivals <= COUNT_MAX
        and 0 <= signal.completions <= COUNT_MAX
        and 0 <= signal.rejected <= COUNT_MAX
        and 0 <= signal.in_flight <= COUNT_MAX
        and 0 <= signal.queued <= COUNT_MAX
        and 0.0 <= signal.request_time_s <= COUNT_MAX * PERIOD_MAX_S
    )


def _merge(
    samples: tuple[Sample, ...],
    signals: list[RevisionSignal],
    evidence: Evidence,
    believed: _Believed,
    tuning: Tuning,
) -> tuple[Sample, ...]:
    """One Envoy's samples with its new signals; what is new is added to `evidence`."""
    keep_s = tuning.up_window_s + 2  # one for the first second's begin, one for jitter
    new = _unseen(samples, signals, keep_s)
    last_queued_s = max([sample.at_s for sample in samples if sample.queued], default=-inf)
    added: list[Sample] = []
    span_s = 0.0
    for signal in new:
        asked = signal.arrivals + min(signal.rejected, tuning.rejected_share * max(1, signal.arrivals))
        asked_per_s = min(asked / signal.period_s, believed.asked_max_per_s)
        sample = Sample(signal.at_s, asked_per_s, signal.in_flight, signal.queued)
        if signal.queued:
            last_queued_s = signal.at_s
        evidence.add(signal, quiet=signal.at_s - signal.period_s - believed.service_time_s > last_queued_s)
        span_s += signal.period_s
        added.append(sample)
    evidence.span_s = max(evidence.span_s, span_s)
    merged = (*samples, *added)
    if added and samples and added[0].at_s < samples[-1].at_s:
        merged = tuple(sorted(merged))
    oldest_s = merged[-1].at_s - keep_s
    first = 0
    while merged[first].at_s < oldest_s:
        first += 1
    return merged[first:]


def _unseen(
    samples: tuple[Sample, ...], signals: list[RevisionSignal], keep_s: float
) -> list[RevisionSignal]:
    """The signals that are not in `samples`, by time; of two with the same time, always the same one."""
    last_s = samples[-1].at_s if samples else -inf
    for signal in signals:
        if signal.at_s <= last_s:
            break
        last_s = signal.at_s
    else:
        return signals  # in order and new: the usual case
    known = {sample.at_s for sample in samples}
    newest_s = max(last_s, *[signal.at_s for signal in signals])
    chosen = {
        signal.at_s: signal
        for signal in sorted(signals, key=_content)
        if signal.at_s not in known and signal.at_s > newest_s - keep_s
    }
    return list(chosen.values())


def _line(
    samples: tuple[Sample, ...], newest_s: float, known: int, field: int, tuning: Tuning
) -> list[float]:
    """One Envoy's values by second: holes repeat the value before, and fade once it is silent."""
    recent = samples[-known:]
    aligned = recent[-1][0] == newest_s and abs(newest_s - recent[0][0] - known + 1) < 0.5
    if aligned and len(recent) == known:
        return [sample[field] for sample in recent]  # one a second: the usual case
    values = [0.0] * known
    carried = 0.0
    filled = 0
    last = known - 1
    for sample in samples:
        index = last - int(newest_s - sample[0] + 0.5)
        value = sample[field]
        if index < 0:
            carried = value
            continue
        while filled < index:
            values[filled] = carried
            filled += 1
        if filled > index:  # two in one second, by jitter: the hole beside them gets their mean too
            value = (values[index] + value) / 2
        values[index] = carried = value
        filled = index + 1
    silent_since = last - (newest_s - samples[-1].at_s)
    while filled < known:
        values[filled] = carried * share_left(filled - silent_since, tuning)
        filled += 1
    return values
