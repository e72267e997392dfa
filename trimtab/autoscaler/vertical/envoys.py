"""What all Envoys together count at the pods of a revision, period after period.

The limit is kept in Envoy, so Envoy's count says whether it binds. A pod counts a request from when it has
read it until it has answered: of 0.55 ms that a request of a fast model is at the pod for Envoy, the pod
may see 0.3 ms, and so never more than 0.55 requests where Envoy lets in one at a time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from math import inf, sqrt
from typing import NamedTuple

from trimtab.autoscaler.vertical.state import LimitSignals
from trimtab.autoscaler.vertical.tuning import LimitTuning
from trimtab.core.signals import PodSignal, RevisionSignal

PERIOD_S = 5.0  # of Envoy's signals taken together, as long as those of pods
PERIOD_MAX_S = 120.0  # longer ones are no periods


class Count(NamedTuple):
    """One period of an average pod. `gauges`: looks at it, of all Envoys."""

    in_flight: float
    completions: float
    failed: float
    gauges: int
    waiting: bool  # at one Envoy, whenever it looked


class Counts(NamedTuple):
    """By number of period; and whether some signals were from before the last change settled."""

    periods: Mapping[int, Count]
    early: bool


def count(signals: LimitSignals, since_s: float, settled_s: float, now_s: float) -> Counts:
    """Summed over Envoys, each by the mean of what it told in a period. Duplicates are passed over."""
    if not signals.ready_pods:
        return Counts({}, False)
    told: dict[int, dict[str, list[RevisionSignal]]] = {}
    seen: set[tuple[str, float]] = set()
    revision, early = signals.revision, False
    for signal in signals.revision_signals:
        key = (signal.envoy, signal.at_s)
        wild = not (0.0 < signal.period_s <= PERIOD_MAX_S and since_s < signal.at_s <= now_s)
        if key in seen or wild or (signal.revision is not revision and signal.revision != revision):
            continue
        seen.add(key)
        if signal.at_s - signal.period_s < settled_s:
            early = True
            continue
        number = int((signal.at_s - 1e-9) // PERIOD_S)
        told.setdefault(number, {}).setdefault(signal.envoy, []).append(signal)
    pods = {number: _pods_in(number, signals) for number in told}
    periods = {number: _of_period(envoys, pods[number]) for number, envoys in told.items() if pods[number]}
    return Counts(periods, early)


def _pods_in(number: int, signals: LimitSignals) -> float:
    """How many pods shared a period's requests: those seen before and after it, by its middle. 0: not known.

    What three pods answered, divided by the two that are left, would look like a limit that pays.
    """
    seen, middle_s = signals.pods_seen, (number + 0.5) * PERIOD_S
    if not seen:
        return float(signals.ready_pods)
    after = bisect_left(seen, (middle_s, 0))
    (before_s, before), (after_s, then) = seen[max(0, after - 1)], seen[min(after, len(seen) - 1)]
    if not before or not then or before == then:
        return float(min(before, then))
    return before + (then - before) * (middle_s - before_s) / (after_s - before_s)


def _of_period(envoys: Mapping[str, list[RevisionSignal]], pods: float) -> Count:
    in_flight = done = failed = 0.0
    gauges, waiting = 0, False
    for each in envoys.values():
        span_s = sum([signal.period_s for signal in each])
        in_flight += sum([signal.in_flight * signal.period_s for signal in each]) / span_s
        done += sum([signal.completions for signal in each]) / span_s
        failed += sum([signal.failed for signal in each]) / span_s
        gauges += len(each)
        waiting = waiting or all(signal.queued > 0 for signal in each)
    share = PERIOD_S / pods
    return Count(in_flight / pods, done * share, failed * share, gauges, waiting)


def as_pod(counts: Counts, signals: LimitSignals) -> list[PodSignal]:
    """The same as the periods of one pod that stands for all."""
    return [
        PodSignal(
            signals.revision,
            "all pods",
            at_s=(number + 1) * PERIOD_S,
            period_s=PERIOD_S,
            in_flight=each.in_flight,
            completions=each.completions,
            failed=each.failed,
        )
        for number, each in counts.periods.items()
    ]


def full(counts: Counts, signal: PodSignal, signals: LimitSignals, tuning: LimitTuning) -> float | None:
    """How many requests a pod held in its period by Envoy's count, if that is about the limit; else None.

    It is beyond doubt where requests waited at every look: they do only while all pods are at their limit.
    Else gauges are looks at single instants: n looks at places of which a share p is taken see it with an
    error of sqrt(p (1 - p) / n), and must see twice that more. Five at 40 places must see 0.86 of them
    taken; five at one place can never tell 0.6 from 0.8.
    """
    first, last = (signal.at_s - signal.period_s) // PERIOD_S, (signal.at_s - 1e-9) // PERIOD_S
    found = [counts.periods.get(number) for number in range(int(first), int(last) + 1)]
    known = [each for each in found if each is not None]
    if not known or len(known) < len(found):
        return None
    limit, share = signals.limit, tuning.held_share
    in_flight = sum([each.in_flight for each in known]) / len(known)
    if not all(each.waiting for each in known):
        looks = sum([each.gauges for each in known]) * signals.ready_pods * limit
        share += 2.0 * sqrt(share * (1.0 - share) / looks)
    return min(float(limit), in_flight) if share * limit <= in_flight <= 2 * limit + 2 else None


def most(counts: Counts) -> float:
    """The most that a pod held in a period."""
    return max([each.in_flight for each in counts.periods.values()], default=-inf)


def mean(counts: Counts) -> float | None:
    """What a pod held in the mean; None: not known."""
    known = counts.periods.values()
    return sum([each.in_flight for each in known]) / len(known) if known else None
