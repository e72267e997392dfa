"""How many pods a Deployment should have, so that the ones that go are those that were chosen. Pure.

A ReplicaSet that has too many takes those that are pending, then unready ones, then those of the lowest
deletion cost. A pod that leaves is unready by our gate and has the lowest cost; so it is the first to go,
unless another one is still starting. Therefore the count is lowered only when none is.

The controller of ReplicaSets hears of pods by a watch of its own, which may be behind ours: one that is told
of a lower count before it has heard which pod leaves takes one that serves. How many pods are ready by what
it has heard is in the Deployment's status: the count is lowered once those are as many as stay.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from trimtab.fleet.kubernetes.seen import SeenDeployment, SeenPod

HEARD_AFTER_S = 1.0
"""Least time between the last mark that is seen and the lower count (s). A number of ready pods does not say
which: where one gets ready as another leaves it is the same before and after."""

HEARD_WITHIN_S = 60.0
"""Then the count is lowered all the same (s): of a pod on a dead node no kubelet says that it is unready."""


def replicas(wanted: int, pods: Collection[SeenPod], leaving: Collection[str]) -> int:
    """How many to ask for, so that of `pods` only those named in `leaving` go, and `wanted` others stay."""
    going = [pod for pod in pods if pod.active and pod.name in leaving]
    serving = sum(pod.gate and pod.answers for pod in pods if pod.active and pod.name not in leaving)
    marked = all(pod.leaving and not pod.gate for pod in going)
    return wanted if marked and serving >= wanted else held(wanted, pods, leaving)


def held(wanted: int, pods: Collection[SeenPod], leaving: Collection[str]) -> int:
    """How many to ask for so that none goes."""
    return wanted + sum(pod.active and pod.name in leaving for pod in pods)


@dataclass
class Lowering:
    """Whether the count of one revision may be lowered yet."""

    marked_at_s: float | None = None  # monotonic; since when all that leave are marked and enough serve

    def replicas(
        self,
        wanted: int,
        pods: Collection[SeenPod],
        leaving: Collection[str],
        deployment: SeenDeployment,
        now_s: float,
    ) -> tuple[int, float]:
        """How many to ask for now, and in how many seconds to look again at the latest (0: need not)."""
        lowered, all_stay = replicas(wanted, pods, leaving), held(wanted, pods, leaving)
        if lowered == all_stay:
            self.marked_at_s = None
            return all_stay, 0.0
        if self.marked_at_s is None:
            self.marked_at_s = now_s
        if deployment.replicas <= lowered or all(pod.name in leaving for pod in pods if pod.active):
            return lowered, 0.0  # it was lowered already, or whichever is taken was to leave
        must_rest_s = HEARD_AFTER_S if heard(deployment, pods, leaving) else HEARD_WITHIN_S
        rest_s = max(0.0, self.marked_at_s + must_rest_s - now_s)
        return (all_stay, rest_s) if rest_s else (lowered, 0.0)


def heard(deployment: SeenDeployment, pods: Collection[SeenPod], leaving: Collection[str]) -> bool:
    """Whether the ReplicaSet knows as many ready pods as stay, and no pod that leaves is one to us."""
    ready = [pod.name for pod in pods if pod.active and pod.ready]
    return deployment.ready == len(ready) and not any(name in leaving for name in ready)


def missing(wanted: int, pods: Collection[SeenPod], leaving: Collection[str]) -> int:
    """How many of the `wanted` pods the API server does not show yet."""
    return max(0, wanted - sum(pod.active and pod.name not in leaving for pod in pods))


def wanted_before(replicas_now: int, pods: Collection[SeenPod]) -> int:
    """What an earlier control plane wanted, from the count that it wrote and the pods that it marked.

    Of a count of 4 with one marked pod, 3 were wanted if the count still holds that pod; if it was lowered
    already, as many as stay.
    """
    going = sum(pod.active and pod.leaving for pod in pods)
    staying = sum(pod.active and not pod.leaving for pod in pods)
    return min(replicas_now, max(staying, replicas_now - going))
