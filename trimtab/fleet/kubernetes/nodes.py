"""Nodes that are about to go, before a single pod of theirs is evicted."""

from __future__ import annotations

from collections.abc import Callable

from trimtab.kube import Api, Json, Key, Mirror, Resource, Selection

NODES = Resource("v1", "nodes")

# Put on a node by what takes it away soon. Merely being a candidate for that is not among them.
GOING = frozenset(
    {
        "ToBeDeletedByClusterAutoscaler",
        "aws-node-termination-handler/asg-lifecycle-termination",
        "aws-node-termination-handler/rebalance-recommendation",
        "aws-node-termination-handler/scheduled-maintenance",
        "aws-node-termination-handler/spot-itn",
        "cloud.google.com/impending-node-termination",
        "karpenter.sh/disrupted",
        "karpenter.sh/disruption",
        "node.cloudprovider.kubernetes.io/shutdown",
        "node.kubernetes.io/out-of-service",
    }
)


def why_it_goes(node: Json) -> str:
    """Cordoned, or the taint that says so; empty if it stays. Pure."""
    spec = node.get("spec") or {}
    taints = (each.get("key", "") for each in spec.get("taints") or ())
    found = next((key for key in taints if key in GOING), "")
    return found or ("cordoned" if spec.get("unschedulable") else "")


class Nodes:
    """Follows them all. `changed` is called with the name of one that is to go, or is not any more."""

    def __init__(self, api: Api, changed: Callable[[str], None]) -> None:
        self._changed = changed
        self._mirror: Mirror[str] = Mirror(api, Selection(NODES), why_it_goes, self._told)
        self._going: set[str] = set()

    async def run(self) -> None:
        """Until cancelled."""
        await self._mirror.follow()

    def goes(self, name: str) -> bool:
        """Whether it is about to. Of what is not known it is not."""
        return name in self._going

    def _told(self, key: Key) -> None:
        name, goes = key[1], bool(self._mirror.objects.get(key))
        if goes != self.goes(name):
            self._going ^= {name}
            self._changed(name)
