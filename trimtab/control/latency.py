"""Why is it slow: the median and the p99 of an endpoint's latency, split into queue, network and model.

Quantiles do not add up: the p99 of the sum is not the sum of the p99s, and the slowest requests of one part
need not be those of another. So a part is given as *what the quantile would be less without it*. The four
durations of a request lie within each other, each measured as a distribution of its own:

    whole      at Envoy, from the end of the request to the end of the answer
    served     of that, since it was sent to the pod that answered: without Envoy's queue and earlier tries
    in pod     of that, in the pod: without the network
    in model   of that, in a thread that predicts: without the pod's own queue

Taken in this order each difference of two quantiles is exact in that sense, never negative, and the parts
add up to the quantile. Worked example: a p99 of 120 ms at Envoy, 40 ms served, 39 ms in the pod, 30 ms in
the model: queue 80 + 9 = 89 ms, network 1 ms, model 30 ms. Without the queue in Envoy the p99 would be 40
ms.

The queue in the pod has in it what HTTP costs there, some 0.1 ms. A runtime that tells no distributions
leaves network and model unknown, together what is not the queue.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

from trimtab.control.signals.buckets import Buckets, of_envoy, read_buckets
from trimtab.core.pod import Pod
from trimtab.core.revision import RevisionKey
from trimtab.envoy.statistics import StageTimes
from trimtab.runtime.catalog import PodMetrics

SLOT_S = 10.0
SLOTS = 7  # the one that fills, and a minute
POD_SHARE_MIN = 0.5  # of Envoy's requests that the pods must have told of: some pages are late or missing
WHOLE, SERVED, IN_POD, IN_MODEL = range(4)


@dataclass(frozen=True)
class Split:
    """One quantile, in seconds, and its parts; None is unknown."""

    whole_s: float
    queue_s: float
    network_s: float | None = None
    model_s: float | None = None


class Latencies:
    """What was seen over the last minute, per revision; all of it can be lost."""

    def __init__(self) -> None:
        self._slots: dict[RevisionKey, dict[int, list[Buckets | None]]] = {}
        self._pods: dict[str, tuple[Buckets | None, Buckets | None]] = {}  # as of their last page

    def add(self, times: Collection[StageTimes]) -> None:
        """What one Envoy saw in one flush."""
        for seen in times:
            self._put(seen.revision, seen.at_s, WHOLE, of_envoy(seen.whole))
            self._put(seen.revision, seen.at_s, SERVED, of_envoy(seen.served))

    def look(self, pod: Pod, text: str, metrics: PodMetrics, now_s: float) -> None:
        """A pod's page as it is now."""
        if not metrics.request_times or not metrics.model_times:
            return
        now = read_buckets(text, metrics.request_times), read_buckets(text, metrics.model_times)
        before = self._pods.get(pod.id)
        self._pods[pod.id] = now
        if before is None:
            return  # it may have served for hours before we came
        for kind, later, earlier in zip((IN_POD, IN_MODEL), now, before, strict=True):
            if later is not None and earlier is not None:
                self._put(pod.revision, now_s, kind, later.since(earlier))

    def splits(self, revision: RevisionKey, now_s: float) -> tuple[Split | None, Split | None]:
        """The median and the p99 of the last minute; None if nothing was answered."""
        found: list[Buckets | None] = [None] * 4
        for at, slot in self._slots.get(revision, {}).items():
            if now_s - at * SLOT_S <= SLOTS * SLOT_S:
                found = [b.plus(a) if b is not None else a for a, b in zip(found, slot, strict=True)]
        return split_of(found, 0.5), split_of(found, 0.99)

    def keep_only(self, revisions: Collection[RevisionKey], pods: Collection[Pod]) -> None:
        """Forget what is gone."""
        for key in self._slots.keys() - set(revisions):
            del self._slots[key]
        for pod_id in self._pods.keys() - {pod.id for pod in pods}:
            del self._pods[pod_id]

    def _put(self, revision: RevisionKey, at_s: float, kind: int, added: Buckets) -> None:
        slots = self._slots.setdefault(revision, defaultdict(lambda: [None] * 4))
        at = int(at_s // SLOT_S)
        slots[at][kind] = added.plus(slots[at][kind])
        for old in [slot for slot in slots if slot <= at - SLOTS]:
            del slots[old]


def split_of(found: list[Buckets | None], share: float) -> Split | None:
    """The split of four distributions, each within the one before: whole, served, in pod, in model."""
    whole, served, in_pod, in_model = found
    whole_s = whole.quantile_s(share) if whole is not None else None
    served_s = served.quantile_s(share) if served is not None else None
    if whole is None or whole_s is None or served_s is None:
        return None
    served_s = min(whole_s, served_s)  # they are read from buckets, a few per cent wide
    pod_s = in_pod.quantile_s(share) if in_pod is not None else None
    model_s = in_model.quantile_s(share) if in_model is not None else None
    told = in_pod is not None and in_pod.count >= POD_SHARE_MIN * whole.count
    if not told or pod_s is None or model_s is None:
        return Split(whole_s, whole_s - served_s)
    pod_s = min(served_s, pod_s)
    model_s = min(pod_s, model_s)
    return Split(whole_s, whole_s - served_s + pod_s - model_s, served_s - pod_s, model_s)
