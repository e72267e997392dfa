"""The scenario of `bench.truth` in the simulator, with what was measured of the machine."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bench.truth_machine import DOWN_WINDOW_S, LOOK_EACH_S, NAME, RANGE, Decided, Floats, Scenario, Seen
from trimtab.autoscaler.horizontal import Signals, State, Tuning, decide, overdue_pods
from trimtab.autoscaler.horizontal.tuning import shortened
from trimtab.autoscaler.simulator.load import Load, offered_per_second
from trimtab.autoscaler.simulator.models import Model
from trimtab.autoscaler.simulator.policies.base import TICK_S, PodTick, Setting, Tick, Wish
from trimtab.autoscaler.simulator.run import run
from trimtab.core.names import EndpointName
from trimtab.core.revision import RevisionKey
from trimtab.core.signals import RevisionSignal

FLUSH_EACH_S = 1.0


class Replayed:
    """The same `decide`, at the times at which it decided there, with the limits that were in force."""

    revision = RevisionKey(EndpointName("default", NAME), 1)

    def __init__(self, decided: Sequence[Decided], tuning: Tuning) -> None:
        self._due = [each for each in decided if each.at_s > 0.0]
        self._tuning = tuning
        self._state = State()
        self._signals: list[RevisionSignal] = []
        self._ticks: list[Tick] = []
        self.ready: list[tuple[float, int]] = []

    def step(self, tick: Tick, pods: Sequence[PodTick]) -> Wish | None:  # noqa: ARG002 -- no vertical axis
        self.ready.append((tick.at_s, tick.ready))
        self._ticks.append(tick)
        if tick.at_s.is_integer():
            self._signals.append(self._flush())
        if not self._due or tick.at_s < self._due[0].at_s:
            return None
        signals = Signals(
            self.revision,
            tuple(self._signals),
            ready_pods=tick.ready,
            starting_ages_s=tick.starting_ages_s,
            start_time_s=tick.start_time_s,
            target_concurrency=self._due.pop(0).limit,
            concurrency=RANGE,
        )
        self._signals.clear()
        self._state, decision = decide(self._state, signals, tick.at_s, self._tuning)
        return Wish(decision.pods, signals.target_concurrency, overdue_pods(signals, self._tuning))

    def _flush(self) -> RevisionSignal:
        """What Envoy would have reported of the second that ends."""
        ticks, self._ticks = self._ticks, []
        return RevisionSignal(
            revision=self.revision,
            envoy="simulated",
            at_s=ticks[-1].at_s,
            period_s=len(ticks) * TICK_S,
            arrivals=sum(tick.arrivals for tick in ticks),
            completions=sum(tick.completions for tick in ticks),
            rejected=sum(tick.rejected for tick in ticks),
            failed=0,
            in_flight=ticks[-1].in_flight,
            queued=ticks[-1].queued,
            request_time_s=sum(tick.request_time_s for tick in ticks),
        )


class Figures(NamedTuple):
    """What is compared. Pods by the half second from the end of the warm-up."""

    ready: Floats
    late_share: float
    p99_s: float | None  # of what finished


def simulated(given: Scenario, seen: Seen, seed: int) -> Figures:
    """One run of the scenario in the simulator."""
    model = Model(NAME, "io", service_time_s=seen.alone_s, service_time_cv=0.0, knee=RANGE.max)
    times_s = given.times_s
    shift_s = float(np.random.default_rng(seed).uniform(0.0, FLUSH_EACH_S))
    load = Load(
        times_s + shift_s,
        np.full(times_s.size, seen.alone_s),
        given.warmup_s + shift_s,
        given.end_s + shift_s,
    )
    setting = Setting(
        knee=model.knee,
        first_limit=seen.decided[0].limit,
        pods_min=1,
        pods_max=RANGE.max,
        concurrency_min=RANGE.min,
        concurrency_max=RANGE.max,
        service_time_s=seen.alone_s,
        cold_start_s=statistics.fmean(seen.starts_s),
        phase_s=0.0,
        kind=model.kind,
        offered=tuple(offered_per_second(load, model).tolist()),
    )
    decided = [each._replace(at_s=each.at_s + shift_s) for each in seen.decided]
    policy = Replayed(decided, shortened(DOWN_WINDOW_S))
    score = run(policy, NAME, setting, load, model, seed=seed).score
    return Figures(
        by_look([(at_s - shift_s, pods) for at_s, pods in policy.ready], given),
        score.late_share,
        score.p99_s or np.inf,
    )


def by_look(points: Sequence[tuple[float, int]], given: Scenario) -> Floats:
    """The number that held at each half second from the end of the warm-up to the end."""
    looks_s = np.arange(given.warmup_s, given.end_s, LOOK_EACH_S)
    at_s, values = np.array(points).T
    return np.asarray(values[np.maximum(0, np.searchsorted(at_s, looks_s, side="right") - 1)])
