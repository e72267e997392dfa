"""How a run went: who was late, what it cost, and how steadily.

A request is late if its latency, minus the time that it would have taken alone, exceeds 100 ms or the
mean service time, whichever is longer. Rejected and unfinished ones are late; the denominator is what
arrived after the warm-up.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from trimtab.autoscaler.simulator.load import Load, least_pod_seconds
from trimtab.autoscaler.simulator.models import Model
from trimtab.autoscaler.simulator.policies.base import Setting
from trimtab.autoscaler.simulator.timeline import Recorder

LATE_S = 0.1
BUSIEST_S = 5  # the busiest so many seconds …
LOOK_BACK_S = 60  # … of the last so many say what was needed: beyond is overshoot
HOUR_S = 3600.0
ROUNDING = 1e-9  # what the rest of a float adds to a mean is no pod


@dataclass(frozen=True)
class Score:
    """What is told of one run. Times in seconds; None where nothing finished.

    `late_share` and `rejected_share` are of the arrivals, `capped_share` is of the time: all pods that the
    range allows were wanted.
    """

    policy: str
    seed: int
    arrivals: int
    late_share: float
    rejected_share: float
    unfinished: int
    p50_s: float | None
    p99_s: float | None
    pod_hours: float
    least_pod_hours: float
    pods_peak: int
    scale_events: int
    capped_share: float
    overshoot_pods: int

    @property
    def cost(self) -> float:
        """Normalised cost: pod-hours over the least that would carry the load at the knee.

        Infinite if that is none at all: by chance nobody came.
        """
        return self.pod_hours / self.least_pod_hours if self.least_pod_hours else inf


def late(load: Load, model: Model, latencies: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which requests are late. Shape (N,)."""
    with np.errstate(invalid="ignore"):
        excess = latencies - load.demands_s * model.unloaded(1.0)
        return ~(excess <= max(LATE_S, model.service_time_s))


def score(
    label: str,
    seed: int,
    load: Load,
    model: Model,
    latencies: NDArray[np.float32],
    recorder: Recorder,
    setting: Setting,
) -> Score:
    """The score of one run."""
    first = int(np.searchsorted(load.times_s, load.warmup_s))
    seen = latencies[first:]
    finished = seen[np.isfinite(seen)]
    arrivals = seen.size
    share = 1.0 / max(1, arrivals)
    p50_s, p99_s = np.quantile(finished, [0.5, 0.99]).tolist() if finished.size else (None, None)
    return Score(
        policy=label,
        seed=seed,
        arrivals=arrivals,
        late_share=float(late(load, model, latencies)[first:].sum() * share),
        rejected_share=float(np.isinf(seen).sum() * share),
        unfinished=int(np.isnan(seen).sum()),
        p50_s=p50_s,
        p99_s=p99_s,
        pod_hours=recorder.pod_seconds / HOUR_S,
        least_pod_hours=least_pod_seconds(load, model, setting.pods_min) / HOUR_S,
        pods_peak=recorder.pods_peak,
        scale_events=recorder.scale_events,
        capped_share=recorder.capped_share,
        overshoot_pods=overshoot_pods(recorder, setting),
    )


def overshoot_pods(recorder: Recorder, setting: Setting) -> int:
    """Most pods beyond what the busiest BUSIEST_S of the last LOOK_BACK_S needed at the knee."""
    offered = np.asarray(setting.offered)
    if offered.size < BUSIEST_S:
        return 0
    means = np.convolve(offered, np.ones(BUSIEST_S) / BUSIEST_S)[: offered.size]
    ahead = np.concatenate([np.full(LOOK_BACK_S - 1, -inf), means])
    busiest = sliding_window_view(ahead, LOOK_BACK_S).max(axis=1)  # of the LOOK_BACK_S that end with each
    at_s, asked = recorder.asked
    seconds = np.minimum(at_s.astype(np.int64), means.size)
    busiest, asked = busiest[seconds[seconds > 0] - 1], asked[seconds > 0]
    needed = np.maximum(setting.pods_min, np.ceil(busiest / setting.knee - ROUNDING))
    return int(max(0, (asked - needed).max(initial=0)))
