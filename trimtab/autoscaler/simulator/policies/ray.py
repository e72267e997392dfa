"""Ray Serve's autoscaler, re-created: a slow mean, and patience in both directions.

A handle samples its requests, running and queued, each 0.5 s, and pushes the mean of the last 30 s to
the controller each 10 s. The controller's loop wants

    ceil(current + (total / target - current))

and follows only if each of its looks agreed on the direction for 30 s up, 600 s down. Then it takes
the last number, whatever the earlier ones were.

The sampling period is the smaller of 0.5 s (`RAY_SERVE_HANDLE_AUTOSCALING_METRIC_RECORD_INTERVAL_S`, in
older releases `…_RECORD_PERIOD_S` or a plain 0.5) and `metrics_interval_s`, 10 s, which is the period of
the pushes. A longer one, such as 6 s, would leave the mean of 30 s with five samples, and its reaction to
a step as it is: that depends on the pushes and on the patience.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import ceil

from trimtab.autoscaler.simulator.policies.base import TICK_S, PodTick, Setting, Tick, Wish

TARGET_SHIPPED = 2.0  # `target_ongoing_requests`: per replica, whatever it can do
PUSH_S = 10.0  # `metrics_interval_s`
LOOK_BACK_SAMPLES = int(30.0 / TICK_S)  # `look_back_period_s`; a tick is as long as its sampling period
UP_TICKS = int(30.0 / TICK_S)  # `upscale_delay_s`
DOWN_TICKS = int(600.0 / TICK_S)  # `downscale_delay_s`
# Its loop runs each 0.1 s. Nothing that it sees changes between two ticks, so a look per tick is the same.


class Ray:
    """Serve's default policy. `target` is a share of the knee; None: as shipped."""

    def __init__(self, setting: Setting, target: float | None = None) -> None:
        self._setting = setting
        self._target = TARGET_SHIPPED if target is None else target * setting.knee
        self._push_s = setting.phase_s % PUSH_S or PUSH_S
        self._samples: deque[int] = deque(maxlen=LOOK_BACK_SAMPLES)  # requests, one a tick
        self._total: float | None = None  # as pushed last
        self._agreed = 0  # ticks in a row that asked for more; below 0: for less
        self._wanted = setting.pods_min

    def step(self, tick: Tick, pods: Sequence[PodTick]) -> Wish | None:  # noqa: ARG002 - looks at sums only
        """A wish when its patience ends; none before the first push."""
        self._samples.append(tick.in_flight + tick.queued)
        if self._wanted == 0:
            return self._follow(1) if tick.queued else None  # a handle tells at once if there is no replica
        if tick.at_s >= self._push_s:
            self._push_s += PUSH_S
            self._total = sum(self._samples) / len(self._samples)
        if self._total is None or tick.ready == 0:
            return None
        return self._look(self._total, tick.ready)

    def _look(self, total: float, current: int) -> Wish | None:
        """One turn of the controller's loop."""
        desired = ceil(current + (total / self._target - current))
        if desired < 1 < self._wanted:
            desired = 1  # to zero only from one
        desired = min(max(desired, self._setting.pods_min), self._setting.pods_max)
        if desired == self._wanted:
            self._agreed = 0
            return None
        if desired > self._wanted:
            self._agreed = max(self._agreed, 0) + 1
            return self._follow(desired) if self._agreed > UP_TICKS else None
        self._agreed = min(self._agreed, 0) - 1
        return self._follow(desired) if -self._agreed > DOWN_TICKS else None

    def _follow(self, pods: int) -> Wish:
        self._agreed = 0
        self._wanted = min(pods, self._setting.pods_max)
        return Wish(self._wanted, self._setting.knee)
