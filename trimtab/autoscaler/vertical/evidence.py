"""From the signals of one window (30 s) to what its pods, taken together, say of the limit in force.

A period of a pod (5 s) tells what the limit gives only if the pod held about as many requests: then
its completions are the throughput at this limit. Pods are compared with each other first: one that is
slow, stuck or failing is left out, and named.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import NamedTuple

from trimtab.autoscaler.vertical.metrics import Metrics, of_pods
from trimtab.autoscaler.vertical.pods import Periods, add, dispersion, in_step, odd_pods
from trimtab.autoscaler.vertical.state import Level, LimitSignals, LimitState
from trimtab.autoscaler.vertical.tuning import LimitTuning
from trimtab.core.signals import PodSignal, RevisionSignal

PERIOD_S = 5.0  # of Envoy's signals taken together, where pods have none of their own
_PERIOD_MAX_S = 120.0  # longer ones are no periods


class Window(NamedTuple):
    """What the signals since the last decision say. Rates are per pod."""

    seen: Level | None  # while the limit was held; None if never, or if nothing completed
    in_flight: float | None  # mean per pod, held or not; None: no signal at all
    time_s: float | None  # per request, over all periods
    held: float  # share of the periods in which pods held about the limit
    queued: float | None  # share of Envoy's seconds in which requests were queued
    settling: bool  # there were signals, all from before the last change settled
    squares: float  # of deviations of completions, over their mean
    degrees: int  # of freedom behind them
    metrics: Metrics
    left_out: tuple[tuple[str, str], ...]  # pod, why
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
    by_pod: dict[str, Periods] = {}
    seen: set[tuple[str, float]] = set()
    unsettled = False
    for signal in signals.pod_signals:
        key = (signal.pod, signal.at_s)
        if key in seen or signal.revision != signals.revision or not since_s < signal.at_s <= now_s:
            continue
        seen.add(key)
        if not 0.0 < signal.period_s <= _PERIOD_MAX_S:
            continue
        if signal.at_s - signal.period_s < settled_s:
            unsettled = True
            continue
        pod = by_pod.get(signal.pod)
        if pod is None:
            pod = by_pod[signal.pod] = Periods(signal.pod)
        add(pod, signal, signals.limit, tuning)
    if not any(pod.done_in_flight_s for pod in by_pod.values()):
        envoys, behind = _of_envoys(signals, since_s, settled_s, now_s)
        unsettled = unsettled or behind
        if envoys:
            pod = Periods("all pods", pods=float(signals.ready_pods))
            for signal in envoys:
                add(pod, signal, signals.limit, tuning)
            by_pod = by_pod if any(each.known_s for each in by_pod.values()) else {}
            return _window([pod], list(by_pod.values()), signals, unsettled, tuning)
    pods = list(by_pod.values())
    return _window(pods, pods, signals, unsettled, tuning)


def _first(signals: LimitSignals, now_s: float) -> float:
    """When the first period of all began, of those that may be true."""
    times = [s.at_s - s.period_s for s in signals.pod_signals if s.period_s > 0]
    times += [s.at_s - s.period_s for s in signals.revision_signals if s.period_s > 0]
    return min([at_s for at_s in times if now_s - _PERIOD_MAX_S <= at_s <= now_s], default=now_s)


def _of_envoys(
    signals: LimitSignals, since_s: float, settled_s: float, now_s: float
) -> tuple[list[PodSignal], bool]:
    """Envoy's signals as periods of an average pod: summed over Envoys, and whether some were too early."""
    if not signals.ready_pods:
        return [], False
    periods: dict[int, dict[str, list[RevisionSignal]]] = {}
    seen: set[tuple[str, float]] = set()
    early = False
    for signal in signals.revision_signals:
        key = (signal.envoy, signal.at_s)
        wild = not (0.0 < signal.period_s <= _PERIOD_MAX_S and since_s < signal.at_s <= now_s)
        if key in seen or wild or signal.revision != signals.revision:
            continue
        seen.add(key)
        if signal.at_s - signal.period_s < settled_s:
            early = True
            continue
        number = int((signal.at_s - 1e-9) // PERIOD_S)
        periods.setdefault(number, {}).setdefault(signal.envoy, []).append(signal)
    found = []
    for number, envoys in periods.items():
        in_flight = done = failed = 0.0
        for each in envoys.values():
            span_s = sum(signal.period_s for signal in each)
            in_flight += sum(signal.in_flight * signal.period_s for signal in each) / span_s
            done += sum(signal.completions for signal in each) / span_s
            failed += sum(signal.failed for signal in each) / span_s
        share = PERIOD_S / signals.ready_pods
        found.append(
            PodSignal(
                signals.revision,
                "all pods",
                at_s=(number + 1) * PERIOD_S,
                period_s=PERIOD_S,
                in_flight=in_flight / signals.ready_pods,
                completions=done * share,
                failed=failed * share,
            )
        )
    return found, early


def _window(
    rated: Sequence[Periods],
    measured: list[Periods],
    signals: LimitSignals,
    unsettled: bool,
    tuning: LimitTuning,
) -> Window:
    """Pods taken together: `rated` tell throughput, `measured` the rest."""
    left_out = odd_pods(rated, tuning)
    names = {name for name, _ in left_out}
    rated = [pod for pod in rated if pod.name not in names]
    measured = [pod for pod in measured if pod.name not in names]
    rated = in_step(rated, signals.limit, tuning)
    squares, degrees = dispersion(rated)
    loaded = measured if any(pod.known_s for pod in measured) else rated
    known_s = sum(pod.known_s for pod in loaded)
    done = sum(pod.all_done for pod in rated)
    held_s = sum(pod.held_s for pod in rated)
    rated_s = sum(pod.known_s for pod in rated)
    return Window(
        seen=_level(rated, signals.limit),
        in_flight=sum(pod.in_flight_s for pod in loaded) / known_s if known_s else None,
        time_s=sum(pod.done_in_flight_s for pod in rated) / done if done >= 1.0 else None,
        held=held_s / rated_s if rated_s else 0.0,
        queued=_queued(signals.revision_signals),
        settling=unsettled and not known_s,
        squares=squares,
        degrees=degrees,
        metrics=of_pods([pod.metrics for pod in measured], signals),
        left_out=left_out,
    )


def _level(pods: Sequence[Periods], limit: int) -> Level | None:
    done = sum(sum(pod.done) * pod.pods for pod in pods)
    held_s = sum(pod.held_s * pod.pods for pod in pods)
    in_flight_s = sum(pod.held_in_flight_s * pod.pods for pod in pods)
    return Level(limit, in_flight_s, done, held_s, 1.0) if done >= 1.0 and in_flight_s >= 1e-3 else None


def _queued(revision_signals: Sequence[RevisionSignal]) -> float | None:
    if not revision_signals:
        return None
    return sum(1 for signal in revision_signals if signal.queued > 0) / len(revision_signals)
