"""DCGM exporters, found by their labels: where each page of GPUs is, as of now."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator

from trimtab.kube import Api, Json, Mirror, Resource, Selection

PODS = Resource("v1", "pods")
LABELS = ("app.kubernetes.io/name=dcgm-exporter", "app=nvidia-dcgm-exporter")
"""Of the exporter's own chart, and of NVIDIA's GPU operator."""

PORT = 9400
PORT_NAME = "metrics"


class Exporters(Collection[str]):
    """The URLs of the pages of those that are ready, in one namespace.

    Iterate it again for what there is then.
    """

    def __init__(self, api: Api, namespace: str, labels: Collection[str] = LABELS) -> None:
        selections = [Selection(PODS, each, namespace) for each in labels]
        self._mirrors = [Mirror(api, each, page_of, lambda _: None) for each in selections]

    async def run(self) -> None:
        """Follow them, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for mirror in self._mirrors:
                group.create_task(mirror.follow())

    def __iter__(self) -> Iterator[str]:
        found = {url for mirror in self._mirrors for url in mirror.objects.values() if url}
        return iter(sorted(found))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, url: object) -> bool:
        return url in list(iter(self))


def page_of(body: Json) -> str:
    """Of an exporter's pod; empty while it is not ready."""
    status, address = body.get("status", {}), body.get("status", {}).get("podIP", "")
    ready = any(
        each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions") or ()
    )
    if not ready or not address or "deletionTimestamp" in body["metadata"]:
        return ""
    ports = [port for each in body["spec"]["containers"] for port in each.get("ports") or ()]
    named = next((port["containerPort"] for port in ports if port.get("name") == PORT_NAME), PORT)
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{named}/metrics"
