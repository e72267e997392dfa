"""Knative's pod autoscaler (KPA), re-created: a stable window, a panic window, and a ratchet while in panic.

Each 2 s it compares two means of concurrency, queue included, with a target per pod:

    stable = ceil(mean of 60 s / target)      panic = ceil(mean of 6 s / target)

both within half and 1,000 times the ready pods. If `panic` is at least twice the ready pods, it goes
up with the larger of the two and never down, until 60 s have passed since that was last so.

Worked example: 10 pods at a target of 2.8 hold 28; the load jumps to 280. After 6 s the panic window
is full of it: ceil(280 / 2.8) = 100 pods. The stable window alone would have needed 60 s.

Its windows, rates and thresholds are the defaults of Knative Serving's `config-autoscaler`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from math import ceil

from trimtab.autoscaler.simulator.policies.base import PodTick, Setting, Tick, Wish

TARGET_SHIPPED = 0.7
"""`container-concurrency-target-percentage`: of the container's concurrency limit, here the knee."""

PERIOD_S = 2.0  # `tick-interval`
BUCKET_S = 1.0
STABLE_BUCKETS = 60
PANIC_BUCKETS = 6  # 10 % of the stable window
PANIC_THRESHOLD = 2.0
GROWTH_MAX = 1000.0
SHRINK_MAX = 2.0
ZERO_GRACE_S = 30.0  # the last pod stays that long after the decision to have none

Bucket = float | None  # mean concurrency of a second; None if nobody reported


class Knative:
    """The KPA on the metric `concurrency`. `target` is a share of the knee."""

    def __init__(self, setting: Setting, target: float = TARGET_SHIPPED) -> None:
        self._setting = setting
        self._target = target * setting.knee
        self._next_s = setting.phase_s % PERIOD_S or PERIOD_S
        self._bucket_end_s = BUCKET_S
        self._request_s = 0.0  # request-seconds in the bucket that is being filled
        self._reported = False
        self._buckets: deque[Bucket] = deque(maxlen=STABLE_BUCKETS)
        self._panic_since_s: float | None = None
        self._panic_pods = 0
        self._zero_since_s: float | None = None
        self._wanted = setting.pods_min

    def step(self, tick: Tick, pods: Sequence[PodTick]) -> Wish | None:  # noqa: ARG002 - looks at sums only
        """A wish each 2 s once there is data; at once if the first request meets no pod."""
        self._request_s += tick.in_flight_s + tick.queued_s
        self._reported = self._reported or tick.ready > 0 or tick.arrivals > 0 or self._request_s > 0
        if tick.at_s >= self._bucket_end_s:
            self._close_bucket()
        if self._wanted == 0 and tick.queued:
            return self._wish(1, tick.at_s)
        if tick.at_s < self._next_s:
            return None
        self._next_s += PERIOD_S
        if not any(bucket is not None for bucket in self._buckets):
            return None
        return self._wish(self._decide(tick.ready, tick.at_s), tick.at_s)

    def _close_bucket(self) -> None:
        """End a second. Windows begin with the first report: what was before it is not a zero."""
        if self._reported or self._buckets:
            self._buckets.append(self._request_s / BUCKET_S if self._reported else None)
        self._bucket_end_s += BUCKET_S
        self._request_s = 0.0
        self._reported = False

    def _decide(self, ready: int, now_s: float) -> int:
        """Desired pods before the bounds of the user."""
        present = max(1, ready)
        least, most = int(present / SHRINK_MAX), ceil(GROWTH_MAX * present)
        stable_pods = ceil(_mean(self._buckets) / self._target)
        recent = islice(self._buckets, max(0, len(self._buckets) - PANIC_BUCKETS), None)
        panic_pods = ceil(_mean(recent) / self._target)
        if panic_pods / present >= PANIC_THRESHOLD:
            self._panic_since_s = now_s
        elif self._panic_since_s is not None and self._panic_since_s + STABLE_BUCKETS * BUCKET_S < now_s:
            self._panic_since_s, self._panic_pods = None, 0
        desired = min(max(stable_pods, least), most)
        if self._panic_since_s is None:
            return desired
        self._panic_pods = max(self._panic_pods, desired, min(max(panic_pods, least), most))
        return self._panic_pods

    def _wish(self, desired: int, now_s: float) -> Wish:
        """`desired` within the user's range; the last pod leaves only after its grace."""
        pods = min(max(desired, self._setting.pods_min), self._setting.pods_max)
        if pods > 0:
            self._zero_since_s = None
        elif self._wanted > 0:
            self._zero_since_s = now_s if self._zero_since_s is None else self._zero_since_s
            pods = 0 if now_s - self._zero_since_s >= ZERO_GRACE_S else 1
        self._wanted = pods
        return Wish(pods, self._setting.knee)


def _mean(buckets: Iterable[Bucket]) -> float:
    """Mean over a window up to its last report: a gap inside counts 0, silence at the end not at all."""
    total, reported = 0.0, 0
    for second, bucket in enumerate(buckets, start=1):
        if bucket is not None:
            total += bucket
            reported = second
    return round(total / reported, 6) if reported else 0.0  # it rounds too: 28.000000001 is not more than 28
