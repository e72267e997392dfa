"""Pods of a known model in a closed loop with `decide_limit`: exact limits, shared processors, real noise.

A pod with n in flight completes `rate(n)` requests of mean cost per second, shared equally among them. The
truth about a limit is therefore `rate(limit)`, and the best limit is found by trying them all.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from math import inf

import numpy as np

from tests.autoscaler.vertical.models import Costs, Rate, lognormal
from trimtab.autoscaler.vertical import LimitSignals, LimitState, decide_limit
from trimtab.core.decision import LimitDecision
from trimtab.core.names import EndpointName
from trimtab.core.revision import RevisionKey
from trimtab.core.signals import PodSignal, RevisionSignal

REVISION = RevisionKey(EndpointName("default", "iris"), 1)
PERIOD_S, WINDOW_S = 5.0, 30.0


@dataclass
class Pod:
    """Requests in flight, each with the same share of the pod."""

    name: str
    rate: Rate
    work: float = 0.0  # done for each request since the beginning
    jobs: list[tuple[float, float, float]] = field(default_factory=list)  # (work at its end, began, came)
    completions: int = 0
    request_time_s: float = 0.0
    in_flight_s: float = 0.0
    failing: bool = False

    def speed(self) -> float:
        return self.rate(len(self.jobs)) / len(self.jobs) if self.jobs else 0.0

    def next_s(self, now_s: float) -> float:
        return now_s + max(0.0, self.jobs[0][0] - self.work) / self.speed() if self.jobs else inf

    def advance(self, span_s: float) -> None:
        self.work += self.speed() * span_s
        self.in_flight_s += len(self.jobs) * span_s


@dataclass
class World:
    """Pods behind one queue. `offered_per_s` None: there are always requests waiting."""

    rate: Rate
    costs: Costs = field(default_factory=lambda: lognormal(0.3))
    pods: int = 1
    limit: int = 1
    seed: int = 1
    offered_per_s: float | None = None
    ceiling: int = 1000
    floor: int = 1
    cores: float = 4.0
    memory_limit_bytes: float = 0.0
    cost: float = 1.0  # of every request: a poisonous minute has 100
    now_s: float = 0.0
    metrics: Callable[[int, float], dict[str, object]] = lambda limit, in_flight: {}
    pods_report: bool = True
    hop_s: float = 0.0  # of each request's time that no pod sees: between it and Envoy
    times_s: list[float] = field(default_factory=list)  # of each request, with its wait in the queue

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.fleet = [Pod(f"iris-{i}", self.rate) for i in range(self.pods)]
        self.queue: deque[float] = deque()
        self.draws = self._draws()
        self.next_arrival_s = self._gap() if self.offered_per_s else inf

    def _draws(self) -> Iterator[float]:
        while True:
            yield from self.costs(self.rng, 4096).tolist()

    def _gap(self) -> float:
        assert self.offered_per_s
        return self.now_s + float(self.rng.exponential(1 / self.offered_per_s))

    def _admit(self) -> None:
        for pod in self.fleet if self.offered_per_s is None else ():
            while len(pod.jobs) < self.limit:
                self._begin(pod, self.now_s)
        while self.queue:
            pod = min(self.fleet, key=lambda each: len(each.jobs))
            if len(pod.jobs) >= self.limit:
                break
            self._begin(pod, self.queue.popleft())

    def _begin(self, pod: Pod, came_s: float) -> None:
        heapq.heappush(pod.jobs, (pod.work + next(self.draws) * self.cost, self.now_s, came_s))

    def run_to(self, until_s: float) -> None:
        self._admit()
        while True:
            ends = [pod.next_s(self.now_s) for pod in self.fleet]
            next_s = min(*ends, self.next_arrival_s, until_s)
            for pod in self.fleet:
                pod.advance(next_s - self.now_s)
            self.now_s = next_s
            if next_s == until_s:
                return
            if next_s == self.next_arrival_s:
                self.queue.append(next_s)
                self.next_arrival_s = self._gap()
            else:
                pod = self.fleet[ends.index(next_s)]
                _, began_s, came_s = heapq.heappop(pod.jobs)
                pod.completions += 1
                pod.request_time_s += next_s - began_s
                self.times_s.append(next_s - came_s)
            self._admit()

    def window(self) -> LimitSignals:
        """The next 30 s."""
        pods, envoys = [], []
        for _ in range(round(WINDOW_S / PERIOD_S)):
            envoys += [self._second() for _ in range(round(PERIOD_S))]
            for pod in self.fleet:
                on_the_way_s = self.hop_s * pod.completions
                in_flight = (pod.in_flight_s - on_the_way_s) / PERIOD_S
                given = self.metrics(self.limit, in_flight)
                pods.append(
                    PodSignal(
                        REVISION,
                        pod.name,
                        self.now_s,
                        PERIOD_S,
                        in_flight=in_flight,
                        completions=float(pod.completions),
                        request_time_s=pod.request_time_s - on_the_way_s,
                        failed=0.9 * pod.completions if pod.failing else None,
                        **given,  # type: ignore[arg-type]
                    )
                )
                pod.completions, pod.request_time_s, pod.in_flight_s = 0, 0.0, 0.0
        return LimitSignals(
            REVISION,
            tuple(pods) if self.pods_report else (),
            tuple(envoys),
            ready_pods=self.pods,
            limit=self.limit,
            cores=self.cores,
            memory_limit_bytes=self.memory_limit_bytes,
            floor=self.floor,
            ceiling=self.ceiling,
        )

    def _second(self) -> RevisionSignal:
        """The next second, as Envoy sees it."""
        done = sum(pod.completions for pod in self.fleet)
        spent_s = sum(pod.request_time_s for pod in self.fleet)
        self.run_to(self.now_s + 1.0)
        done = sum(pod.completions for pod in self.fleet) - done
        spent_s = sum(pod.request_time_s for pod in self.fleet) - spent_s
        held = sum(len(pod.jobs) for pod in self.fleet)
        queued = len(self.queue) if self.offered_per_s else 50
        return RevisionSignal(REVISION, "e1", self.now_s, 1.0, done, done, 0, 0, held, queued, spent_s)

    def best(self) -> tuple[int, float]:
        """The smallest limit that reaches 97 % of the best throughput, by trying all; and that best one."""
        rates = [self.rate(n) for n in range(self.floor, self.ceiling + 1)]
        return next(self.floor + i for i, x in enumerate(rates) if x >= 0.97 * max(rates)), max(rates)


@dataclass
class Loop:
    """`decide_limit` and a world, closed."""

    world: World
    state: LimitState = field(default_factory=LimitState)
    decisions: list[LimitDecision] = field(default_factory=list)
    states: list[LimitState] = field(default_factory=list)

    def run(self, windows: int, change: Callable[[LimitSignals], LimitSignals] = lambda s: s) -> Loop:
        for _ in range(windows):
            signals = change(self.world.window())
            self.state, decision = decide_limit(self.state, signals, self.world.now_s)
            self.world.limit = decision.limit
            self.decisions.append(decision)
            self.states.append(self.state)
        return self

    def onboard(self, most: int = 60) -> Loop:
        """Until it rests."""
        while self.state.phase != "resting" and len(self.decisions) < most:
            self.run(1)
        return self

    @property
    def limit(self) -> int:
        return self.world.limit

    def limits(self) -> list[int]:
        return [decision.limit for decision in self.decisions]

    def changes(self, last: int) -> int:
        return sum(1 for d in self.decisions[-last:] if d.limit != d.limit_before)

    def rate_share(self) -> float:
        """Throughput at the limit, as a share of the best one."""
        return self.world.rate(self.limit) / self.world.best()[1]

    def latency_share(self) -> float:
        """Time per request at the limit over that at the best limit."""
        best = self.world.best()[0]
        return (self.limit / self.world.rate(self.limit)) / (best / self.world.rate(best))


def replaced(signals: LimitSignals, **changed: object) -> LimitSignals:
    """The signals with some fields of each pod's changed."""
    pods = tuple(replace(each, **changed) for each in signals.pod_signals)  # type: ignore[arg-type]
    return replace(signals, pod_signals=pods)
