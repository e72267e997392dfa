"""Kubernetes' horizontal pod autoscaler, re-created: a ratio each 15 s, with a tolerance and two limits.

Each 15 s it reads each pod's concurrency (in flight, and its share of the queue) as it is at that
instant, and wants

    ceil(ready pods × mean concurrency / target)

unless the ratio is within 10 % of 1. Pods without a metric, which starting ones are, count 0 where
that would go up and the target where it would go down, and may not turn the direction round.
Up by at most 100 % or 4 pods in 15 s, whichever is more; down to the largest of the last 300 s.

Worked example: 10 pods at their target, then ten times the load: 20, 40, 80, 100, so 60 s at worst.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import ceil

from trimtab.autoscaler.simulator.policies.base import PodTick, Setting, Tick, Wish

TARGET_SHIPPED = 0.8
"""The API's own default is an average utilisation of 80 %, of what a pod asked for: here the knee.
A metric of pods has no default, so this is what a user has who carries the API's over."""

PERIOD_S = 15.0  # --horizontal-pod-autoscaler-sync-period
TOLERANCE = 0.1  # --horizontal-pod-autoscaler-tolerance
DOWN_WINDOW_S = 300.0  # behavior.scaleDown.stabilizationWindowSeconds
GROWTH_MAX = 2.0  # behavior.scaleUp: 100 % in 15 s, one decision
GROWTH_PODS_MAX = 4  # or so many pods, whichever is more


class Behavior:
    """What the HPA makes of a recommendation: the field `behavior` as it is by default."""

    def __init__(self, pods: int) -> None:
        self.pods = pods
        self._recommended: deque[tuple[float, int]] = deque()  # (at_s, pods) of the down window

    def follow(self, recommended: int, now_s: float, pods_min: int, pods_max: int) -> int:
        """The number to have now. Down by all at once, but not below what was recommended lately."""
        window = self._recommended
        while window and window[0][0] <= now_s - DOWN_WINDOW_S:
            window.popleft()
        window.append((now_s, recommended))
        if recommended > self.pods:
            most = max(int(GROWTH_MAX * self.pods), self.pods + GROWTH_PODS_MAX)
            wanted = min(recommended, most)
        else:
            wanted = min(self.pods, max(pods for _, pods in window))
        self.pods = min(max(wanted, pods_min), pods_max)
        return self.pods


class Hpa:
    """An HPA on a metric of type `Pods`: concurrency. `target` is a share of the knee."""

    def __init__(self, setting: Setting, target: float = TARGET_SHIPPED) -> None:
        self._setting = setting
        self._target = target * setting.knee
        self._next_s = setting.phase_s % PERIOD_S or PERIOD_S
        self._pods_min = max(1, setting.pods_min)  # without its alpha feature, an HPA never has zero
        self._behavior = Behavior(self._pods_min)

    def step(self, tick: Tick, pods: Sequence[PodTick]) -> Wish | None:  # noqa: ARG002 - looks at sums only
        """A wish each 15 s; none while no pod is ready, since then there is no metric.

        A range from zero is one from 1 to it: its user has a Deployment of at least one pod.
        """
        if tick.ready == 0 and not tick.starting_ages_s and self._setting.pods_min == 0:
            return Wish(self._behavior.pods, self._setting.knee)
        if tick.at_s < self._next_s:
            return None
        self._next_s += PERIOD_S
        if tick.ready == 0:
            return None
        recommended = recommend(
            (tick.in_flight + tick.queued) / self._target,
            tick.ready,
            len(tick.starting_ages_s),
            self._behavior.pods,
        )
        wanted = self._behavior.follow(recommended, tick.at_s, self._pods_min, self._setting.pods_max)
        return Wish(wanted, self._setting.knee)


def recommend(load: float, ready: int, missing: int, present: int) -> int:
    """Pods for `load` (concurrency over target), of which `ready` (1 or more) have a metric.

    `present` is the number wanted last: what is kept where the rules allow no change.
    """
    ratio = load / ready
    if not missing:
        return present if _tolerable(ratio) else ceil(load)
    assumed = load + missing if ratio < 1.0 else load
    pods = ready + missing
    again = assumed / pods
    turned = (ratio < 1.0 < again) or (again < 1.0 < ratio)
    return present if _tolerable(again) or turned else ceil(assumed)


def _tolerable(ratio: float) -> bool:
    return abs(1.0 - ratio) <= TOLERANCE
