"""GPUs of pods, as an exporter on the cluster tells them; it serves a recorded page: there is no GPU here."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.kube.words import HOLD, PODS, Make, until
from trimtab.control.scrape import Scraper
from trimtab.core.clock import SystemClock
from trimtab.core.pod import PodPhase
from trimtab.core.signals import PodSignal
from trimtab.fleet.kubernetes import KubernetesFleet
from trimtab.fleet.kubernetes.exporters import Exporters
from trimtab.fleet.kubernetes.template import HOLD_IMAGE, LOCKED
from trimtab.kube import Api, Json

pytestmark = pytest.mark.kube

PAGES = Path(__file__).parents[1] / "control/signals/pages"


def exporter(image: str, page: str) -> Json:
    """As the exporter's own chart labels it."""
    env = {"PORT": "9400", "PAGE": page}
    container = {
        "name": "exporter",
        "image": image,
        "ports": [{"name": "metrics", "containerPort": 9400}],
        "env": [{"name": name, "value": value} for name, value in env.items()],
        "readinessProbe": {"httpGet": {"path": "/ping", "port": 9400}, "periodSeconds": 1},
        "securityContext": LOCKED,
    }
    pod = {"securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}}
    metadata = {"name": "dcgm-exporter-x7x7x", "labels": {"app.kubernetes.io/name": "dcgm-exporter"}}
    spec = pod | {"containers": [container], "terminationGracePeriodSeconds": 1}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


async def test_a_slice_of_a_gpu_is_matched_with_its_pod_by_an_exporter_that_is_found(
    inside: Api, revision: Make, namespace: str, image: str
) -> None:
    fleet, exporters = (
        KubernetesFleet(inside, SystemClock(), {HOLD_IMAGE: HOLD}, namespace),
        Exporters(inside, namespace),
    )
    scraper = Scraper(fleet, SystemClock(), dcgm=exporters, each_s=0.5)
    await fleet.open()
    running = [asyncio.create_task(each.run()) for each in (exporters, scraper)]
    try:
        await fleet.start_pod(revision())
        await until(lambda: [pod.phase for pod in fleet.pods()] == [PodPhase.READY])
        name = fleet.pods()[0].id.partition("/")[2]
        recorded = (PAGES / "dcgm_mig.prom").read_text().replace("llm.default-r1-aaaaa", name)
        page = recorded.replace('namespace="default"', f'namespace="{namespace}"')
        await inside.create(PODS.path(namespace), exporter(image, page))
        found: list[PodSignal] = []

        def seen() -> bool:
            found.extend(each for each in scraper.pod_signals(revision().key) if each.gpu is not None)
            return bool(found)

        await until(seen)
        gpu = found[-1].gpu
        assert gpu is not None
        assert (gpu.memory_used_bytes, gpu.engine_active, gpu.utilisation) == (30_000 << 20, 0.99, None)
        await inside.delete(PODS.path(namespace, "dcgm-exporter-x7x7x"))
        await until(lambda: len(exporters) == 0)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await fleet.close()
