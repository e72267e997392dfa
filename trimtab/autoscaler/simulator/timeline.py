"""What is written down while a run goes on, and the picture's lines made from it."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trimtab.autoscaler.simulator.load import Load
from trimtab.autoscaler.simulator.models import Model
from trimtab.autoscaler.simulator.policies.base import TICK_S, Tick

EACH_S = 5.0  # one point of a line

Line = NDArray[np.float64]


@dataclass(frozen=True)
class Timeline:
    """Lines of one run, a point each EACH_S, of equal length. Times from the load's begin."""

    policy: str
    at_s: Line
    offered_pods: Line  # concurrency offered, over the knee
    ready_pods: Line
    asked_pods: Line  # those that start included
    queued: Line  # requests
    late: Line  # requests that arrived in the EACH_S before and were late


class Recorder:
    """Collects the figures of a run, tick by tick. Only what lies between warm-up and end is scored."""

    def __init__(self, warmup_s: float, end_s: float) -> None:
        self._warmup_s, self._end_s = warmup_s, end_s
        self._pod_s = 0.0  # by the tick before
        self._wanted: int | None = None  # by the tick before
        self._points: list[tuple[float, int, int, int]] = []
        self._ticks = self._capped = 0
        self._asked = array("i")  # pods that are there or start, each tick
        self._asked_from_s = 0.0
        self.pod_seconds = 0.0  # between warm-up and end
        self.pods_peak = 0
        self.scale_events = 0

    def add(self, tick: Tick, asked: int, wanted: int, most: int, pod_seconds: float) -> None:
        """One tick: pods asked for, wanted, and the most that the range allows; pod-seconds so far."""
        if tick.at_s % EACH_S == 0 and tick.at_s <= self._end_s:
            self._points.append((tick.at_s, tick.ready, asked, tick.queued))
        # Of a tick in which warm-up or end lies only a part counts.
        inside_s = min(tick.at_s, self._end_s) - max(tick.at_s - TICK_S, self._warmup_s)
        self.pod_seconds += (pod_seconds - self._pod_s) * max(0.0, inside_s) / TICK_S
        self._pod_s = pod_seconds
        if tick.at_s <= self._warmup_s:
            self._wanted, self._asked_from_s = wanted, tick.at_s
        elif tick.at_s <= self._end_s:
            self._ticks += 1
            self._capped += wanted >= most
            self.pods_peak = max(self.pods_peak, asked)
            self.scale_events += self._wanted not in (None, wanted)
            self._wanted = wanted
            self._asked.append(asked)

    @property
    def asked(self) -> tuple[Line, NDArray[np.int32]]:
        """Between warm-up and end the time of each tick, and the pods that were there or started by then."""
        asked = np.array(self._asked, dtype=np.int32)
        at_s = np.arange(1, asked.size + 1, dtype=np.float64) * TICK_S
        return self._asked_from_s + at_s, asked

    @property
    def capped_share(self) -> float:
        """Share of the ticks in which all pods were wanted that the range allows."""
        return self._capped / max(1, self._ticks)

    def timeline(
        self, label: str, load: Load, model: Model, is_late: NDArray[np.bool_], offered: Line
    ) -> Timeline:
        """The lines of the picture. `offered`: concurrency in each second."""
        at_s, ready, asked, queued = np.array(self._points, dtype=np.float64).reshape(-1, 4).T
        edges = np.arange(at_s.size + 1) * EACH_S
        late, _ = np.histogram(load.times_s[is_late], edges)
        sums = np.concatenate([[0.0], np.cumsum(offered)])
        marks = sums[np.minimum(edges.astype(int), offered.size)]
        return Timeline(
            policy=label,
            at_s=at_s,
            offered_pods=np.diff(marks) / EACH_S / model.knee,
            ready_pods=ready,
            asked_pods=asked,
            queued=queued,
            late=late.astype(np.float64),
        )
