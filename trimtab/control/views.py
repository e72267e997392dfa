"""All endpoints as Envoy should see them. Only those are made anew that may be others than before."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import compress
from operator import is_, is_not

from trimtab.control import view
from trimtab.control.draining import Drain
from trimtab.control.endpoints import Endpoints
from trimtab.control.split import Splits
from trimtab.core.clock import Clock
from trimtab.core.names import EndpointName
from trimtab.core.pod import Pod, PodPhase
from trimtab.core.revision import RevisionKey
from trimtab.xds.world import EndpointView

Pods = Mapping[EndpointName, tuple[Pod, ...]]


class Views:
    """The views of all endpoints: one that is equal to what it was is the very object that it was.

    Of 1,000 endpoints few change from one time to the next. What they are made of is told by whoever changes
    it: records and revisions by `endpoints`, drains by a `touch`. Pods are compared with those of the last
    time, whose tuples are the same ones while nothing of them has changed.
    """

    def __init__(self, endpoints: Endpoints, splits: Splits, clock: Clock) -> None:
        self._endpoints = endpoints
        self._splits = splits
        self._clock = clock
        self._pods: Pods = {}  # of the last time
        self._ready: dict[EndpointName, tuple[Pod, ...]] = {}
        self._views: dict[EndpointName, EndpointView] = {}
        self._stale: set[EndpointName] = set()
        self._touched: set[EndpointName] = set()
        self._drains: dict[EndpointName, dict[str, Drain]] = {}  # those that its view shows, if any
        self._divided: set[EndpointName] = set()  # by what is observed: never known to be what they were
        self._all: list[EndpointView] = []  # in the order of their names,
        self._places: dict[EndpointName, int] = {}  # by which they are found; none: to be put in order
        self._told: tuple[EndpointView, ...] | None = None  # until one of them is another

    def touch(self, name: EndpointName) -> None:
        """Its drains may be others: most looks change none."""
        self._touched.add(name)

    def all(self, pods: Pods, drains: Callable[[EndpointName], dict[str, Drain]]) -> tuple[EndpointView, ...]:
        """In the order of their names. `pods` are those of each endpoint as they are now."""
        drained = {name for name in self._touched if self._drains.get(name, {}) != drains(name)}
        stale = self._stale | drained | self._endpoints.take_changed() | self._divided | self._others(pods)
        self._stale = stale  # until all is done: where one raises, all are made the next time
        self._touched.clear()
        for name in stale:
            self._make(name, pods.get(name, ()), drains(name))
        self._pods, self._stale = pods, set()
        if not self._places:
            names = [record.name for record in self._endpoints.all()]
            self._places = {name: place for place, name in enumerate(names)}
            self._all = [self._views[name] for name in names]
        if self._told is None:
            self._told = tuple(self._all)
        return self._told

    def _others(self, pods: Pods) -> set[EndpointName]:
        """Endpoints of which other pods are ready. One that starts has started for longer each second."""
        before = self._pods
        if pods is before:
            return set()
        changed = set(told_anew(before, pods))
        if not _same_names(before, pods):
            changed |= before.keys() - pods.keys()
        return {name for name in changed if self._ready.get(name, ()) != _ready(pods.get(name, ()))}

    def _make(self, name: EndpointName, pods: tuple[Pod, ...], drains: dict[str, Drain]) -> None:
        if not self._endpoints.known(name):
            self._forget(name)
            return
        by_revision, divided = by_number(pods), False

        def grpc_part(key: RevisionKey, target: int) -> int:
            nonlocal divided
            divided = True
            return self._splits.part(key, target, by_revision.get(key.number, ()), self._clock.now_s())

        record, revisions = self._endpoints.get(name), self._endpoints.revisions(name)
        made = view.endpoint_view(record, revisions, by_revision, drains, grpc_part)
        (self._divided.add if divided else self._divided.discard)(name)
        self._drains.pop(name, None)
        if drains:
            self._drains[name] = dict(drains)
        self._ready[name] = _ready(pods)
        if self._views.get(name) != made:
            self._views[name] = made
            self._told = None
            if name in self._places:
                self._all[self._places[name]] = made
            else:
                self._places = {}

    def _forget(self, name: EndpointName) -> None:
        self._divided.discard(name)
        self._ready.pop(name, None)
        self._drains.pop(name, None)
        if self._views.pop(name, None) is not None:
            self._places, self._told = {}, None


def told_anew(before: Pods, now: Pods) -> Iterator[EndpointName]:
    """Those whose pods are not the very tuple that they were.

    Of thousands, without a loop in Python, and mostly without a look at any name: that alone takes a
    millisecond where none of them is in a cache.
    """
    pods = before.values() if _same_names(before, now) else map(before.get, now)
    return compress(now, map(is_not, now.values(), pods))


def _same_names(before: Pods, now: Pods) -> bool:
    """Whether both have the very same ones in the same order; False may be wrong."""
    return len(before) == len(now) and all(map(is_, before, now))


def by_number(pods: Iterable[Pod]) -> dict[int, tuple[Pod, ...]]:
    """An endpoint's pods by the number of their revision, in the order in which they are given."""
    found: dict[int, list[Pod]] = defaultdict(list)
    for pod in pods:
        found[pod.revision.number].append(pod)
    return {number: tuple(some) for number, some in found.items()}


def _ready(pods: Iterable[Pod]) -> tuple[Pod, ...]:
    return tuple([pod for pod in pods if pod.phase is PodPhase.READY])
