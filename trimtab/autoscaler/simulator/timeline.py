"""What is written down while a run goes on, and the picture's lines made from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trimtab.autoscaler.simulator.load import Load
from trimtab.autoscaler.simulator.models import Model
from trimtab.autoscaler.simulator.policies.base import Tick

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
        self._begin_pod_s = self._end_pod_s = 0.0
        self._wanted: int | None = None  # by the tick before
        self._points: list[tuple[float, int, int, int]] = []
        self._ticks = self._capped = 0
        self.pods_peak = 0
        self.scale_events = 0
        self.asked: list[tuple[float, int]] = []  # (time, pods that are there or start), each EACH_S

    def add(self, tick: Tick, asked: int, wanted: int, most: int, pod_seconds: float) -> None:
        """One tick: pods asked for, wanted, and the most that the range allows; pod-seconds so far."""
        whole = tick.at_s % EACH_S == 0
        if whole and tick.at_s <= self._end_s:
            self._points.append((tick.at_s, tick.ready, asked, tick.queued))
        if tick.at_s <= self._warmup_s:
            self._begin_pod_s, self._wanted = pod_seconds, wanted
        elif tick.at_s <= self._end_s:
            self._end_pod_s = pod_seconds
            self._ticks += 1
            self._capped += wanted >= most
            self.pods_peak = max(self.pods_peak, asked)
            self.scale_events += self._wanted not in (None, wanted)
            self._wanted = wanted
            if whole:
                self.asked.append((tick.at_s, asked))

    @property
    def pod_seconds(self) -> float:
        """Pod-seconds between warm-up and end."""
        return self._end_pod_s - self._begin_pod_s

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
