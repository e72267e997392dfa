"""What Envoy was told last, and whether it has taken it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple

from trimtab.control import view
from trimtab.control.draining import Drain
from trimtab.control.metrics import Metrics
from trimtab.control.records import EndpointRecord
from trimtab.core.clock import Clock
from trimtab.core.names import EndpointName
from trimtab.core.pod import Pod
from trimtab.xds.kinds import ASSIGNMENTS, ROUTES
from trimtab.xds.server import AdsServer
from trimtab.xds.snapshot import Snapshot, SnapshotBuilder
from trimtab.xds.world import Backend, EndpointView, Gateway, World

log = logging.getLogger(__name__)

BUILT_AT_ONCE_MAX = 50  # endpoints, some 0.2 ms each
AWAY_MAX_S = 60.0  # an Envoy that lives comes back within its 2 s between two tries; this one does not


class Taken(NamedTuple):
    """What every Envoy has acknowledged as it was last published, and whether there is any."""

    routes: bool
    assignments: bool
    connected: bool


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
        self._builder = SnapshotBuilder()
        self._publishing = asyncio.Lock()
        self._next = False  # whether somebody waits for that: who looks then sees all that is there now
        self._away_since_s: float | None = None
        self._gathered_at_s = clock.now_s()
        before = ads.snapshot
        self._sharing = before.envoys if before is not None else ()
        self._inherited_until_s = clock.now_s() + AWAY_MAX_S if self._sharing else 0.0
        self._news_at_s: float | None = None  # of pods, since the last publication
        self.error = ""

    def heard_of_pods(self) -> None:
        """There is news of them, which the next publication tells."""
        if self._news_at_s is None:
            self._news_at_s = self._clock.now_s()

    def gather(self, within_s: float) -> None:
        """Nothing counts as known to all for so long: Envoys may be on their way that we know nothing of."""
        self._gathered_at_s = self._clock.now_s() + within_s

    async def publish(self, look: Callable[[], tuple[EndpointView, ...]]) -> None:
        """Tell Envoy what `look` sees, if it changed. If that cannot be built, the last good one stays.

        May be called while it runs: what is told last was seen last. Returns at once where another call waits
        for its turn, which is yet to look.
        """
        if self._next:
            return
        self._next = True
        try:
            await self._publishing.acquire()
        finally:
            self._next = False
        try:
            await self._publish(look)
        finally:
            self._publishing.release()

    async def _publish(self, look: Callable[[], tuple[EndpointView, ...]]) -> None:
        self._note_away()
        news_at_s, self._news_at_s = self._news_at_s, None
        try:
            world = World(self.gateway, look(), self._shared_by())
            if world == self._world:
                return
            new = self._builder.new(world)
            snapshot = await self._built(world, len(new))
        except Exception as error:
            self.error = f"Envoy's configuration could not be built: {error}"
            self._metrics.errors.labels("snapshot").inc()
            log.exception("the last good snapshot stays")
            return
        self._snapshot, self._world, self.error = snapshot, world, ""
        self._endpoints |= {endpoint.name: endpoint for endpoint in new}
        if len(self._endpoints) > len(world.endpoints):
            self._endpoints = {endpoint.name: endpoint for endpoint in world.endpoints}
        self._ads.publish(snapshot, news_at_s)
        self._metrics.snapshots.inc()

    async def _built(self, world: World, new: int) -> Snapshot:
        """A few endpoints here and now; the routes of a thousand take seconds when they are built first."""
        if new <= BUILT_AT_ONCE_MAX:
            return self._builder.build(world)
        return await asyncio.to_thread(self._builder.build, world)

    def connected(self) -> bool:
        """Whether any Envoy has a stream."""
        return bool(self._ads.connected_nodes())

    def _shared_by(self) -> tuple[str, ...]:
        """The Envoys that share limits: all that are connected, or may come back.

        Of those that the control plane before us counted some may be on their way to us. They stay in the
        order in which they came: then few shares change.
        """
        present = self.envoys() | self._ads.away(AWAY_MAX_S)
        expected = self._clock.now_s() < self._inherited_until_s
        kept = [node for node in self._sharing if node in present or expected]
        self._sharing = (*kept, *sorted(present.difference(kept)))
        return self._sharing

    def envoys(self) -> frozenset[str]:
        """The nodes of all Envoys that have a stream."""
        return frozenset(self._ads.connected_nodes())

    def settled(self, kind: str) -> bool:
        """Every Envoy has acknowledged what was last published of this kind.

        One that is away is waited for AWAY_MAX_S: if it is about to come back, as after our own restart or
        that of a control plane that followed us, it still sends requests where it was last told to.
        """
        now_s = self._clock.now_s()
        if self._snapshot is None or now_s < self._gathered_at_s or self._ads.away(AWAY_MAX_S):
            return False
        if self.connected():
            return self._ads.acknowledged(kind, self._snapshot.version(kind))
        away_since_s = self._away_since_s
        return away_since_s is not None and now_s - away_since_s >= AWAY_MAX_S

    def routes_settled(self, record: EndpointRecord) -> bool:
        """Envoy has acknowledged the routes, and they say what the record says now."""
        return self.tells_routes(record) and self.settled(ROUTES)

    def tells_routes(self, record: EndpointRecord) -> bool:
        """Whether the routes as last published say what the record says now."""
        told = self._endpoints.get(record.name)
        return told is not None and told.shares == view.shares(record)

    def taken(self) -> Taken:
        """What all Envoys have of what was last published; for who asks about many endpoints at once."""
        return Taken(self.settled(ROUTES), self.settled(ASSIGNMENTS), self.connected())

    def shows(self, drain: Drain, pod: Pod) -> bool:
        """Whether what was last published already shows this drain's step."""
        endpoint = self._endpoints.get(pod.revision.endpoint)
        told = (
            next((each for each in endpoint.revisions if each.key == pod.revision), None)
            if endpoint
            else None
        )
        found = (each.draining for each in told.backends if _is(each, pod)) if told else ()
        return next(iter(found), None) is (True if drain.in_assignment else None)

    def _note_away(self) -> None:
        if self.connected():
            self._away_since_s = None
        elif self._away_since_s is None:
            self._away_since_s = self._clock.now_s()


def _is(backend: Backend, pod: Pod) -> bool:
    return (backend.host, backend.port) == (pod.host, pod.port)
