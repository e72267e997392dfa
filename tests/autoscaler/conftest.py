"""A revision in a small model of the world: one queue, exact limits, cold starts, a signal a second."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from math import inf

import pytest

from trimtab.autoscaler.horizontal import Signals, State, Tuning, decide
from trimtab.core.decision import Decision
from trimtab.core.names import EndpointName
from trimtab.core.revision import RevisionKey
from trimtab.core.signals import RevisionSignal
from trimtab.core.spec import ConcurrencyRange

REVISION = RevisionKey(EndpointName("default", "iris"), 1)


def signal_at(at_s: float, **changed: float | str) -> RevisionSignal:
    """A quiet second of Envoy `e1`, with some fields changed."""
    given: dict[str, object] = {
        "revision": REVISION,
        "envoy": "e1",
        "period_s": 1.0,
        "arrivals": 0,
        "completions": 0,
        "rejected": 0,
        "failed": 0,
        "in_flight": 0,
        "queued": 0,
        "request_time_s": 0.0,
    }
    return RevisionSignal(at_s=at_s, **(given | changed))  # type: ignore[arg-type]


@pytest.fixture
def signal() -> Callable[..., RevisionSignal]:
    return signal_at


@pytest.fixture
def steady() -> Callable[..., tuple[RevisionSignal, ...]]:
    """Signals of a steady load that fits: `rate` requests/s of `service_s` each, from `begin_s` on."""

    def make(
        rate: float, service_s: float, begin_s: float, seconds: int, **changed: float | str
    ) -> tuple[RevisionSignal, ...]:
        each = {
            "arrivals": round(rate),
            "completions": round(rate),
            "in_flight": round(rate * service_s),
            "request_time_s": rate * service_s,
        }
        return tuple(signal_at(begin_s + i, **(each | changed)) for i in range(seconds))

    return make


@pytest.fixture
def signals() -> Callable[..., Signals]:
    def make(*revision_signals: RevisionSignal, **changed: object) -> Signals:
        given = {"ready_pods": 1, "concurrency": ConcurrencyRange(1, 1000)} | changed
        return Signals(REVISION, revision_signals, **given)  # type: ignore[arg-type]

    return make


@dataclass
class Run:
    """What became of one simulated run."""

    decisions: list[Decision] = field(default_factory=list)
    waits_s: list[float] = field(default_factory=list)

    def pods_at(self, at_s: float) -> int:
        return [d.pods for d in self.decisions if d.at_s <= at_s][-1]


@dataclass
class Revision:
    """Pods behind one first-in-first-out queue. `start_s` is a cold start, `target` the exact limit.

    All requests pass one dependency, one after another, while they are in their pods: at `shared_per_s`.
    """

    target: int = 1
    start_s: float = 2.0
    concurrency: ConcurrencyRange = field(default_factory=lambda: ConcurrencyRange(1, 100_000))
    tuning: Tuning = field(default_factory=Tuning)
    begin_cold: bool = False
    shared_per_s: float = inf

    def run(self, arrivals: Iterable[tuple[float, float]], until_s: float, phase_s: float = 0.01) -> Run:
        """Serve (time, service time) pairs, with a decision each 5 s from 5 + `phase_s` on."""
        run, state, seconds = Run(), State(), _Second()
        source: Iterator[tuple[float, float]] = iter(arrivals)
        upcoming = next(source, None)
        queue: deque[tuple[float, float]] = deque()
        busy: list[tuple[float, float]] = []  # (ends at, arrived at)
        ready = 0 if self.begin_cold else 1
        starting: list[float] = [self.start_s] if self.begin_cold else []
        fresh: list[RevisionSignal] = []
        flush_s, decide_s = 1.0, 5.0 + phase_s
        shared_s = 0.0  # when the dependency is free
        while True:
            now = min(
                flush_s,
                decide_s,
                busy[0][0] if busy else until_s + 1,
                upcoming[0] if upcoming else until_s + 1,
                starting[0] if starting else until_s + 1,
            )
            if now > until_s:
                return run
            if starting and now == starting[0]:
                starting.pop(0)
                ready += 1
            elif busy and now == busy[0][0]:
                seconds.done(now - heapq.heappop(busy)[1])
            elif upcoming and now == upcoming[0]:
                queue.append(upcoming)
                seconds.arrivals += 1
                upcoming = next(source, None)
            elif now == flush_s:
                fresh.append(seconds.flush(now, len(busy), len(queue)))
                flush_s += 1.0
            else:
                given = Signals(
                    REVISION,
                    tuple(fresh),
                    ready_pods=ready,
                    starting_ages_s=tuple(now - (at - self.start_s) for at in starting),
                    start_time_s=self.start_s,
                    target_concurrency=self.target,
                    concurrency=self.concurrency,
                )
                fresh = []
                state, decision = decide(state, given, now, self.tuning)
                run.decisions.append(decision)
                missing = decision.pods - ready - len(starting)
                starting += [now + self.start_s] * max(0, missing)
                if missing < 0:
                    ready = max(1, ready + missing)
                decide_s += 5.0
            while queue and len(busy) < ready * self.target:
                at, service = queue.popleft()
                run.waits_s.append(now - at)
                shared_s = max(shared_s, now) + 1.0 / self.shared_per_s
                heapq.heappush(busy, (max(now + service, shared_s), at))


@dataclass
class _Second:
    """Envoy's counters since the last flush."""

    arrivals: int = 0
    completions: int = 0
    request_time_s: float = 0.0

    def done(self, took_s: float) -> None:
        self.completions += 1
        self.request_time_s += took_s

    def flush(self, at_s: float, in_flight: int, queued: int) -> RevisionSignal:
        signal = signal_at(
            at_s,
            arrivals=self.arrivals,
            completions=self.completions,
            request_time_s=self.request_time_s,
            in_flight=in_flight,
            queued=queued,
        )
        self.arrivals, self.completions, self.request_time_s = 0, 0, 0.0
        return signal


@pytest.fixture
def revision() -> type[Revision]:
    return Revision
