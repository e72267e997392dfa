"""The cluster's pods as watches show them: our own, and that of the control plane."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from trimtab.core.names import EndpointName
from trimtab.core.revision import RevisionKey
from trimtab.fleet.kubernetes.template import COST, COST_OF_LEAVING, ENDPOINT, REVISION
from trimtab.kube import Api, Json, Key, Mirror, Resource, Selection
from trimtab.xds.world import cluster_name

PODS = Resource("v1", "pods")
DEPLOYMENTS = Resource("apps/v1", "deployments")


@dataclass(frozen=True)
class SeenPod:
    """What the bench needs of a pod. `cluster` is the one that Envoy has it in."""

    uid: str
    cluster: str
    address: str
    ready: bool
    leaves: bool  # it is taken away, or is to be, as surplus: Envoys need not hear of it


def read_pod(body: Json) -> SeenPod:
    metadata, status = body["metadata"], body.get("status") or {}
    labels = metadata["labels"]
    key = RevisionKey(EndpointName(metadata["namespace"], labels[ENDPOINT]), int(labels[REVISION]))
    conditions = {each["type"]: each["status"] for each in status.get("conditions") or ()}
    ready = conditions.get("ContainersReady") == "True" and bool(status.get("podIP"))
    marked = (metadata.get("annotations") or {}).get(COST) == COST_OF_LEAVING
    leaves = marked or "deletionTimestamp" in metadata
    return SeenPod(metadata["uid"], cluster_name(key), status.get("podIP", ""), ready, leaves)


class Sightings:
    """What one watch shows of pods: `shown(pod)` at the first event in which one is ready, then `gone(pod)`.

    One that is called unready, or marked to leave, has gone; it is shown again once it is ready, and stays.

    Those that are `known` were ready before: they are not shown again.
    """

    def __init__(self, known: Mapping[Key, SeenPod] | None = None) -> None:
        self.ready = dict(known or {})
        self.shown: Callable[[SeenPod], object] = lambda _: None
        self.gone: Callable[[SeenPod], object] = lambda _: None

    def take(self, key: Key, pod: SeenPod | None) -> None:
        """An event: the pod of this name as it is now, or that there is none."""
        before = self.ready.get(key)
        if before is not None and (pod is None or pod.uid != before.uid or pod.leaves or not pod.ready):
            del self.ready[key]
            self.gone(before)
        if pod is not None and pod.ready and not pod.leaves and key not in self.ready:
            self.ready[key] = pod
            self.shown(pod)


class Pods:
    """All pods of these namespaces, by a watch of ours: `seen.ready` are those that serve.

    Their Deployments are watched with them: `changed_at_s` (monotonic) is when anything of either did last.
    Controllers that have little of a core go on writing for a minute after all pods are there.
    """

    def __init__(self, api: Api, namespaces: Collection[str]) -> None:
        labels = f"{ENDPOINT},{REVISION}"
        self.seen = Sightings()
        self.changed_at_s = time.monotonic()
        self._namespaces = frozenset(namespaces)
        self._mirror = Mirror(api, Selection(PODS, labels=labels), read_pod, self._changed)
        self._deployments = Mirror(api, Selection(DEPLOYMENTS, labels=labels), _replicas, self._note)

    async def follow(self) -> None:
        await asyncio.gather(self._mirror.follow(), self._deployments.follow())

    @property
    def replicas(self) -> dict[str, int]:
        """What each Deployment asks for, by its name."""
        return {
            key[1]: asked for key, asked in self._deployments.objects.items() if key[0] in self._namespaces
        }

    def _note(self, key: Key) -> None:
        if key[0] in self._namespaces:
            self.changed_at_s = time.monotonic()

    def _changed(self, key: Key) -> None:
        if key[0] in self._namespaces:
            self._note(key)
            self.seen.take(key, self._mirror.objects.get(key))


def _replicas(body: Json) -> int:
    return int(body["spec"]["replicas"])
