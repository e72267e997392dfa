"""Lines to compare with, no autoscalers: a fixed number of pods, and one that knows what will come."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import ceil, sqrt

from trimtab.autoscaler.simulator.policies.base import PodTick, Setting, Tick, Wish

SPREAD = 1.3
"""How long a cold start is here, in mean ones: of starts with a spread of 20 %, 12 in 13 take less. It
is also the dip over which pods are kept: a pod that is removed and asked for again is paid for while it
starts, so that a dip not longer than a start saves nothing."""

PERIOD_S = 1.0  # `offered` is by the second

HEADROOM = 0.5
"""Slots free beyond the load, in √load. It knows the load of each second, not what happens within it:
of load + 0.5 √load slots about half of the requests find none, for a part of a service time (Halfin and
Whitt, 1981), which is not late yet."""

PATIENCE = 2.0
"""Service times over which the load is averaged: what waits for no longer than one is not late, so a
peak shorter than that may flow into the next one. At least a second."""


class Fixed:
    """Always the same number of pods, within the range."""

    def __init__(self, setting: Setting, pods: int) -> None:
        self._wish: Wish | None = Wish(min(max(pods, setting.pods_min), setting.pods_max), setting.knee)

    def step(self, tick: Tick, pods: Sequence[PodTick]) -> Wish | None:  # noqa: ARG002 - looks at nothing
        """Once, at the first tick."""
        wish, self._wish = self._wish, None
        return wish


class Clairvoyant:
    """Has the pods ready that the largest short mean of the load needs, until one cold start ahead.

    It sees as far as a start takes, and the second until it looks again: pods that are asked for so are there
    in time. One *mean* start ahead would be too short for every other pod; that line would be late for want
    of luck, and what ours loses to it would seem less than it is.

    All that it knows is `Setting.offered`, `cold_start_s` and `service_time_s`. Raises ValueError
    without `offered`.
    """

    def __init__(self, setting: Setting) -> None:
        if len(setting.offered) == 0:
            raise ValueError("clairvoyant needs Setting.offered")
        self._next_s = setting.phase_s % PERIOD_S or PERIOD_S
        self._limit = setting.knee
        self._pods = plan(setting)

    def step(self, tick: Tick, pods: Sequence[PodTick]) -> Wish | None:  # noqa: ARG002 - knows already
        """A wish each second."""
        if tick.at_s < self._next_s:
            return None
        self._next_s += PERIOD_S
        return Wish(self._pods[min(int(tick.at_s), len(self._pods) - 1)], self._limit)


def plan(setting: Setting) -> list[int]:
    """Pods to want in each second of `setting.offered`.

    The load that counts is the largest mean (over PATIENCE) that touches a second from this one, since
    what it left has to end, to one cold start ahead.
    """
    width = ceil(max(1.0, PATIENCE * setting.service_time_s))
    ahead = ceil(SPREAD * setting.cold_start_s + PERIOD_S)
    loads = _largest_ahead(_means(setting.offered, width), width, ahead)
    return [
        min(max(ceil((load + HEADROOM * sqrt(load)) / setting.knee), setting.pods_min), setting.pods_max)
        for load in loads
    ]


def _means(values: Sequence[float], width: int) -> list[float]:
    """Means over `width` values from each on; those at the end over what is left."""
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + float(value))
    last = len(values)
    ends = [min(begin + width, last) for begin in range(last)]
    return [max(0.0, sums[end] - sums[begin]) / (end - begin) for begin, end in enumerate(ends)]


def _largest_ahead(values: Sequence[float], behind: int, ahead: int) -> list[float]:
    """The largest value from `behind` before to `ahead` after each, in one pass of falling maxima."""
    falling: deque[int] = deque()
    largest: list[float] = []
    upcoming = 0
    for now in range(len(values)):
        while upcoming < min(len(values), now + ahead + 1):
            while falling and values[falling[-1]] <= values[upcoming]:
                falling.pop()
            falling.append(upcoming)
            upcoming += 1
        if falling[0] < now - behind:
            falling.popleft()
        largest.append(values[falling[0]])
    return largest
