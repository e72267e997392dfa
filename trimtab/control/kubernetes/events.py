"""Events of Kubernetes for what changed something: `kubectl describe servingendpoint` and `kubectl events`.

They are for people: a bounded rate, a bounded queue in which namespaces and their endpoints take turns,
and one that cannot be written is lost.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from trimtab.control.decisions import Logged
from trimtab.control.kubernetes.objects import ENDPOINTS, KIND, SeenEndpoint
from trimtab.control.kubernetes.turns import Turns
from trimtab.core.clock import Clock
from trimtab.core.errors import TrimtabError
from trimtab.core.names import EndpointName
from trimtab.kube import Api, Json, Resource
from trimtab.v1 import control_pb2 as v1

log = logging.getLogger(__name__)

EVENTS = Resource("events.k8s.io/v1", "events")
CONTROLLER = "serving.trimtab.dev/control-plane"
WAITING_MAX = 1_000
OF_ONE_MAX = 50  # of an endpoint: one that changes all the time is told of as it was in the end
PER_S = 5.0
NOTE_MAX = 1_024  # of the API server
_BAD = frozenset({"Failed", "UpdateFailed", "InvalidSpec"})  # told by Degraded, with what to do


@dataclass(frozen=True)
class News:
    """One thing that happened. `reason` is one word for programs, `note` is for people."""

    name: EndpointName
    reason: str
    action: str
    note: str
    warning: bool = False


class Events:
    """Tells what it is given, in the namespace of its endpoint."""

    def __init__(
        self, api: Api, clock: Clock, instance: str, seen: Callable[[EndpointName], SeenEndpoint | None]
    ) -> None:
        """`instance` names us; `seen(name)` is the object that an event is about."""
        self._api = api
        self._clock = clock
        self._instance = instance
        self._seen = seen
        self._waiting: Turns[News] = Turns(WAITING_MAX, OF_ONE_MAX)
        self._news = asyncio.Event()

    def tell(self, news: News) -> None:
        """Soon; of too many the oldest are lost, see `Turns`."""
        self._waiting.put(news.name, news)
        self._news.set()

    def decided(self, logged: Iterable[Logged]) -> None:
        """Those decisions that changed something."""
        for entry in logged:
            if entry.changed:
                self.tell(_of_decision(entry))

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                await self._write(self._waiting.take())
                await asyncio.sleep(1 / PER_S)

    async def _write(self, news: News) -> None:
        seen = self._seen(news.name)
        if seen is None:
            return
        try:
            await self._api.create(EVENTS.path(news.name.namespace), self._body(news, seen))
        except TrimtabError as error:
            log.warning("%s: an event was lost: %s", news.name, error)

    def _body(self, news: News, seen: SeenEndpoint) -> Json:
        at = datetime.fromtimestamp(self._clock.wall_s(), UTC)
        return {
            "apiVersion": EVENTS.version,
            "kind": "Event",
            "metadata": {
                "name": f"{news.name.name}.{uuid.uuid4().hex[:16]}",
                "namespace": news.name.namespace,
            },
            "eventTime": at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance,
            "action": news.action,
            "reason": news.reason,
            "regarding": {
                "apiVersion": ENDPOINTS.version,
                "kind": KIND,
                "name": news.name.name,
                "namespace": news.name.namespace,
                "uid": seen.uid,
            },
            "note": news.note[:NOTE_MAX],
            "type": "Warning" if news.warning else "Normal",
        }


def news_of(name: EndpointName, before: Iterable[Json], after: Iterable[Json]) -> Iterator[News]:
    """What conditions tell since they were as `before`."""
    known = {each["type"]: (each["status"], each["reason"]) for each in before}
    for each in after:
        status, reason = each["status"], each["reason"]
        if known.get(each["type"]) == (status, reason):
            continue
        if each["type"] == "Ready" and reason not in _BAD:
            yield News(name, reason, "Reconcile", each["message"])
        elif each["type"] == "Degraded" and status == "True":
            yield News(name, reason, "Reconcile", each["message"], warning=True)


def _of_decision(entry: Logged) -> News:
    told = entry.message
    if told.axis == v1.AXIS_LIMIT:
        reason = "LimitRaised" if told.limit > told.limit_before else "LimitLowered"
        note = f"revision {told.revision}: {told.limit_before} → {told.limit} requests a pod"
        return News(entry.name, reason, "Tune", f"{note}: {told.reason}")
    reason = "ScaledUp" if told.pods > told.pods_before else "ScaledDown"
    note = f"revision {told.revision}: {told.pods_before} → {told.pods} pods"
    return News(entry.name, reason, "Scale", f"{note}: {told.reason}")
