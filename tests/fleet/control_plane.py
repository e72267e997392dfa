"""A control plane in miniature, to be killed: HOME MODELS SERVER STATE. Starts two pods, tells STATE.

Then it starts and stops pods without end, so that a kill finds it at any instruction.
"""

import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path

from trimtab.core.clock import SystemClock
from trimtab.core.names import EndpointName
from trimtab.core.pod import PodPhase
from trimtab.core.revision import Revision, RevisionKey, revision_hash
from trimtab.core.spec import ModelSpec, Source
from trimtab.fleet.local import LocalFleet
from trimtab.runtime.catalog import MLFLOW

HOME, MODELS, SERVER, STATE = map(Path, sys.argv[1:])


def command(launch):
    return (sys.executable, "-S", str(SERVER), str(launch.port), str(launch.stages_path), "normal")


async def main():
    fake = replace(MLFLOW, name="fake", command=command, ready_path="/ready", typical_memory_bytes=64 << 20)
    fleet = LocalFleet(HOME, MODELS, SystemClock(), runtimes={"fake": fake})
    await fleet.open()
    digest = next(MODELS.iterdir()).name.replace("-", ":")
    model = ModelSpec(name="iris", source=Source(uri="models:/iris/1", digest=digest), runtime="fake")
    revision = Revision(RevisionKey(EndpointName("default", "iris"), 1), model, revision_hash(model), 0.0)
    await fleet.start_pod(revision)
    await fleet.start_pod(revision)
    while any(pod.phase is not PodPhase.READY for pod in fleet.pods()):
        await fleet.changed.wait()
        fleet.changed.clear()
    pods = {pod.id: [pod.process_id, pod.port, pod.started_at_s, pod.ready_at_s] for pod in fleet.pods()}
    STATE.write_text(json.dumps(pods) + "\n")
    while sys.stdin.readline():  # once a line is sent
        await churn(fleet, revision)


async def churn(fleet, revision):
    while True:
        pod_id = await fleet.start_pod(revision)
        await asyncio.sleep(0.02)
        await fleet.stop_pod(pod_id, 1.0)
        for pod in fleet.pods():
            await fleet.forget_pod(pod.id)


asyncio.run(main())
