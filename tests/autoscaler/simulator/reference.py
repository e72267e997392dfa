"""The same queue and pods as the engine's, slow and obvious: no compiled code, no virtual clock, no heap.

Every request in a pod has its own remaining work. Between two events each of them loses what its pod's
speed takes off it, one by one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf, nan

import numpy as np
from numpy.typing import NDArray


@dataclass
class Pod:
    """What a pod holds: request -> work left (s at the knee's speed)."""

    factor: float = 1.0
    drains: bool = False
    left_s: dict[int, float] = field(default_factory=dict)


class Reference:
    """Answers the same calls as `Engine`."""

    def __init__(
        self,
        times_s: NDArray[np.float64],
        demands_s: NDArray[np.float64],
        speeds: NDArray[np.float64],
        queue_max: int,
    ) -> None:
        self.times_s, self.demands_s, self.speeds = times_s.tolist(), demands_s.tolist(), speeds.tolist()
        self.queue_max = queue_max
        self.now_s = 0.0
        self.arrived = 0
        self.queue: list[int] = []
        self.pods: dict[int, Pod] = {}
        self.order: list[int] = []  # of the pods, as ties between equally loaded ones are broken
        self.latencies = [nan] * len(self.times_s)
        self.begun: list[int] = []  # requests, in the order in which they got a pod
        self.most_held = 0

    def advance(self, until_s: float, limit: int) -> None:
        self._give_out(limit)
        while (event_s := min(self._next_end_s(), self._next_arrival_s())) <= until_s:
            is_end = self._next_end_s() <= self._next_arrival_s()
            ending = min(((left, pod, request) for left, pod, request in self._ends()), default=None)
            self._pass_to(event_s)
            if is_end and ending is not None:
                _, pod, request = ending
                del self.pods[pod].left_s[request]
                self.latencies[request] = self.now_s - self.times_s[request]
            else:
                self._arrive()
            self._give_out(limit)
        self._pass_to(until_s)

    def add(self) -> int:
        number = len(self.pods)
        self.pods[number] = Pod()
        self.order.append(number)
        return number

    def drain(self, pod: int) -> None:
        self.pods[pod].drains = True

    def set_factor(self, pod: int, factor: float) -> None:
        self.pods[pod].factor = factor

    def remove(self, pod: int) -> None:
        for request in sorted(self.pods[pod].left_s, reverse=True):
            if len(self.queue) < self.queue_max:
                self.queue.insert(0, request)
            else:
                self.latencies[request] = inf
        self.pods[pod].left_s.clear()
        last = self.order.pop()
        if last != pod:
            self.order[self.order.index(pod)] = last

    def held(self, pod: int) -> int:
        return len(self.pods[pod].left_s)

    def _speed(self, pod: Pod) -> float:
        return float(self.speeds[len(pod.left_s)] * pod.factor)

    def _ends(self) -> list[tuple[float, int, int]]:
        """(seconds until it ends, pod, request) of all that will end as things are."""
        return [
            (left_s / self._speed(self.pods[number]), number, request)
            for number in self.order
            for request, left_s in self.pods[number].left_s.items()
            if self.pods[number].factor > 0
        ]

    def _next_end_s(self) -> float:
        return self.now_s + min((left_s for left_s, _, _ in self._ends()), default=inf)

    def _next_arrival_s(self) -> float:
        return float(self.times_s[self.arrived]) if self.arrived < len(self.times_s) else inf

    def _pass_to(self, now_s: float) -> None:
        for pod in self.pods.values():
            moved_s = (now_s - self.now_s) * self._speed(pod)
            for request in pod.left_s:
                pod.left_s[request] -= moved_s
        self.now_s = now_s

    def _arrive(self) -> None:
        if len(self.queue) == self.queue_max:
            self.latencies[self.arrived] = inf
        else:
            self.queue.append(self.arrived)
        self.arrived += 1

    def _give_out(self, limit: int) -> None:
        """First come, first served, to the pod that holds the fewest."""
        while self.queue:
            open_pods = [number for number in self.order if not self.pods[number].drains]
            least = min(open_pods, key=self.held, default=None)
            if least is None or self.held(least) >= limit:
                return
            request = self.queue.pop(0)
            self.pods[least].left_s[request] = self.demands_s[request]
            self.begun.append(request)
            self.most_held = max(self.most_held, self.held(least))
