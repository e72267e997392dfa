"""The queue with the pods that come and go: what the compiled part (see `kernel`) does not do itself."""

from __future__ import annotations

from math import inf

import numpy as np
from numpy.typing import NDArray

from trimtab.autoscaler.simulator.kernel import (
    CLOSED,
    FACTOR,
    HEAD,
    HELD_S,
    IN_FLIGHT,
    LIVE,
    MOVED,
    NOW,
    QUEUED,
    Floats,
    advance,
    bring_all_forward,
    bring_forward,
    doubled,
    empty,
    next_due,
)

PodSums = tuple[float, float, float, float]
"""Of one pod: request-seconds, work (s), completions, their time in the pod (s)."""


class Engine:
    """The compiled queue with the pods that come and go. Times in seconds from the load's begin."""

    def __init__(self, times_s: Floats, demands_s: Floats, speeds: Floats, queue_max: int) -> None:
        self._a = empty(times_s, demands_s, speeds, queue_max)
        self._ids: list[int] = []  # of the pod in each row
        self._rows: dict[int, int] = {}  # and the row of each pod
        self._next_id = 0

    @property
    def now_s(self) -> float:
        """How far the run has come."""
        return float(self._a.sums[NOW])

    @property
    def counts(self) -> list[int]:
        """Running counts, by the indices at the top of `kernel`."""
        counts: list[int] = self._a.counts.tolist()
        return counts

    @property
    def sums(self) -> list[float]:
        """Running sums, likewise."""
        sums: list[float] = self._a.sums.tolist()
        return sums

    @property
    def latencies(self) -> NDArray[np.float32]:
        """Each request's latency (s): NaN while unfinished, infinite if rejected."""
        return self._a.latencies

    @property
    def limit_max(self) -> int:
        """The most requests that one pod can hold here."""
        return self._a.speeds.size - 1

    def advance(self, until_s: float, limit: int) -> None:
        """Let everything happen up to `until_s`; a pod that holds `limit` gets no more."""
        advance(self._a, until_s, min(limit, self.limit_max))

    def add(self) -> int:
        """A pod is ready now: its number, never used again."""
        if len(self._ids) == self._a.held.size:
            self._a = doubled(self._a)
        a, row = self._a, len(self._ids)
        a.held[row], a.closed[row], a.due[row] = 0, 0, inf
        a.pods[row] = 0.0
        a.pods[row, FACTOR], a.pods[row, MOVED] = 1.0, self.now_s
        a.counts[LIVE] += 1
        self._ids.append(self._next_id)
        self._rows[self._next_id] = row
        self._next_id += 1
        return self._ids[row]

    def held(self, pod: int) -> int:
        """Requests that a pod holds."""
        return int(self._a.held[self._rows[pod]])

    def drain(self, pod: int) -> None:
        """A pod takes no new request."""
        self._a.closed[self._rows[pod]] = CLOSED

    def set_factor(self, pod: int, factor: float) -> None:
        """A pod becomes slower than it should be, hangs (0), or recovers (1)."""
        a, row = self._a, self._rows[pod]
        bring_forward(a.pods, row, a.held[row], a.speeds[a.held[row]], self.now_s)
        a.pods[row, FACTOR] = factor
        a.due[row] = next_due(a.pods, a.ends, row, a.held[row], a.speeds[a.held[row]])

    def remove(self, pod: int) -> None:
        """A pod is gone. What it held waits again, before all others; what the queue has no room for is lost.

        What is lost has an infinite latency, as if rejected, but does not count in REJECTED: it was accepted.
        """
        a, row, last = self._a, self._rows.pop(pod), len(self._ids) - 1
        lost = sorted(a.who[row, : a.held[row]].tolist(), reverse=True)
        a.counts[IN_FLIGHT] -= len(lost)
        for request in lost:
            if a.counts[QUEUED] == a.ring.size:
                a.latencies[request] = inf
                continue
            a.counts[HEAD] = (a.counts[HEAD] - 1) % a.ring.size
            a.ring[a.counts[HEAD]] = request
            a.counts[QUEUED] += 1
        for values in (a.held, a.closed, a.due, a.pods, a.ends, a.who, a.begun):
            values[row] = values[last]
        a.counts[LIVE] -= 1
        moved = self._ids.pop()
        if row != last:
            self._ids[row] = moved
            self._rows[moved] = row

    def pod_sums(self) -> dict[int, PodSums]:
        """What each pod did since it was added, those that drain included."""
        a, live = self._a, len(self._ids)
        bring_all_forward(a.pods, a.held, a.speeds, live, self.now_s)
        return dict(zip(self._ids, map(tuple, a.pods[:live, HELD_S:].tolist()), strict=True))
