"""trimtab's vertical axis: the very `decide_limit` of the control plane, with what pods would tell."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.autoscaler.simulator.policies.base import PODS_SEEN_EACH_S, PodTick
from trimtab.autoscaler.vertical import Learned, LimitSignals, LimitState, decide_limit, resume
from trimtab.core.decision import LimitDecision
from trimtab.core.names import EndpointName
from trimtab.core.revision import RevisionKey
from trimtab.core.signals import GpuSignal, PodSignal, RevisionSignal

REVISION = RevisionKey(EndpointName("default", "simulated"), 1)

LIMIT_EACH_S = 30.0
"""As the control plane decides on limits."""

GPU_UTILISATION = 0.9
"""What a GPU reports while any kernel runs, whatever it could do beside."""

IO_CORES = 0.1
"""Cores used by a pod that waits for others, of one that it has."""


class LimitAxis:
    """`decide_limit` each 30 s over what was seen in between."""

    def __init__(self, kind: str, knee: int, ceiling: int, first_limit: int, learned: Learned | None) -> None:
        """`kind`: the model's class. `knee`: a cpu model's cores. `ceiling`: the most that a pod can hold."""
        self._kind = kind
        self._cores = float(knee) if kind == "cpu" else 1.0
        self._ceiling = ceiling
        self._pods: list[PodSignal] = []
        self._envoys: list[RevisionSignal] = []
        self.limit = first_limit
        self.state = resume(learned) if learned else LimitState()
        self.last: LimitDecision | None = None

    def see(self, at_s: float, pods: Sequence[PodTick], envoy: RevisionSignal | None) -> None:
        """Take in what pods, and Envoy, told at `at_s`."""
        self._pods.extend([self._signal(pod, at_s) for pod in pods])
        if envoy is not None:
            self._envoys.append(envoy)

    def decide(self, at_s: float, ready: int) -> int:
        """The limit from now on."""
        signals = LimitSignals(
            revision=REVISION,
            pod_signals=tuple(self._pods),
            revision_signals=tuple(self._envoys),
            ready_pods=ready,
            limit=self.limit,
            cores=self._cores,
            ceiling=self._ceiling,
        )
        self._pods.clear()
        self._envoys.clear()
        self.state, self.last = decide_limit(self.state, signals, at_s)
        self.limit = self.last.limit
        return self.limit

    def _signal(self, pod: PodTick, at_s: float) -> PodSignal:
        """What the control plane would have of one pod."""
        cores = {"cpu": min(1.0, pod.busy) * self._cores, "io": IO_CORES}.get(self._kind)
        return PodSignal(
            revision=REVISION,
            pod=str(pod.pod),
            at_s=at_s,
            period_s=PODS_SEEN_EACH_S,
            in_flight=pod.in_flight,
            completions=float(pod.completions),
            request_time_s=pod.request_time_s,
            cpu_cores=cores,
            gpu=_gpu(pod) if self._kind == "gpu" else None,
        )


def _gpu(pod: PodTick) -> GpuSignal:
    return GpuSignal(utilisation=GPU_UTILISATION if pod.busy > 0.0 else 0.0)
