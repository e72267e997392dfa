"""A count is lowered only once the controller of ReplicaSets knows which pod leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from tests.kube.words import until
from trimtab.core.clock import SystemClock
from trimtab.core.names import EndpointName
from trimtab.core.revision import RevisionKey
from trimtab.fleet.kubernetes import KubernetesFleet, counts
from trimtab.fleet.kubernetes.template import CONTAINER, COST, COST_OF_LEAVING, GATE, labels_of, name_of

KEY = RevisionKey(EndpointName("team", "iris"), 1)


class Server:
    """Has one Deployment of two pods that serve; what changes of them is told to whoever watches."""

    def __init__(self) -> None:
        self.replicas = self.ready_replicas = 2
        self.pods = {name: {"gate": True, "ready": True, "leaving": False} for name in ("a", "b")}
        self.counts: list[int] = []  # that were written
        self.version = 9
        self._watchers: dict[str, asyncio.StreamReader] = {}

    async def get(self, path: str, query: Mapping[str, str] | None = None, accept: str = "") -> bytes:
        if path.endswith("deployments"):
            items = [self._deployment()]
        else:
            items = [self._pod(name) for name in self.pods] if path.endswith("pods") else []
        return orjson.dumps({"metadata": {"resourceVersion": str(self.version)}, "items": items})

    @asynccontextmanager
    async def stream(
        self, path: str, query: Mapping[str, str], read_timeout_s: float
    ) -> AsyncIterator[asyncio.StreamReader]:
        reader = self._watchers[path.rpartition("/")[2]] = asyncio.StreamReader()
        yield reader

    async def merge(self, path: str, body: dict[str, Any]) -> bytes:
        """Marks, as the fleet writes them. The kubelet has not heard of them yet."""
        if "/pods/" not in path:
            return b"{}"
        name = path.removesuffix("/status").rpartition("/")[2]
        if path.endswith("/status"):
            self.pods[name]["gate"] = body["status"]["conditions"][0]["status"] == "True"
        else:
            self.pods[name]["leaving"] = body["metadata"]["annotations"][COST] == COST_OF_LEAVING
        self._tell("pods", self._pod(name))
        return b"{}"

    async def apply(self, path: str, body: dict[str, Any]) -> bytes:
        if path.endswith(name_of(KEY)) and "replicas" in body["spec"]:
            self.replicas = body["spec"]["replicas"]
            self.counts.append(self.replicas)
            self._tell("deployments", self._deployment())
        return b"{}"

    async def create(self, path: str, body: dict[str, Any], query: Mapping[str, str] | None = None) -> bytes:
        return b"{}"

    def guard(self) -> None:
        """It leads."""

    def kubelet_says_unready(self, name: str) -> None:
        self.pods[name]["ready"] = False
        self._tell("pods", self._pod(name))

    def replica_set_knows_ready(self, count: int) -> None:
        self.ready_replicas = count
        self._tell("deployments", self._deployment())

    def _tell(self, kind: str, body: dict[str, Any]) -> None:
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        self._watchers[kind].feed_data(orjson.dumps({"type": "MODIFIED", "object": body}) + b"\n")

    def _deployment(self) -> dict[str, Any]:
        metadata = {"name": name_of(KEY), "namespace": "team", "labels": labels_of(KEY)}
        metadata |= {"uid": "u", "resourceVersion": str(self.version)}
        status = {"readyReplicas": self.ready_replicas}
        return {"metadata": metadata, "spec": {"replicas": self.replicas}, "status": status}

    def _pod(self, name: str) -> dict[str, Any]:
        seen = self.pods[name]
        metadata = {"name": name, "namespace": "team", "labels": labels_of(KEY)}
        metadata |= {"creationTimestamp": "2026-01-01T00:00:00Z", "resourceVersion": str(self.version)}
        if seen["leaving"]:
            metadata["annotations"] = {COST: COST_OF_LEAVING}
        conditions = {"ContainersReady": True, GATE: seen["gate"], "Ready": seen["ready"]}
        status = {
            "conditions": [
                {"type": kind, "status": str(is_so), "lastTransitionTime": "2026-01-01T00:00:09Z"}
                for kind, is_so in conditions.items()
            ],
            "containerStatuses": [{"name": CONTAINER, "state": {"running": {}}}],
        }
        return {"metadata": metadata, "spec": {}, "status": status}


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def opened(server: Server) -> AsyncIterator[KubernetesFleet]:
    fleet = KubernetesFleet(server, SystemClock(), {}, node_metrics=False)  # type: ignore[arg-type]
    await fleet.open()
    yield fleet
    await fleet.close()


async def seen(server: Server, fleet: KubernetesFleet) -> None:
    """Wait until the fleet has heard of all that there is, and has looked at it."""
    mirrors = (fleet._pod_mirror, fleet._deployments)
    await until(lambda: max(int(mirror.version) for mirror in mirrors) == server.version)
    await until(lambda: not fleet._work._queued and not fleet._work._busy and not fleet._work._again)


async def test_a_count_waits_until_the_replica_set_has_heard_which_pod_leaves(
    server: Server, opened: KubernetesFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts, "HEARD_AFTER_S", 0.01)
    await opened.stop_pod("team/b", 5.0)
    await until(lambda: server.pods["b"] == {"gate": False, "ready": True, "leaving": True})
    await seen(server, opened)
    assert server.counts == [], "the kubelet has not heard yet"
    server.kubelet_says_unready("b")
    await seen(server, opened)
    assert server.counts == [], "nor the ReplicaSet"
    server.replica_set_knows_ready(1)
    await until(lambda: server.counts == [1])


async def test_a_count_does_not_wait_for_ever_for_a_node_that_is_dead(
    server: Server, opened: KubernetesFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts, "HEARD_WITHIN_S", 0.05)
    await opened.stop_pod("team/b", 5.0)
    await until(lambda: server.counts == [1])
    assert server.pods["b"]["ready"], "nobody has said otherwise"


async def test_an_endpoint_that_ends_waits_for_nobody(server: Server, opened: KubernetesFleet) -> None:
    for pod_id in ("team/a", "team/b"):
        await opened.stop_pod(pod_id, 5.0)
    await until(lambda: server.counts == [0], within_s=counts.HEARD_WITHIN_S / 2)
