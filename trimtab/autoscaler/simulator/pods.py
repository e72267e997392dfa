"""Pods that come and go: starts that take their time, drains, and what may go wrong with a pod."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf, log, sqrt

import numpy as np
from numpy.random import Generator

from trimtab.autoscaler.simulator.engine import Engine
from trimtab.autoscaler.starts import typical_start_s

START_CV = 0.2
"""Spread of start times, standard deviation over mean: the same image on machines of different load."""

HOUR_S = 3600.0


@dataclass(frozen=True)
class Faults:
    """What goes wrong with pods, at random; all zero: nothing."""

    failed_starts: float = 0.0  # share of starts that end in nothing
    stalled_starts: float = 0.0  # share of starts that never end by themselves
    deaths_per_hour: float = 0.0  # of each ready pod: what it held waits again
    hangs_per_hour: float = 0.0  # of each ready pod: it keeps what it holds, and finishes nothing
    slow_per_hour: float = 0.0  # of each ready pod: it goes on at `slow_speed`
    slow_speed: float = 0.3


NO_FAULTS = Faults()


@dataclass(slots=True)
class _Starting:
    asked_s: float
    ready_s: float  # infinite: it stalled
    fails: bool


@dataclass(slots=True)
class _Ready:
    pod: int
    asked_s: float
    start_s: float
    fault_s: float  # when something happens to it
    fault: str  # dies, hangs, slows


class Fleet:
    """Keeps as many pods as are wanted, and adds up their time. Deterministic for its seed.

    The n-th start of a run takes equally long under each policy.
    """

    def __init__(self, engine: Engine, cold_start_s: float, seed: int, faults: Faults = NO_FAULTS) -> None:
        self._engine = engine
        self._cold_start_s = cold_start_s
        self._starts = np.random.default_rng([seed, 1])
        self._first_starts = np.random.default_rng([seed, 5])
        self._fates = np.random.default_rng([seed, 2])
        self._faults = faults
        self._starting: list[_Starting] = []
        self._ready: list[_Ready] = []
        self._draining: list[_Ready] = []
        self.pod_seconds = 0.0  # of pods that have ended
        self.next_event_s = inf  # when something happens to a pod by itself
        self.start_time_s: float | None = (
            None  # what a start typically took, of the pods that were ready last
        )

    @property
    def asked(self) -> int:
        """Pods that start or are ready."""
        return len(self._starting) + len(self._ready)

    @property
    def ready(self) -> list[int]:
        """The ready pods, by the engine's numbers."""
        return [pod.pod for pod in self._ready]

    def starting_ages_s(self, now_s: float) -> tuple[float, ...]:
        """How long each starting pod has been starting, oldest first."""
        return tuple([now_s - pod.asked_s for pod in self._starting])

    def begin(self, pods: int) -> None:
        """The pods that are there when the run begins.

        Their starts are over, and took some time each: nobody is told the mean. They are drawn apart from
        those of the run, whose n-th start is so the same whatever the range.
        """
        for _ in range(pods):
            self._now_ready(0.0, self._drawn_start_s(self._first_starts))
        self._changed()

    def happen(self, now_s: float) -> None:
        """Let starts end and faults strike that are due. The engine has come to `now_s`."""
        due = [pod for pod in self._starting if pod.ready_s <= now_s]
        self._starting = [pod for pod in self._starting if pod.ready_s > now_s]
        for pod in due:
            if pod.fails:
                self.pod_seconds += now_s - pod.asked_s
            else:
                self._now_ready(pod.asked_s, now_s - pod.asked_s)
        for struck in [pod for pod in self._ready if pod.fault_s <= now_s]:
            struck.fault_s = inf
            if struck.fault == "dies":
                self._ready.remove(struck)
                self._end(struck, now_s)
            else:
                speed = self._faults.slow_speed if struck.fault == "slows" else 0.0
                self._engine.set_factor(struck.pod, speed)
        self._changed()

    def want(self, pods: int, overdue: int, now_s: float) -> None:
        """Start or stop pods until `pods` are asked for; the `overdue` oldest starts are begun anew.

        Those that start are stopped first, the newest before the others; then the least loaded.
        """
        if pods == self.asked and not overdue and not self._draining:
            return
        for _ in range(min(overdue, len(self._starting))):
            self.pod_seconds += now_s - self._starting.pop(0).asked_s
        for _ in range(pods - self.asked):
            self._start(now_s)
        while self.asked > pods and self._starting:
            self.pod_seconds += now_s - self._starting.pop().asked_s
        while self.asked > pods:
            least = min(self._ready, key=lambda pod: (self._engine.held(pod.pod), -pod.pod))
            self._ready.remove(least)
            self._engine.drain(least.pod)
            self._draining.append(least)
        for drained in [pod for pod in self._draining if not self._engine.held(pod.pod)]:
            self._draining.remove(drained)
            self._end(drained, now_s)
        self._changed()

    def pod_seconds_by(self, now_s: float) -> float:
        """Pod-seconds so far, from the request to start until termination."""
        asked_s = [pod.asked_s for pod in self._starting]
        asked_s += [pod.asked_s for pod in (*self._ready, *self._draining)]
        return self.pod_seconds + now_s * len(asked_s) - sum(asked_s)

    def _changed(self) -> None:
        """Find out anew what is asked for at each tick."""
        starting_s = min([pod.ready_s for pod in self._starting], default=inf)
        self.next_event_s = min([pod.fault_s for pod in self._ready], default=inf)
        self.next_event_s = min(self.next_event_s, starting_s)
        # At zero pods the last one known stays, as in the control plane.
        started_s = [pod.start_s for pod in self._ready if pod.start_s]
        self.start_time_s = typical_start_s(started_s) or self.start_time_s

    def _drawn_start_s(self, generator: Generator) -> float:
        spread = log(1 + START_CV**2)
        return self._cold_start_s * exp(generator.normal(-spread / 2, sqrt(spread)))

    def _start(self, now_s: float) -> None:
        takes_s = self._drawn_start_s(self._starts)
        fate = self._starts.random()
        stalls = fate < self._faults.stalled_starts
        fails = not stalls and fate < self._faults.stalled_starts + self._faults.failed_starts
        self._starting.append(_Starting(now_s, inf if stalls else now_s + takes_s, fails))

    def _now_ready(self, asked_s: float, start_s: float) -> None:
        now_s = self._engine.now_s
        faults = self._faults
        kinds = {
            "dies": faults.deaths_per_hour,
            "hangs": faults.hangs_per_hour,
            "slows": faults.slow_per_hour,
        }
        fault_s, fault = inf, ""
        for kind, per_hour in kinds.items():
            at_s = now_s + self._fates.exponential(HOUR_S / per_hour) if per_hour else inf
            if at_s < fault_s:
                fault_s, fault = at_s, kind
        self._ready.append(_Ready(self._engine.add(), asked_s, start_s, fault_s, fault))

    def _end(self, pod: _Ready, now_s: float) -> None:
        self._engine.remove(pod.pod)
        self.pod_seconds += now_s - pod.asked_s
