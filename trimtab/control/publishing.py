"""What Envoy was told last, and whether it has taken it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from trimtab.control import view
from trimtab.control.draining import Drain
from trimtab.control.metrics import Metrics
from trimtab.control.records import EndpointRecord
from trimtab.core.clock import Clock
from trimtab.core.names import EndpointName
from trimtab.core.pod import Pod
from trimtab.xds.kinds import ROUTES
from trimtab.xds.server import AdsServer
from trimtab.xds.snapshot import Snapshot, build_snapshot
from trimtab.xds.world import EndpointView, Gateway, World

log = logging.getLogger(__name__)

AWAY_MAX_S = 60.0  # an Envoy that lives comes back within its 2 s between two tries; this one does not


class Publisher:
    """Hands whole worlds to the ADS server, and knows which of them Envoy acknowledged."""

    def __init__(self, ads: AdsServer, gateway: Gateway, clock: Clock, metrics: Metrics) -> None:
        self._ads = ads
        self.gateway = gateway  # may be another one: the next `publish` tells
        self._clock = clock
        self._metrics = metrics
        self._snapshot: Snapshot | None = None
        self._world: World | None = None
        self._endpoints: dict[EndpointName, EndpointView] = {}
        self._backends: dict[tuple[str, int], bool] = {}
        self._away_since_s: float | None = None
        self.error = ""

    async def publish(self, look: Callable[[], tuple[EndpointView, ...]]) -> None:
        """Tell Envoy what `look` sees, if it changed. If that cannot be built, the last good one stays."""
        self._note_away()
        try:
            world = World(self.gateway, look())
            if world == self._world:
                return
            # The routes of a thousand endpoints take seconds when they are built for the first time.
            snapshot = await asyncio.to_thread(build_snapshot, world)
        except Exception as error:
            self.error = f"Envoy's configuration could not be built: {error}"
            self._metrics.errors.labels("snapshot").inc()
            log.exception("the last good snapshot stays")
            return
        self._snapshot, self._world, self.error = snapshot, world, ""
        self._endpoints = {endpoint.name: endpoint for endpoint in world.endpoints}
        self._backends = {
            (backend.host, backend.port): backend.draining
            for endpoint in world.endpoints
            for revision in endpoint.revisions
            for backend in revision.backends
        }
        self._ads.publish(snapshot)
        self._metrics.snapshots.inc()

    def connected(self) -> bool:
        """Whether any Envoy has a stream."""
        return any(node.connected for node in self._ads.nodes())

    def settled(self, kind: str) -> bool:
        """Every connected Envoy has acknowledged what was last published of this kind.

        Without one: only after AWAY_MAX_S. An Envoy that is about to come back, as after our own
        restart, still sends requests where it was last told to.
        """
        if self._snapshot is None:
            return False
        if self.connected():
            return self._ads.acknowledged(kind, self._snapshot.version(kind))
        away_since_s = self._away_since_s
        return away_since_s is not None and self._clock.now_s() - away_since_s >= AWAY_MAX_S

    def routes_settled(self, record: EndpointRecord) -> bool:
        """Envoy has acknowledged the routes, and they say what the record says now."""
        told = self._endpoints.get(record.name)
        return told is not None and told.shares == view.shares(record) and self.settled(ROUTES)

    def shows(self, drain: Drain, pod: Pod) -> bool:
        """Whether what was last published already shows this drain's step."""
        return self._backends.get((pod.host, pod.port)) is (True if drain.in_assignment else None)

    def _note_away(self) -> None:
        if self.connected():
            self._away_since_s = None
        elif self._away_since_s is None:
            self._away_since_s = self._clock.now_s()
