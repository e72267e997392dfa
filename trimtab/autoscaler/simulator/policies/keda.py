"""KEDA's HTTP add-on, re-created: a gauge of pending requests that an HPA reads each 15 s.

The interceptors count requests from arrival to answer, the queue included; the scaler samples the
count each 500 ms; the HPA has it as an external metric with an average value per pod:

    ceil(count / target), unless count / (target × pods) is within 10 % of 1

where `pods` are all there are, ready or not. What the HPA makes of that is `hpa.Behavior`. KEDA itself
starts the first pod at once, and takes the last away after 300 s without a request.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from trimtab.autoscaler.simulator.policies.base import PodTick, Setting, Tick, Wish
from trimtab.autoscaler.simulator.policies.hpa import PERIOD_S, TOLERANCE, Behavior

TARGET_SHIPPED = 100.0
"""Requests per pod, whatever the pod can do: `scalingMetric.concurrency.targetValue` by default, and
`KEDA_HTTP_SCALER_TARGET_PENDING_REQUESTS_INTERCEPTOR` before it."""

ZERO_AFTER_S = 300.0  # `scaledownPeriod`


class Keda:
    """The add-on on its metric `concurrency`. `target` is a share of the knee; None: as shipped."""

    def __init__(self, setting: Setting, target: float | None = None) -> None:
        self._setting = setting
        self._target = TARGET_SHIPPED if target is None else target * setting.knee
        self._next_s = setting.phase_s % PERIOD_S or PERIOD_S
        self._behavior = Behavior(setting.pods_min)
        self._active_s = 0.0  # when a request was last there

    def step(self, tick: Tick, pods: Sequence[PodTick]) -> Wish | None:  # noqa: ARG002 - looks at sums only
        """A wish each 15 s from the sample of this tick; from zero and to zero at once."""
        pending = tick.in_flight + tick.queued
        if pending or tick.arrivals:
            self._active_s = tick.at_s
        due = tick.at_s >= self._next_s
        if due:
            self._next_s += PERIOD_S
        if self._behavior.pods == 0:
            return self._begin(1) if pending else None
        if self._setting.pods_min == 0 and tick.at_s - self._active_s >= ZERO_AFTER_S:
            return self._begin(0)
        return self._follow(pending, tick) if due else None

    def _begin(self, pods: int) -> Wish:
        """KEDA's own part, zero or one; the HPA sleeps at zero and forgets what it recommended."""
        self._behavior = Behavior(pods)
        return Wish(pods, self._setting.knee)

    def _follow(self, pending: int, tick: Tick) -> Wish:
        """The HPA's part."""
        present = tick.ready + len(tick.starting_ages_s)
        recommended = ceil(pending / self._target)
        if present and abs(1.0 - pending / (self._target * present)) <= TOLERANCE:
            recommended = present
        pods_min = max(1, self._setting.pods_min)
        wanted = self._behavior.follow(recommended, tick.at_s, pods_min, self._setting.pods_max)
        return Wish(wanted, self._setting.knee)
