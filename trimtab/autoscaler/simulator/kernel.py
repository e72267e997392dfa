"""The compiled part: one first-in-first-out queue, an exact limit per pod, the least loaded pod first.

Each pod shares what it can do among the requests that it holds: with n in flight each of them runs at
`speeds[n]` of the speed that it has at the knee. Within a pod all requests run equally fast, so a pod
needs one virtual clock, and a request ends when that clock reaches its begin plus its demand
(processor sharing in virtual time: Kleinrock, 1967).

Compiled by numba. Arrays are passed one by one and rows are never sliced: each copy of a reference to an
array inside the loop is an atomic count, and those alone would cost more than the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import NamedTuple, ParamSpec, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

P = ParamSpec("P")
R = TypeVar("R")

CLOSED = 1 << 40  # added to the load of a pod that takes no requests: more than any limit

NEXT, HEAD, QUEUED, IN_FLIGHT, ARRIVALS, COMPLETIONS, REJECTED, LIVE = range(8)  # in Arrays.counts
NOW, IN_FLIGHT_S, QUEUED_S, REQUEST_TIME_S = range(4)  # in Arrays.sums
CLOCK, MOVED, FACTOR, HELD_S, WORK_S, DONE, DONE_S = range(7)  # columns of Arrays.pods


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, compiled when it is first called, for the types that it is then called with.

    What was compiled is kept in NUMBA_CACHE_DIR, beside this file or in the user's cache, where the first of
    these can be written, and made anew when this file changes. Where none can be written, as in
    a container with a read-only root, each process compiles for itself, which takes seconds.
    """
    try:
        kept: Callable[P, R] = njit(cache=True)(function)
    except RuntimeError:  # numba's word for: nowhere to keep it
        kept = njit()(function)
    return kept


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


@compiled
def bring_forward(pods: Floats, pod: int, held: int, speed: float, now: float) -> None:
    """Move one pod's virtual clock to `now`; `speed` is that of each of its `held` requests."""
    passed = now - pods[pod, MOVED]
    moved = passed * speed * pods[pod, FACTOR]
    pods[pod, CLOCK] += moved
    pods[pod, WORK_S] += moved * held
    pods[pod, HELD_S] += passed * held
    pods[pod, MOVED] = now


@compiled
def bring_all_forward(pods: Floats, held: Ints, speeds: Floats, live: int, now: float) -> None:
    """The same for every pod."""
    for pod in range(live):
        bring_forward(pods, pod, held[pod], speeds[held[pod]], now)


@compiled
def next_due(pods: Floats, ends: Floats, pod: int, held: int, speed: float) -> float:
    """When the next request of a pod ends, its clock being up to date."""
    speed *= pods[pod, FACTOR]
    if held == 0 or speed <= 0.0:
        return inf
    return float(pods[pod, MOVED] + max(0.0, ends[pod, 0] - pods[pod, CLOCK]) / speed)


@compiled
def _push(
    ends: Floats, who: Ints, begun: Floats, pod: int, at: int, end: float, request: int, now: float
) -> None:
    """Add a request to the heap of a pod that held `at` requests before."""
    while at > 0:
        parent = (at - 1) >> 1
        if ends[pod, parent] <= end:
            break
        ends[pod, at], who[pod, at], begun[pod, at] = ends[pod, parent], who[pod, parent], begun[pod, parent]
        at = parent
    ends[pod, at], who[pod, at], begun[pod, at] = end, request, now


@compiled
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


@compiled
def _least_loaded(held: Ints, closed: Ints, live: int, limit: int) -> int:
    """The pod with the fewest requests in flight, if that is below the limit; else -1."""
    best, fewest = -1, limit
    for pod in range(live):
        load = held[pod] + closed[pod]
        if load < fewest:
            best, fewest = pod, load
    return best


@compiled
def _soonest(due: Floats, live: int) -> int:
    """The pod whose next request ends first; 0 if there is no pod."""
    best = 0
    for pod in range(1, live):
        if due[pod] < due[best]:
            best = pod
    return best


@compiled
def _pass_to(counts: Ints, sums: Floats, now: float) -> None:
    """Let time pass for the sums."""
    passed = now - sums[NOW]
    sums[IN_FLIGHT_S] += passed * counts[IN_FLIGHT]
    sums[QUEUED_S] += passed * counts[QUEUED]
    sums[NOW] = now


@compiled
def _give(  # noqa: PLR0913, PLR0917 -- arrays one by one: see above
    demands: Floats,
    speeds: Floats,
    counts: Ints,
    sums: Floats,
    held: Ints,
    due: Floats,
    pods: Floats,
    ends: Floats,
    who: Ints,
    begun: Floats,
    pod: int,
    request: int,
) -> None:
    """A request begins in a pod."""
    now, at = sums[NOW], held[pod]
    bring_forward(pods, pod, at, speeds[at], now)
    _push(ends, who, begun, pod, at, pods[pod, CLOCK] + demands[request], request, now)
    held[pod] = at + 1
    counts[IN_FLIGHT] += 1
    due[pod] = next_due(pods, ends, pod, held[pod], speeds[held[pod]])


@compiled
def _end_next(  # noqa: PLR0913, PLR0917
    times: Floats,
    latencies: NDArray[np.float32],
    speeds: Floats,
    counts: Ints,
    sums: Floats,
    held: Ints,
    due: Floats,
    pods: Floats,
    ends: Floats,
    who: Ints,
    begun: Floats,
    pod: int,
) -> None:
    """The next request of a pod ends now."""
    now = sums[NOW]
    bring_forward(pods, pod, held[pod], speeds[held[pod]], now)
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
    due[pod] = next_due(pods, ends, pod, held[pod], speeds[held[pod]])


@compiled
def _arrive(latencies: NDArray[np.float32], ring: Ints, counts: Ints) -> None:
    """The next request of the load joins the queue, or is rejected if that is full."""
    request = counts[NEXT]
    counts[NEXT] += 1
    if counts[QUEUED] == ring.size:
        counts[REJECTED] += 1
        latencies[request] = inf
        return
    counts[ARRIVALS] += 1
    ring[(counts[HEAD] + counts[QUEUED]) % ring.size] = request
    counts[QUEUED] += 1


@compiled
def advance(a: Arrays, until: float, limit: int) -> None:
    """Let everything happen up to `until`."""
    times, demands, latencies, speeds, ring, counts, sums, held, closed, due, pods, ends, who, begun = a
    while True:
        while counts[QUEUED] > 0:
            pod = _least_loaded(held, closed, counts[LIVE], limit)
            if pod < 0:
                break
            request = ring[counts[HEAD]]
            counts[HEAD] = (counts[HEAD] + 1) % ring.size
            counts[QUEUED] -= 1
            _give(demands, speeds, counts, sums, held, due, pods, ends, who, begun, pod, request)
        pod = _soonest(due, counts[LIVE])
        soonest = due[pod] if counts[LIVE] > 0 else inf
        arrival = times[counts[NEXT]] if counts[NEXT] < times.size else inf
        now = min(soonest, arrival)
        if now > until:
            break
        _pass_to(counts, sums, now)
        if soonest <= arrival:
            _end_next(times, latencies, speeds, counts, sums, held, due, pods, ends, who, begun, pod)
        else:
            _arrive(latencies, ring, counts)
    _pass_to(counts, sums, until)


def empty(times_s: Floats, demands_s: Floats, speeds: Floats, queue_max: int) -> Arrays:
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


def doubled(a: Arrays) -> Arrays:
    """The same with room for twice as many pods."""
    return a._replace(
        **{name: np.concatenate([getattr(a, name), np.zeros_like(getattr(a, name))]) for name in _BY_POD}
    )


_BY_POD = Arrays._fields[Arrays._fields.index("held") :]
