"""The queue and the pods: one first-in-first-out queue, an exact limit per pod, the least loaded pod first.

Each pod shares what it can do among the requests that it holds: with n in flight each of them runs at
`speeds[n]` of the speed that it has at the knee. Within a pod all requests run equally fast, so a pod
needs one virtual clock, and a request ends when that clock reaches its begin plus its demand
(processor sharing in virtual time: Kleinrock, 1967).

Compiled by numba. Arrays are passed one by one and rows are never sliced: each copy of a reference to an
array inside the loop is an atomic count, and those alone would cost more than the rest.
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CLOSED = 1 << 40  # added to the load of a pod that takes no requests: more than any limit

NEXT, HEAD, QUEUED, IN_FLIGHT, ARRIVALS, COMPLETIONS, REJECTED, LIVE = range(8)  # in Arrays.counts
NOW, IN_FLIGHT_S, QUEUED_S, REQUEST_TIME_S = range(4)  # in Arrays.sums
CLOCK, MOVED, FACTOR, HELD_S, WORK_S, DONE, DONE_S = range(7)  # columns of Arrays.pods


class Arrays(NamedTuple):
    """All that the compiled part works on. P pods at most, each with L requests at most, N in the load.

    The columns of `pods`: its virtual clock, when that was last brought forward, its own speed (1 as it
    should be, 0 hangs); then sums since it was added: request-seconds, work in seconds at the knee's
    speed, completions, and their time in the pod.
    """

    times: Floats  # (N,) when each request arrives (s), rising
    demands: Floats  # (N,) service time of each at the knee's speed (s)
    latencies: NDArray[np.float32]  # (N,) s; NaN: not finished; infinite: rejected
    speeds: Floats  # (L + 1,) speed of each request with so many in flight; 1 at the knee
    ring: Ints  # (queue_max,) requests that wait
    counts: Ints
    sums: Floats
    held: Ints  # (P,) requests in flight; the first `counts[LIVE]` pods are there
    closed: Ints  # (P,) 0 while the pod takes requests, CLOSED while it drains
    due: Floats  # (P,) when the next of its requests ends (s)
    pods: Floats  # (P, 7)
    ends: Floats  # (P, L) heap: virtual time at which a request ends
    who: Ints  # (P, L) which request
    begun: Floats  # (P, L) when it began (s)


@njit(cache=True)
def _bring_forward(pods: Floats, pod: int, held: int, speed: float, now: float) -> None:
    """Move one pod's virtual clock to `now`; `speed` is that of each of its `held` requests."""
    passed = now - pods[pod, MOVED]
    moved = passed * speed * pods[pod, FACTOR]
    pods[pod, CLOCK] += moved
    pods[pod, WORK_S] += moved * held
    pods[pod, HELD_S] += passed * held
    pods[pod, MOVED] = now


@njit(cache=True)
def _next_due(pods: Floats, ends: Floats, pod: int, held: int, speed: float) -> float:
    """When the next request of a pod ends, its clock being up to date."""
    speed *= pods[pod, FACTOR]
    if held == 0 or speed <= 0.0:
        return inf
    return float(pods[pod, MOVED] + max(0.0, ends[pod, 0] - pods[pod, CLOCK]) / speed)


@njit(cache=True)
def _push(ends: Floats, who: Ints, begun: Floats, pod: int, at: int, end: float, request: int, now: float) -> None:
    """Add a request to the heap of a pod that held `at` requests before."""
    while at > 0:
        parent = (at - 1) >> 1
        if ends[pod, parent] <= end:
            break
        ends[pod, at], who[pod, at], begun[pod, at] = ends[pod, parent], who[pod, parent], begun[pod, parent]
        at = parent
    ends[pod, at], who[pod, at], begun[pod, at] = end, request, now


@njit(cache=True)
def _pop(ends: Floats, who: Ints, begun: Floats, pod: int, last: int) -> None:
    """Take the first request off the heap of a pod, which has `last` requests afterwards."""
    end, request, since = ends[pod, last], who[pod, last], begun[pod, last]
    at = 0
    while True:
        child = 2 * at + 1
        if child >= last:
            break
        if child + 1 < last and ends[pod, child + 1] < ends[pod, child]:
            child += 1
        if ends[pod, child] >= end:
            break
        ends[pod, at], who[pod, at], begun[pod, at] = ends[pod, child], who[pod, child], begun[pod, child]
        at = child
    ends[pod, at], who[pod, at], begun[pod, at] = end, request, since


@njit(cache=True)
def _least_loaded(held: Ints, closed: Ints, live: int, limit: int) -> int:
    """The pod with the fewest requests in flight, if that is below the limit; else -1."""
    best, fewest = -1, limit
    for pod in range(live):
        load = held[pod] + closed[pod]
        if load < fewest:
            best, fewest = pod, load
    return best


@njit(cache=True)
def _soonest(due: Floats, live: int) -> int:
    """The pod whose next request ends first; 0 if there is no pod."""
    best = 0
    for pod in range(1, live):
        if due[pod] < due[best]:
            best = pod
    return best


@njit(cache=True)
def _pass_to(counts: Ints, sums: Floats, now: float) -> None:
    """Let time pass for the sums."""
    passed = now - sums[NOW]
    sums[IN_FLIGHT_S] += passed * counts[IN_FLIGHT]
    sums[QUEUED_S] += passed * counts[QUEUED]
    sums[NOW] = now


@njit(cache=True)
def _advance(a: Arrays, until: float, limit: int) -> None:
    """Let everything happen up to `until`."""
    times, demands, latencies, speeds, ring, counts, sums, held, closed, due, pods, ends, who, begun = a
    request = -1  # that needs a pod now
    pod = -1  # that has room now
    while True:
        if counts[QUEUED] > 0 and request < 0:
            pod = _least_loaded(held, closed, counts[LIVE], limit)
            if pod >= 0:
                request = ring[counts[HEAD]]
                counts[HEAD] = (counts[HEAD] + 1) % ring.size
                counts[QUEUED] -= 1
        if request >= 0:
            _bring_forward(pods, pod, held[pod], speeds[held[pod]], sums[NOW])
            _push(ends, who, begun, pod, held[pod], pods[pod, CLOCK] + demands[request], request, sums[NOW])
            held[pod] += 1
            counts[IN_FLIGHT] += 1
            due[pod] = _next_due(pods, ends, pod, held[pod], speeds[held[pod]])
            request = -1
            continue
        pod = _soonest(due, counts[LIVE])
        soonest = due[pod] if counts[LIVE] > 0 else inf
        arrival = times[counts[NEXT]] if counts[NEXT] < times.size else inf
        now = min(soonest, arrival)
        if now > until:
            break
        _pass_to(counts, sums, now)
        if soonest <= arrival:
            _bring_forward(pods, pod, held[pod], speeds[held[pod]], now)
            latency = now - times[who[pod, 0]]
            latencies[who[pod, 0]] = latency
            sums[REQUEST_TIME_S] += latency
            counts[COMPLETIONS] += 1
            counts[IN_FLIGHT] -= 1
            pods[pod, CLOCK] = max(pods[pod, CLOCK], ends[pod, 0])
            pods[pod, DONE] += 1
            pods[pod, DONE_S] += now - begun[pod, 0]
            held[pod] -= 1
            _pop(ends, who, begun, pod, held[pod])
            due[pod] = _next_due(pods, ends, pod, held[pod], speeds[held[pod]])
        else:
            arrived = counts[NEXT]
            counts[NEXT] += 1
            if counts[QUEUED] == ring.size:
                counts[REJECTED] += 1
                latencies[arrived] = inf
                continue
            counts[ARRIVALS] += 1
            pod = _least_loaded(held, closed, counts[LIVE], limit) if counts[QUEUED] == 0 else -1
            if pod >= 0:
                request = arrived
            else:
                ring[(counts[HEAD] + counts[QUEUED]) % ring.size] = arrived
                counts[QUEUED] += 1
    _pass_to(counts, sums, until)


class Engine:
    """The compiled queue with the pods that come and go. Times in seconds from the load's begin."""

    def __init__(self, times_s: Floats, demands_s: Floats, speeds: Floats, queue_max: int) -> None:
        self._a = _empty(times_s, demands_s, speeds, queue_max)
        self._ids: list[int] = []  # of the pod in each row
        self._next_id = 0

    @property
    def now_s(self) -> float:
        """How far the run has come."""
        return float(self._a.sums[NOW])

    @property
    def counts(self) -> list[int]:
        """Running counts, by the indices at the top of this module."""
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
        _advance(self._a, until_s, min(limit, self.limit_max))

    def add(self) -> int:
        """A pod is ready now: its number, never used again."""
        if len(self._ids) == self._a.held.size:
            self._a = _doubled(self._a)
        a, row = self._a, len(self._ids)
        a.held[row], a.closed[row], a.due[row] = 0, 0, inf
        a.pods[row] = 0.0
        a.pods[row, FACTOR], a.pods[row, MOVED] = 1.0, self.now_s
        a.counts[LIVE] += 1
        self._ids.append(self._next_id)
        self._next_id += 1
        return self._ids[row]

    def held(self, pod: int) -> int:
        """Requests that a pod holds."""
        return int(self._a.held[self._ids.index(pod)])

    def drain(self, pod: int) -> None:
        """A pod takes no new request."""
        self._a.closed[self._ids.index(pod)] = CLOSED

    def set_factor(self, pod: int, factor: float) -> None:
        """A pod becomes slower than it should be, hangs (0), or recovers (1)."""
        a, row = self._a, self._brought_forward(pod)
        a.pods[row, FACTOR] = factor
        a.due[row] = _next_due(a.pods, a.ends, row, a.held[row], a.speeds[a.held[row]])

    def remove(self, pod: int) -> None:
        """A pod is gone. What it held waits again, before all others."""
        a, row, last = self._a, self._ids.index(pod), len(self._ids) - 1
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
        self._ids[row] = self._ids[last]
        self._ids.pop()

    def pod_sums(self, pod: int) -> tuple[float, float, int, float]:
        """Since the pod was added: request-seconds, work (s), completions, their time in the pod (s)."""
        held_s, work_s, done, done_s = self._a.pods[self._brought_forward(pod), HELD_S:].tolist()
        return held_s, work_s, int(done), done_s

    def _brought_forward(self, pod: int) -> int:
        """The pod's row, its virtual clock being up to date."""
        a, row = self._a, self._ids.index(pod)
        _bring_forward(a.pods, row, a.held[row], a.speeds[a.held[row]], self.now_s)
        return row


def _empty(times_s: Floats, demands_s: Floats, speeds: Floats, queue_max: int) -> Arrays:
    pods, most = 32, speeds.size - 1
    return Arrays(
        times=times_s,
        demands=demands_s,
        latencies=np.full(times_s.size, np.nan, np.float32),
        speeds=speeds,
        ring=np.zeros(queue_max, np.int64),
        counts=np.zeros(LIVE + 1, np.int64),
        sums=np.zeros(REQUEST_TIME_S + 1),
        held=np.zeros(pods, np.int64),
        closed=np.zeros(pods, np.int64),
        due=np.full(pods, inf),
        pods=np.zeros((pods, DONE_S + 1)),
        ends=np.zeros((pods, most)),
        who=np.zeros((pods, most), np.int64),
        begun=np.zeros((pods, most)),
    )


def _doubled(a: Arrays) -> Arrays:
    """The same with room for twice as many pods."""
    return a._replace(
        **{name: np.concatenate([getattr(a, name), np.zeros_like(getattr(a, name))]) for name in _BY_POD}
    )


_BY_POD = Arrays._fields[Arrays._fields.index("held") :]
