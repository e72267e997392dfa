"""Taking down what runs: all of it, or what a failed start began."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable

from trimtab.core.errors import TrimtabError
from trimtab.core.pod import Pod, PodPhase
from trimtab.envoy.process import EnvoyProcess
from trimtab.fleet.local import LocalFleet

log = logging.getLogger(__name__)

END_NEW_WITHIN_S = 5.0
MARGIN_S = 5.0  # beyond the grace: for the kernel to end what was killed


async def end_all(envoy: EnvoyProcess, fleet: LocalFleet, grace_s: float) -> None:
    """Envoy first, so that requests in flight still find their pods; then every pod, come what may."""
    log.info("stopping Envoy and %d pods", len(fleet.pods()))
    try:
        await envoy.stop(grace_s)
    except TrimtabError as error:
        log.error("%s", error)
    await _end_pods(fleet, fleet.pods(), grace_s)


async def end_new(envoy: EnvoyProcess, fleet: LocalFleet, before: set[int]) -> None:
    """End what runs and is not among the processes of `before`."""
    if envoy.status().pid not in before:
        await envoy.stop(0.0)
    await _end_pods(fleet, [pod for pod in fleet.pods() if pod.process_id not in before], END_NEW_WITHIN_S)


async def _end_pods(fleet: LocalFleet, pods: Iterable[Pod], grace_s: float) -> None:
    """Stop pods and wait until they have gone."""
    ids = {pod.id for pod in pods}
    for pod in fleet.pods():
        if pod.id in ids and pod.phase is PodPhase.FAILED:
            await fleet.forget_pod(pod.id)
        elif pod.id in ids:
            await fleet.stop_pod(pod.id, grace_s)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(grace_s + MARGIN_S):
            while any(pod.id in ids for pod in fleet.pods()):
                fleet.changed.clear()
                await fleet.changed.wait()
