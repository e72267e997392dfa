"""How many pods a Deployment should have, so that the ones that go are those that were chosen. Pure.

A ReplicaSet that has too many takes those that are pending, then unready ones, then those of the lowest
deletion cost. A pod that leaves is unready by our gate and has the lowest cost; so it is the first to go,
unless another one is still starting. Therefore the count is lowered only when none is.
"""

from __future__ import annotations

from collections.abc import Collection

from trimtab.fleet.kubernetes.seen import SeenPod


def replicas(wanted: int, pods: Collection[SeenPod], leaving: Collection[str]) -> int:
    """How many to ask for, so that of `pods` only those named in `leaving` go, and `wanted` others stay."""
    going = [pod for pod in pods if pod.active and pod.name in leaving]
    serving = sum(pod.gate and pod.answers for pod in pods if pod.active and pod.name not in leaving)
    marked = all(pod.leaving and not pod.gate for pod in going)
    return wanted if marked and serving >= wanted else wanted + len(going)


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
