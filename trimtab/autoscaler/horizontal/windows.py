"""Windows over signals: what came late, twice, out of order, or not at all, from one Envoy or from several.

A signal belongs to the second before its time. Seconds are counted back from the newest signal of
any Envoy, so neither the phase of the flushes nor the age of the last one shifts them. A second
for which an Envoy reported nothing repeats its last one: a gap is not a lull.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from operator import add, attrgetter
from typing import NamedTuple

from trimtab.autoscaler.horizontal.tuning import Tuning
from trimtab.core.signals import RevisionSignal

COUNT_MAX = 1e7  # more requests in one flush than any Envoy can pass: a larger one is no observation
PERIOD_MIN_S, PERIOD_MAX_S = 0.01, 60.0  # a flush over less, at a start, tells nothing about a second
REQUEST_TIME_MAX_S = COUNT_MAX * PERIOD_MAX_S  # of all requests of a flush together
AHEAD_MAX_S = 1.0  # a signal from the future is as good as none

Peaks = tuple[tuple[float, float], ...]  # (at_s, value), values falling: see `push_peak`

_content = attrgetter(
    "at_s", "arrivals", "completions", "rejected", "in_flight", "queued", "request_time_s", "period_s"
)


class Samples(NamedTuple):
    """What the windows keep of one Envoy's signals, oldest first: a column each, of equal length."""

    at_s: tuple[float, ...] = ()
    asked_per_s: tuple[float, ...] = ()  # arrivals, and rejected ones up to their share
    in_flight: tuple[float, ...] = ()
    queued: tuple[float, ...] = ()


class EnvoyHistory(NamedTuple):
    """The last samples of one Envoy; at least one."""

    envoy: str
    samples: Samples = Samples()
    queued_s: float = -inf  # when requests were last queued there

    @property
    def newest_s(self) -> float:
        """When this Envoy was last heard of."""
        return self.samples.at_s[-1]

    @property
    def is_idle(self) -> bool:
        """Whether nobody asked there in its last second, and nothing was held."""
        return not any(column[-1] for column in self.samples[1:])


@dataclass(slots=True)
class Evidence:
    """Sums over the signals that were new to one decision, all Envoys together."""

    span_s: float = 0.0  # covered by the Envoy that reported most
    seconds: float = 0.0  # covered by all Envoys together
    rejected: float = 0.0
    completions: float = 0.0
    in_flight_s: float = 0.0  # in flight × time
    quiet_completions: float = 0.0  # of seconds whose requests have met no queue
    quiet_request_s: float = 0.0  # time at Envoy of those


class View(NamedTuple):
    """What is known after new signals: each Envoy that still counts, by name."""

    envoys: tuple[EnvoyHistory, ...]
    newest_s: float  # of any Envoy; minus infinity if none is known
    complete_s: float  # up to then every one of them has reported
    evidence: Evidence


class Seconds(NamedTuple):
    """The last seconds, oldest first, at least one; all Envoys together."""

    asked: Sequence[float]  # arrivals in each
    in_flight: Sequence[float]
    queued: Sequence[float]


_Second = tuple[float, float, float]  # one of `Seconds`


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
    known = {history.envoy: history for history in envoys}
    for envoy, new in arrived.items():
        known[envoy] = _merge(
            known.get(envoy) or EnvoyHistory(envoy), new, evidence, service_time_s, asked_max_per_s, tuning
        )
    alive = [each for each in known.values() if now_s - each.samples.at_s[-1] < tuning.forget_s]
    if len(alive) > 1:
        alive.sort(key=attrgetter("envoy"))
    heard_s = [each.samples.at_s[-1] for each in alive] or [-inf]
    return View(tuple(alive), max(heard_s), min(heard_s), evidence)


def share_left(age_s: float, tuning: Tuning) -> float:
    """How much of an Envoy's last sample still counts: 1 while fresh, then fading to 0."""
    if age_s <= tuning.fresh_s:
        return 1.0
    return max(0.0, (tuning.forget_s - age_s) / (tuning.forget_s - tuning.fresh_s))


def by_second(view: View, seconds: int, tuning: Tuning) -> Seconds:
    """The last so many seconds (at least 1), summed over Envoys; fewer if the oldest sample is younger.

    What was before the first sample is unknown, not zero.
    """
    if seconds < 1:
        raise ValueError(f"a window of {seconds} s holds no second")
    oldest_s = min([history.samples.at_s[0] for history in view.envoys])
    known = min(seconds, int(view.newest_s - oldest_s + 1.5))
    total, *others = [_line(history.samples, view.newest_s, known, tuning) for history in view.envoys]
    for line in others:
        total = Seconds(*[tuple(map(add, one, other)) for one, other in zip(total, line, strict=True)])
    return total


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


def largest_since(peaks: Peaks, at_s: float) -> float:
    """The largest value since then: with falling maxima, the first of them; at least the newest."""
    for peak_s, value in peaks:
        if peak_s > at_s:
            return value
    return peaks[-1][1]


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
        and 0.0 <= signal.request_time_s <= REQUEST_TIME_MAX_S
    )


def _merge(
    history: EnvoyHistory,
    signals: list[RevisionSignal],
    evidence: Evidence,
    service_time_s: float,
    most_per_s: float,
    tuning: Tuning,
) -> EnvoyHistory:
    """One Envoy's history with its new signals; what is new is added to `evidence`."""
    envoy, samples, queued_s = history
    keep_s = tuning.up_window_s + 2  # one for the first second's begin, one for jitter
    new = _unseen(samples.at_s, signals, keep_s)
    if not new:
        return history
    span_s = in_flight_s = 0.0
    times: list[float] = []
    askeds: list[float] = []
    in_flights: list[float] = []
    queueds: list[float] = []
    for signal in new:
        at_s, period_s, queued = signal.at_s, signal.period_s, signal.queued
        in_flight, completions = signal.in_flight, signal.completions
        asked: float = signal.arrivals
        if signal.rejected:
            asked += min(signal.rejected, tuning.rejected_share * max(1.0, asked))
            evidence.rejected += signal.rejected
        asked /= period_s
        if queued:
            queued_s = max(queued_s, at_s)
        if at_s - period_s - service_time_s > queued_s:
            evidence.quiet_completions += completions
            evidence.quiet_request_s += signal.request_time_s
        evidence.completions += completions
        span_s += period_s
        in_flight_s += in_flight * period_s
        times.append(at_s)
        askeds.append(asked)
        in_flights.append(in_flight)
        queueds.append(queued)
    if max(askeds) > most_per_s:
        askeds = [min(asked, most_per_s) for asked in askeds]
    evidence.span_s = max(evidence.span_s, span_s)
    evidence.seconds += span_s
    evidence.in_flight_s += in_flight_s
    return EnvoyHistory(envoy, _joined(samples, (times, askeds, in_flights, queueds), keep_s), queued_s)


def _joined(samples: Samples, added: Sequence[Sequence[float]], keep_s: float) -> Samples:
    """The samples with more of them, all in order of their time, those of the last `keep_s` seconds."""
    if samples.at_s and added[0][0] < samples.at_s[-1]:  # late ones take their place
        rows = sorted([*zip(*samples, strict=True), *zip(*added, strict=True)])
        added = list(zip(*[row for row in rows if row[0] >= rows[-1][0] - keep_s], strict=True))
        samples = Samples()
    first = bisect_left(samples.at_s, added[0][-1] - keep_s)
    joined = [(*old[first:], *new) for old, new in zip(samples, added, strict=True)]
    return Samples(*joined)


def _unseen(times_s: tuple[float, ...], signals: list[RevisionSignal], keep_s: float) -> list[RevisionSignal]:
    """The signals of other times than these, by time; of two with the same time, always the same one."""
    last_s = times_s[-1] if times_s else -inf
    for signal in signals:
        if signal.at_s <= last_s:
            break
        last_s = signal.at_s
    else:
        if signals[0].at_s > last_s - keep_s:
            return signals  # in order and new: the usual case
    known = set(times_s)
    newest_s = max(last_s, *[signal.at_s for signal in signals])
    chosen = {
        signal.at_s: signal
        for signal in sorted(signals, key=_content)
        if signal.at_s not in known and signal.at_s > newest_s - keep_s
    }
    return list(chosen.values())


def _line(samples: Samples, newest_s: float, known: int, tuning: Tuning) -> Seconds:
    """One Envoy's seconds: holes repeat the one before, and fade once it is silent."""
    times = samples.at_s[-known:]
    aligned = times[-1] == newest_s and abs(newest_s - times[0] - known + 1) < 0.5
    if aligned and len(times) == known:  # one a second: the usual case
        return Seconds(samples.asked_per_s[-known:], samples.in_flight[-known:], samples.queued[-known:])
    line: list[_Second] = []
    carried: _Second = (0.0, 0.0, 0.0)
    last = known - 1
    for at_s, *sample in zip(*samples, strict=True):
        second, index = (sample[0], sample[1], sample[2]), last - int(newest_s - at_s + 0.5)
        if index >= 0:
            line += [carried] * (index - len(line))
            if len(line) > index:  # two in one second, by jitter: the hole beside them gets their mean too
                carried = line[index] = _mean(line[index], second)
                continue
            line.append(second)
        carried = second
    silent_since = last - (newest_s - samples.at_s[-1])
    while len(line) < known:
        left = share_left(len(line) - silent_since, tuning)
        line.append((carried[0] * left, carried[1] * left, carried[2] * left))
    return Seconds(*zip(*line, strict=True))


def _mean(one: _Second, other: _Second) -> _Second:
    return (one[0] + other[0]) / 2, (one[1] + other[1]) / 2, (one[2] + other[2]) / 2
