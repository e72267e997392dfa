"""ServingEndpoints and a control plane, tied together: objects in, endpoints on, status out."""

from __future__ import annotations

import asyncio
import logging

from trimtab.control.kubernetes.memory import unpacked
from trimtab.control.kubernetes.objects import ENDPOINTS, SeenEndpoint, owner_reference, read_endpoint
from trimtab.control.kubernetes.store import KubernetesStore
from trimtab.control.kubernetes.watching import Intake
from trimtab.control.kubernetes.writing import Writer
from trimtab.core.errors import Failed, Unreachable
from trimtab.core.names import EndpointName
from trimtab.kube import Api, Json, Key, Mirror, Selection

log = logging.getLogger(__name__)

OPEN_WITHIN_S = 60.0


class Watched:
    """The objects, mirrored. `open` fills `store` with what an earlier control plane remembered."""

    def __init__(self, api: Api, store: KubernetesStore, namespace: str = "") -> None:
        self._store = store
        self._mirror: Mirror[SeenEndpoint] = Mirror(
            api, Selection(ENDPOINTS, namespace=namespace), read_endpoint, self._changed
        )
        self._intake: Intake | None = None
        self._writer: Writer | None = None
        self._following: asyncio.Task[None] | None = None
        self._uids: dict[Key, str] = {}  # of the objects that were told of last

    @property
    def objects(self) -> dict[Key, SeenEndpoint]:
        """As the API server has them."""
        return self._mirror.objects

    async def open(self) -> None:
        """List them and begin to watch. Raises Unreachable, or Conflict if a newer trimtab wrote to one."""
        self._following = asyncio.create_task(self._mirror.follow())
        try:
            async with asyncio.timeout(OPEN_WITHIN_S):
                await self._mirror.listed.wait()
        except TimeoutError as error:
            hint = (
                "is the CustomResourceDefinition there (deploy/crd), and may we list and watch its objects?"
            )
            raise Unreachable(
                "ServingEndpoints could not be listed", where="Kubernetes", hint=hint
            ) from error
        for seen in self.objects.values():
            self._remember(seen)

    async def ended(self) -> None:
        """Until the watch breaks: it does not end by itself."""
        if self._following is not None:
            await asyncio.shield(self._following)

    async def close(self) -> None:
        """Stop watching."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)

    def seen(self, name: EndpointName) -> SeenEndpoint | None:
        """The object of an endpoint; None if there is none."""
        return self.objects.get((name.namespace, name.name))

    def owner(self, name: EndpointName) -> Json | None:
        """For what has to go with an endpoint; None if there is no object of it."""
        seen = self.seen(name)
        return owner_reference(seen) if seen is not None else None

    def tie(self, intake: Intake, writer: Writer) -> None:
        """From now on objects drive endpoints, and endpoints are written to objects."""
        self._intake, self._writer = intake, writer
        self._store.dirty, self._store.removed = writer.dirty, self._removed
        for key, seen in list(self.objects.items()):
            intake.adopt(seen)
            self._changed(key)
        for record in self._store.endpoints():
            if self.seen(record.name) is None:  # it went while we began
                intake.gone(record.name, "")

    def take(self, seen: SeenEndpoint) -> None:
        """What the API server answered to a change of ours: the watch will tell the same."""
        if self._intake is not None:
            self._intake.take(seen)

    def _removed(self, name: EndpointName) -> None:
        """Its object may go now; there may be another one of its name already."""
        asyncio.get_running_loop().call_soon(self._changed, (name.namespace, name.name))

    def _changed(self, key: Key) -> None:
        if self._intake is None or self._writer is None:
            return
        seen = self.objects.get(key)
        if seen is None:
            uid = self._uids.pop(key, None)
            if uid is not None:
                self._intake.gone(EndpointName(*key), uid)
            return
        self._uids[key] = seen.uid
        self._intake.take(seen)
        self._writer.dirty(seen.name)

    def _remember(self, seen: SeenEndpoint) -> None:
        """What is damaged is begun anew: it is better served from its spec than not at all."""
        if not seen.record:
            return
        try:
            self._store.load(unpacked(seen.name, seen.record))
        except Failed as error:
            log.error("%s", error)
