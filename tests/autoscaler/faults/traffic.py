"""Requests as a fluid through one queue and exact limits, and the Envoys that tell of them each second.

Between whole seconds the number of requests present, N, follows dN/dt = arrivals - min(N, slots) / service
time: exponential below the slots, straight above them. Counts are whole numbers; what is left of a fraction
comes with the next second. This keeps a second at a few microseconds; single requests do not matter here.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from math import exp, log, sqrt

from tests.autoscaler.faults.load import poisson

SUBSTEPS = 4
QUEUE_MAX = 1000  # beyond it requests are rejected, as Envoy does


@dataclass
class Envoy:
    """One Envoy, its share of the traffic, and what it has not yet told of it."""

    name: str
    weight: float
    phase_s: float  # of its flushes within the second
    mute_until_s: float = 0.0
    left: list[float] = field(default_factory=lambda: [0.0] * 3)


@dataclass(frozen=True)
class Second:
    """What was true of one second, all Envoys together."""

    arrivals: int
    completions: int
    rejected: int
    in_flight: int
    queued: int
    each_s: float  # mean time of the completed requests, their wait included

    def of(self, envoy: Envoy, begin: float, end: float) -> tuple[int, int, int, int, int, float]:
        """What an Envoy saw of it whose share of the traffic is from `begin` to `end`, of 0 to 1.

        Whole numbers: of sums, what is left of a fraction comes later; of gauges, all Envoys have all.
        """
        left, share, told = envoy.left, end - begin, []
        for index, count in enumerate((self.arrivals, self.completions, self.rejected)):
            exact = count * share + left[index]
            told.append(int(exact + 1e-9))
            left[index] = exact - told[-1]
        in_flight, queued = [round(n * end) - round(n * begin) for n in (self.in_flight, self.queued)]
        return told[0], told[1], told[2], in_flight, queued, told[1] * self.each_s


@dataclass
class Traffic:
    """Requests present, served by `slots`. `retry`: the share of rejected ones that come again at once."""

    rng: random.Random
    service_s: float
    spread: float  # of service times, over their mean
    retry: float
    slow: float = 1.0  # how many times longer than `service_s` a request takes now
    present: float = 0.0
    again: float = 0.0
    left: float = 0.0

    def tick(self, load: float, slots: int, hung_slots: int) -> Second:
        """One second with this load (concurrent requests, were none delayed)."""
        service_s = self.service_s * self.slow
        arrivals = poisson(self.rng, load / self.service_s)
        offered = arrivals + int(self.again)
        before = self.present
        self.present = self._flow(before, offered, slots, service_s)
        rejected = min(offered, max(0, int(self.present - slots - QUEUE_MAX)))
        self.present -= rejected
        self.again = rejected * self.retry
        accepted = offered - rejected
        exact = max(0.0, before + accepted - self.present + self.left)
        completions = int(exact)
        self.left = exact - completions
        flying = min(self.present, slots)
        in_flight = min(slots, poisson(self.rng, flying)) if flying < slots else slots
        queued = max(0, round(self.present - slots))
        each_s = service_s + (max(0.0, before - slots) * service_s / slots if slots else 0.0)
        noise = self.rng.gauss(0.0, self.spread / sqrt(completions)) if completions else 0.0
        each_s *= max(0.1, 1.0 + noise)
        return Second(accepted, completions, rejected, in_flight + hung_slots, queued, each_s)

    def give_up(self, slots: int) -> None:
        """Whoever waits has gone: a backlog of hours says nothing about what comes to rest."""
        self.present, self.again = min(self.present, slots), 0.0

    @staticmethod
    def _flow(present: float, arrivals: int, slots: int, service_s: float) -> float:
        """Requests present a second later."""
        step_s = 1.0 / SUBSTEPS
        kept = exp(-step_s / service_s)
        level = arrivals * service_s
        drained = slots * step_s / service_s
        for _ in range(SUBSTEPS):
            if present < slots < level:  # on the way to what does not fit
                full_s = service_s * log((level - present) / (level - slots))
                over_s = step_s - full_s
                grown = slots + over_s * (arrivals - slots / service_s)
                present = grown if over_s > 0 else level + (present - level) * kept
            elif present <= slots and level <= slots:
                present = level + (present - level) * kept
            else:
                present = max(min(level, slots), present + arrivals * step_s - drained)
        return present
