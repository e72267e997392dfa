"""From the signals of one window (30 s) to what its pods, taken together, say of the limit in force.

A period of a pod (5 s) tells what the limit gives only if the pod held about as many requests: then
its completions are the throughput at this limit. Where pods never seem to, Envoy's own count of what it
let in is asked: of very fast requests a pod sees but a part. Pods are compared with each other first: one
that is slow, stuck or failing is left out, and named.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import NamedTuple

from trimtab.autoscaler.vertical.envoys import PERIOD_MAX_S, Counts, as_pod, count, full, mean, most
from trimtab.autoscaler.vertical.metrics import Metrics, of_pods
from trimtab.autoscaler.vertical.pods import (
    Periods,
    add,
    completed_s,
    dispersion,
    held_share,
    in_step,
    odd_pods,
)
from trimtab.autoscaler.vertical.state import Level, LimitSignals, LimitState
from trimtab.autoscaler.vertical.tuning import LimitTuning
from trimtab.core.signals import RevisionSignal


class Window(NamedTuple):
    """What the signals since the last decision say. Rates are per pod."""

    seen: Level | None  # while the limit was held; None if never, or if nothing completed
    in_flight: float | None  # mean per pod, held or not; None: no signal at all
    at_envoy: float | None  # the same by Envoy's count, if that was asked
    time_s: float | None  # per request, over all periods
    held: float  # share of the periods in which pods held about the limit
    queued: float | None  # share of Envoy's seconds in which requests were queued
    settling: bool  # there were signals, all from before the last change settled
    squares: float  # of deviations of completions, over their mean
    degrees: int  # of freedom behind them
    periods: int  # in which pods held about the limit
    metrics: Metrics
    left_out: tuple[tuple[str, str], ...]  # pod, why
    completed_s: float = 0.0  # time in the pod of what completed; 0: not known
    torn: bool = False  # its periods are too unlike each other: a disturbance began or ended in it

    def binds(self, tuning: LimitTuning) -> bool:
        """Whether the limit, not the load, holds concurrency down."""
        return self.held >= tuning.binds_share


def observe(state: LimitState, signals: LimitSignals, now_s: float, tuning: LimitTuning) -> Window:
    """What came since the last decision. Duplicates and wild values are passed over. Raises nothing."""
    since_s = -inf if state.decided_s is None else state.decided_s
    settled_s = -inf if state.settled_s is None else state.settled_s
    if state.decided_s is None and not state.levels:
        settled_s = _first(signals, now_s) + tuning.first_s
    pods, unsettled = _by_pod(signals, since_s, settled_s, now_s, tuning)
    if held_share(pods) >= tuning.binds_share:
        return _window(pods, pods, signals, unsettled, None, tuning)
    counts = count(signals, since_s, settled_s, now_s)
    unsettled, at_envoy = unsettled or counts.early, mean(counts)
    if any(pod.done_in_flight_s for pod in pods):
        pods = _as_envoy_counts(pods, counts, signals, tuning)
        return _window(pods, pods, signals, unsettled, at_envoy, tuning)
    if not counts.periods:
        return _window(pods, pods, signals, unsettled, None, tuning)
    pod = Periods("all pods", pods=float(signals.ready_pods))
    for signal in as_pod(counts, signals):
        add(pod, signal, signals.limit, tuning)
    measured = pods if any(each.known_s for each in pods) else []
    return _window([pod], measured, signals, unsettled, at_envoy, tuning)


def _by_pod(
    signals: LimitSignals, since_s: float, settled_s: float, now_s: float, tuning: LimitTuning
) -> tuple[list[Periods], bool]:
    """The periods of each pod, and whether some were passed over since the limit had not settled yet."""
    by_pod: dict[str, Periods] = {}
    seen: set[tuple[str, float]] = set()
    unsettled = False
    revision = signals.revision
    for signal in signals.pod_signals:
        key = (signal.pod, signal.at_s)
        other = signal.revision is not revision and signal.revision != revision
        if other or key in seen or not since_s < signal.at_s <= now_s:
            continue
        seen.add(key)
        if not 0.0 < signal.period_s <= PERIOD_MAX_S:
            continue
        if signal.at_s - signal.period_s < settled_s:
            unsettled = True
            continue
        pod = by_pod.get(signal.pod)
        if pod is None:
            pod = by_pod[signal.pod] = Periods(signal.pod)
        add(pod, signal, signals.limit, tuning)
    return list(by_pod.values()), unsettled


def _as_envoy_counts(
    pods: list[Periods], counts: Counts, signals: LimitSignals, tuning: LimitTuning
) -> list[Periods]:
    """The pods anew: a period counts as well if Envoy let in about as many as the limit."""
    if most(counts) < tuning.held_share * signals.limit:
        return pods
    anew = []
    for pod in pods:
        again = Periods(pod.name)
        for signal in pod.metrics:
            add(again, signal, signals.limit, tuning, full(counts, signal, signals, tuning))
        anew.append(again)
    return anew


def _first(signals: LimitSignals, now_s: float) -> float:
    """When the first period of all began, of those that may be true."""
    times = [s.at_s - s.period_s for s in signals.pod_signals if s.period_s > 0]
    times += [s.at_s - s.period_s for s in signals.revision_signals if s.period_s > 0]
    return min([at_s for at_s in times if now_s - PERIOD_MAX_S <= at_s <= now_s], default=now_s)


def _window(
    rated: Sequence[Periods],
    measured: list[Periods],
    signals: LimitSignals,
    unsettled: bool,
    at_envoy: float | None,
    tuning: LimitTuning,
) -> Window:
    """Pods taken together: `rated` tell throughput, `measured` the rest."""
    left_out = odd_pods(rated, tuning)
    names = {name for name, _ in left_out}
    rated = [pod for pod in rated if pod.name not in names]
    measured = [pod for pod in measured if pod.name not in names]
    took_s = completed_s(rated)
    rated = in_step(rated, signals.limit, tuning)
    squares, degrees = dispersion(rated)
    loaded = measured if any(pod.known_s for pod in measured) else rated
    known_s = sum(pod.known_s for pod in loaded)
    done = sum(pod.all_done for pod in rated)
    return Window(
        seen=_level(rated, signals.limit),
        in_flight=sum(pod.in_flight_s for pod in loaded) / known_s if known_s else None,
        at_envoy=at_envoy,
        time_s=sum(pod.done_in_flight_s for pod in rated) / done if done >= 1.0 else None,
        held=held_share(rated),
        queued=_queued(signals.revision_signals),
        settling=unsettled and not known_s,
        squares=squares,
        degrees=degrees,
        periods=sum([len(pod.done) for pod in rated]),
        metrics=of_pods([pod.metrics for pod in measured], signals),
        left_out=left_out,
        completed_s=took_s,
    )


def _level(pods: Sequence[Periods], limit: int) -> Level | None:
    done = sum(sum(pod.done) * pod.pods for pod in pods)
    held_s = sum(pod.held_s * pod.pods for pod in pods)
    in_flight_s = sum(pod.let_in_s * pod.pods for pod in pods)
    return Level(limit, in_flight_s, done, held_s, 1.0) if done >= 1.0 and in_flight_s >= 1e-3 else None


def _queued(revision_signals: Sequence[RevisionSignal]) -> float | None:
    if not revision_signals:
        return None
    return sum(1 for signal in revision_signals if signal.queued > 0) / len(revision_signals)
