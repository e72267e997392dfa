"""Pods on their way out: tells Envoy through the drains, and the fleet once Envoy is done with a pod."""

from __future__ import annotations

from collections.abc import Collection

from trimtab.control import draining
from trimtab.control.draining import Drain, Step
from trimtab.control.observations import Observations
from trimtab.control.publishing import Publisher
from trimtab.core.clock import Clock
from trimtab.core.pod import Pod, PodPhase
from trimtab.fleet.protocol import Fleet
from trimtab.xds.kinds import ASSIGNMENTS

DRAIN_MARGIN_S = 5.0  # beyond the longest request an endpoint allows
TERM_GRACE_S = 30.0


class Leaving:
    """Moves drains on. They are the caller's, by pod id: what is published depends on them."""

    def __init__(self, fleet: Fleet, publisher: Publisher, observations: Observations, clock: Clock) -> None:
        self._fleet = fleet
        self._publisher = publisher
        self._observations = observations
        self._clock = clock

    async def advance(
        self,
        drains: dict[str, Drain],
        pods: tuple[Pod, ...],
        leaves: Collection[str],
        request_timeout_s: float,
    ) -> None:
        """Begin, continue or take back the leaving of an endpoint's pods; `leaves` are those that should."""
        present = {pod.id: pod for pod in pods if pod.phase in (PodPhase.STARTING, PodPhase.READY)}
        stays = {i for i, drain in drains.items() if i not in leaves and drain.revocable}
        for pod_id in stays | (drains.keys() - present.keys()):
            del drains[pod_id]
        for pod_id in leaves:
            if present[pod_id].phase is PodPhase.STARTING:
                await self._fleet.stop_pod(pod_id, TERM_GRACE_S)
            elif pod_id not in drains:
                drains[pod_id] = Drain(pod_id, self._clock.now_s(), request_timeout_s + DRAIN_MARGIN_S)
        for pod_id in list(drains):
            drains[pod_id] = self._moved_on(drains[pod_id], present[pod_id])
            if drains[pod_id].step is Step.STOP:
                await self._fleet.stop_pod(pod_id, TERM_GRACE_S)
                del drains[pod_id]

    def _moved_on(self, drain: Drain, pod: Pod) -> Drain:
        taken = self._publisher.settled(ASSIGNMENTS) and self._publisher.shows(drain, pod)
        connected = self._publisher.connected()
        return draining.advance(drain, settled=taken, connected=connected, now_s=self._clock.now_s())

    def saw_requests(self, drains: dict[str, Drain], pods: dict[str, Pod]) -> None:
        """After new signals: count the flushes in which a draining pod was empty. `pods` are by id."""
        now_s, envoys = self._clock.now_s(), self._publisher.envoys()
        for pod_id in drains.keys() & pods.keys():
            seen = self._observations.in_flight(pods[pod_id], now_s, envoys)
            if seen is not None:
                at_s, in_flight = seen
                drains[pod_id] = draining.with_flush(drains[pod_id], at_s=at_s, in_flight=in_flight)

    async def remove(self, pods: Collection[Pod]) -> None:
        """End pods that nobody knows: of an endpoint or a revision that is not there any more."""
        for pod in pods:
            if pod.phase is PodPhase.FAILED:
                await self._fleet.forget_pod(pod.id)
            elif pod.phase is not PodPhase.STOPPING:
                await self._fleet.stop_pod(pod.id, TERM_GRACE_S)
