"""Writes each endpoint's status to the API server, with what we remember of it in the same write.

Every write carries the resource version of the object that it was decided on: who decides on what is no
longer so gets a conflict, and looks again. What is only a figure is written seldom: see `LOAD_EACH_S`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import orjson

from trimtab.control.kubernetes.events import News, news_of
from trimtab.control.kubernetes.memory import Memory
from trimtab.control.kubernetes.objects import (
    FINALIZER,
    SeenEndpoint,
    identity,
    path_of,
    read_endpoint,
)
from trimtab.control.kubernetes.status import essence, status_of
from trimtab.control.kubernetes.store import KubernetesStore
from trimtab.core.clock import Clock
from trimtab.core.errors import Conflict, Failed, NotFound, TrimtabError
from trimtab.core.names import EndpointName
from trimtab.core.turns import Pace, give_way
from trimtab.kube import Api, Json, Key, Work
from trimtab.v1 import control_pb2 as v1

log = logging.getLogger(__name__)

WORKERS = 8  # endpoints that are written at a time
ROUND_S = 5.0  # in which each endpoint's status is compared with what was written last
SLICES = 100  # into which that round is cut: of a thousand endpoints some milliseconds
VIEWS_PER_S = 50.0  # of all endpoints: what is not known to be the same has to be told to be compared
LOAD_EACH_S = 30.0  # of one endpoint: how often figures alone are worth a write
LOADS_PER_S = 2.0  # of all endpoints
LOAD_DIFFERS = 0.2  # by which part a figure has to be another one
READY_PER_S = 10.0  # of all endpoints: writes that only say how many pods are ready
READY_LATE_S = 30.0  # after which it is written all the same

View = Callable[[EndpointName], v1.Endpoint]
ToldBy = Callable[[EndpointName], tuple[object, ...] | None]
Problems = Mapping[EndpointName, TrimtabError]


@dataclass(frozen=True)
class _Told:
    """What was written last of one object, and the version that it has since."""

    uid: str
    version: int
    at_s: float
    held: bool = False  # it has our finalizer
    status: Json = field(default_factory=dict)  # empty: not yet


class Allowance:
    """So many a second, of which a second's are kept."""

    def __init__(self, per_s: float) -> None:
        self.per_s = per_s
        self._left = per_s

    def pass_time(self, seconds: float) -> None:
        self._left = min(self.per_s, self._left + self.per_s * seconds)

    def take(self) -> bool:
        """Whether there was one; it is used then."""
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Writer:
    """Keeps the API server's objects as the store has them. `seen` are the objects as they are watched."""

    def __init__(
        self,
        api: Api,
        clock: Clock,
        store: KubernetesStore,
        seen: Callable[[], Mapping[Key, SeenEndpoint]],
        view: View,
        problems: Problems,
        tell: Callable[[News], None] = lambda _: None,
        told_by: ToldBy = lambda _: None,
    ) -> None:
        """`told_by`: what a view is made from; while that is equal, so is the view. None: nobody knows."""
        self._api = api
        self._clock = clock
        self._store = store
        self._seen = seen
        self._view = view
        self._problems = problems
        self._tell = tell
        self._told_by = told_by
        self._from: dict[EndpointName, tuple[object, ...] | None] = {}  # of what says what was told
        self._told: dict[EndpointName, _Told] = {}
        self._viewed: dict[EndpointName, v1.Endpoint] = {}  # of which what was told says the same
        self._loads = Allowance(LOADS_PER_S)
        self._ready = Allowance(READY_PER_S)
        self._views = Pace(VIEWS_PER_S)
        self._work: Work[EndpointName] = Work(self._settle, WORKERS)
        self.written = asyncio.Event()  # set after each write

    def dirty(self, name: EndpointName) -> None:
        """Something of it is to be written."""
        self._work.add(name)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._work.run())
            group.create_task(self._compare())

    async def _compare(self) -> None:
        """What changes without being put, such as how many pods are ready, is found by looking.

        A round takes longer where much has to be told for it.
        """
        at_s = self._clock.now_s()
        while True:
            names = sorted(seen.name for seen in self._seen().values())
            for part in range(SLICES):
                before_s, at_s = at_s, self._clock.now_s()
                for allowance in (self._loads, self._ready):
                    allowance.pass_time(max(ROUND_S / SLICES, at_s - before_s))
                for name in names[part::SLICES]:
                    await (self._views.turn() if self._contained_look(name) else give_way())
                await asyncio.sleep(ROUND_S / SLICES)
            for name in self._told.keys() - set(names):
                del self._told[name]
                self._viewed.pop(name, None)
                self._from.pop(name, None)

    def _contained_look(self, name: EndpointName) -> bool:
        """That of one is no reason to tell nothing of the others."""
        try:
            return self._look(name)
        except Exception:
            log.exception("%s: its status could not be compared", name)
            return True

    def _look(self, name: EndpointName) -> bool:
        """Whether it had to be told."""
        seen, told = self._seen().get((name.namespace, name.name)), self._told.get(name)
        if seen is None:
            return False
        if told is None or not told.status or told.uid != seen.uid:
            self._work.add(name)
            return False
        made_from = self._told_by(name)
        if made_from is not None and made_from == self._from.get(name):
            return False
        self._from.pop(name, None)
        view = self._view_of(name)
        load = view.status.load
        now = v1.Endpoint()
        now.CopyFrom(view)
        now.status.ClearField("load")
        if now != self._viewed.get(name):  # a quick look: most have not changed
            wanted, written = essence(self._status(seen, "", view)), essence(told.status)
            if wanted != written:
                if wanted | {"pods": ""} != written | {"pods": ""} or self._may_tell_ready(told):
                    self._work.add(name)
                return True
            self._viewed[name] = now
        if not _differs(load, told.status.get("load", {})):
            self._from[name] = made_from
        elif self._clock.now_s() - told.at_s >= LOAD_EACH_S and self._loads.take():
            self._work.add(name)
        return True

    def _may_tell_ready(self, told: _Told) -> bool:
        """Whether a write is due that only says how many pods are ready: where they come and go, many are."""
        return self._ready.take() or self._clock.now_s() - told.at_s >= READY_LATE_S

    async def _settle(self, name: EndpointName) -> None:
        """Write what the API server has otherwise. If that has changed meanwhile the watch will tell."""
        try:
            await self._write(name)
        except Conflict as error:
            log.debug("%s: %s", name, error)

    async def _write(self, name: EndpointName) -> None:
        seen, memory = self._seen().get((name.namespace, name.name)), self._store.memory(name)
        if seen is None:
            self._note(memory)  # its object was taken away: there is nothing to write it to
            return
        if seen.deleting and memory is None:
            if seen.finalized:
                await self._put(seen, {"metadata": {}})
            return
        told = self._last(seen)
        if not seen.deleting and not told.held:
            told = await self._put(seen, {"metadata": {"finalizers": [FINALIZER]}})
        status, kept = await self._status_with(memory, seen)
        if self._store.memory(name) is not memory:
            return  # something was put meanwhile: it is written again
        if status != told.status:
            before = told.status.get("conditions") or seen.conditions
            await self._put(seen, {"status": status})
            for news in news_of(name, before, status["conditions"]):
                self._tell(news)
        else:  # as an earlier control plane has written it
            self._told[name] = told
        self._note(memory if kept else None)

    async def _status_with(self, memory: Memory | None, seen: SeenEndpoint) -> tuple[Json, bool]:
        """And whether what is remembered is in it: what is too large is told instead."""
        try:
            # In a thread: it takes milliseconds, but of what is packed already.
            text = await asyncio.to_thread(lambda: memory.text) if memory is not None else ""
        except Failed as error:
            return self._status(seen, seen.record, self._view_of(seen.name), error), False
        return self._status(seen, text, self._view_of(seen.name)), True

    def _note(self, memory: Memory | None) -> None:
        if memory is not None:
            self._store.written(memory)
        self.written.set()

    def _last(self, seen: SeenEndpoint) -> _Told:
        """What is known of what was written, by us or as the watch tells."""
        told = self._told.get(seen.name)
        if told is None or told.uid != seen.uid:
            return _Told(seen.uid, seen.version, self._clock.now_s(), seen.finalized, seen.status)
        return replace(told, version=max(told.version, seen.version), held=told.held or seen.finalized)

    async def _put(self, seen: SeenEndpoint, body: Json) -> _Told:
        """Write one part of the very object, as it was when this was decided."""
        told, whole = self._last(seen), identity(seen.name)
        precondition = {"uid": seen.uid, "resourceVersion": str(told.version)}
        whole["metadata"] |= precondition | body.get("metadata", {})
        path = path_of(seen.name, "status" if "status" in body else "")
        answer = read_endpoint(orjson.loads(await self._api.apply(path, {**body, **whole})))
        status = body.get("status", told.status)
        told = _Told(seen.uid, answer.version, self._clock.now_s(), answer.finalized, status)
        self._told[seen.name] = told
        self._from.pop(seen.name, None)  # it may be of what was told before this
        return told

    def _view_of(self, name: EndpointName) -> v1.Endpoint:
        """Without a name if there is no endpoint, since no spec of it could be taken."""
        try:
            return self._view(name)
        except NotFound:
            return v1.Endpoint()

    def _status(
        self, seen: SeenEndpoint, record: str, view: v1.Endpoint, wrong: TrimtabError | None = None
    ) -> Json:
        problem = self._problems.get(seen.name) or wrong
        observed = seen.generation if problem is not None else self._store.observed.get(seen.name, 0)
        now = datetime.fromtimestamp(self._clock.wall_s(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        before = self._last(seen).status.get("conditions") or seen.conditions
        return status_of(view, problem, observed, record, before, now)


def _differs(load: v1.Load, before: Json) -> bool:
    """Whether a figure is another one by more than a bit."""
    figures = {"inFlight": load.in_flight, "queued": load.queued, "requestsPerSecond": load.requests_per_s}
    return any(
        abs(now - before.get(name, 0.0)) > max(1.0, LOAD_DIFFERS * before.get(name, 0.0))
        for name, now in figures.items()
    )
