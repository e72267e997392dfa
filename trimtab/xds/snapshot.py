"""All that one Envoy should know, at one version. Pure.

A resource's version is the hash of its content: equal content has an equal version whoever built it
and whenever, so a restarted control plane sends a reconnecting Envoy nothing that it has already.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from operator import attrgetter
from typing import NamedTuple

from trimtab.core.names import EndpointName
from trimtab.xds.assignments import build_assignments
from trimtab.xds.check import check_world
from trimtab.xds.clusters import build_clusters, limits
from trimtab.xds.kinds import ASSIGNMENTS, CLUSTERS, LISTENERS, ROUTES
from trimtab.xds.listeners import LISTENER, build_listener
from trimtab.xds.routes import ROUTE_TABLE, Routed, build_table, routed_of, target_of
from trimtab.xds.shares import share
from trimtab.xds.telemetry import build_traces_cluster
from trimtab.xds.world import ApiKey, EndpointView, Gateway, World

CHANGES_KEPT = 16  # who missed more of them compares all
VERSION_BYTES = 8  # 16 hex digits; two contents of one name share one with odds of 2**-64


@dataclass(frozen=True)
class Resource:
    """One resource: its version and its encoded message, without the Any around it.

    Of a cluster whose limits Envoys share also these, with which its message ends: see `shared_clusters`.
    """

    version: str
    payload: bytes
    limit: int = 0
    queue_max: int = 0


Resources = dict[str, Resource]  # by name


class Change(NamedTuple):
    """From which version a collection was changed, and the names of which anything is another."""

    since: str
    names: frozenset[str]


@dataclass(frozen=True)
class Collection:
    """All resources of one type by name. `version` changes whenever any of them does.

    `lately`: the changes that led to it, the last one last, for who knows an earlier one.
    """

    resources: Mapping[str, Resource]
    lately: tuple[Change, ...] = field(default=(), compare=False, repr=False)
    total: int | None = field(default=None, compare=False, repr=False)  # of their hashes, where it is known

    @cached_property
    def _total(self) -> int:
        """What changes takes its old hash from the sum and adds its new one: the others are not looked at."""
        if self.total is not None:
            return self.total
        return sum(_hash(name, each) for name, each in self.resources.items())

    @cached_property
    def version(self) -> str:
        """The hash of all names and versions."""
        return f"{self._total % 2 ** (8 * VERSION_BYTES):0{2 * VERSION_BYTES}x}"

    def replaced(self, names: Iterable[str], new: Mapping[str, Resource]) -> Collection:
        """With what `new` has of these names instead of what there is; itself if that is the same."""
        changed = frozenset([name for name in names if self.resources.get(name) != new.get(name)])
        if not changed:
            return self
        resources, total = dict(self.resources), self._total
        for name in sorted(changed):
            if name in resources:
                total -= _hash(name, resources[name])
            if name in new:
                resources[name] = new[name]
                total += _hash(name, new[name])
            else:
                del resources[name]
        return Collection(resources, (*self.lately, Change(self.version, changed))[-CHANGES_KEPT:], total)

    def changed_since(self, version: str) -> frozenset[str] | None:
        """The names of which anything is another than at that version; None if that is not known any more."""
        names: frozenset[str] = frozenset()
        if version == self.version:
            return names
        for change in reversed(self.lately):
            names |= change.names
            if change.since == version:
                return names
        return None


def _hash(name: str, resource: Resource) -> int:
    content = f"{name}\0{resource.version}".encode()
    return int.from_bytes(hashlib.blake2b(content, digest_size=VERSION_BYTES).digest())


@dataclass(frozen=True)
class Snapshot:
    """The four collections by type URL. Equal worlds make equal versions.

    `envoys` are the nodes that share the limits of clusters, which are told whole here.
    """

    collections: Mapping[str, Collection]
    envoys: tuple[str, ...] = ()

    def version(self, type_url: str) -> str:
        """The version of one type's collection."""
        return self.collections[type_url].version

    @cached_property
    def versions(self) -> dict[str, str]:
        """The version of every type, by type URL."""
        return {type_url: collection.version for type_url, collection in self.collections.items()}


_name, _routed = attrgetter("name"), attrgetter("routed")

NOTHING: tuple[str, Collection] = ("", Collection({}))  # of which it is not known what changed since


def shared_clusters(
    whole: Collection, envoys: int, rank: int | None, before: tuple[str, Collection] = NOTHING
) -> Collection:
    """The clusters as the Envoy `rank` of so many should have them; without a rank, with the least share.

    `before` is what that was when `whole` had an earlier version: only what changed since is shared anew.
    """
    since, last = before
    names = whole.changed_since(since)
    if names is None:
        names, last = frozenset(whole.resources), Collection({})
    there = {name: whole.resources[name] for name in names if name in whole.resources}
    return last.replaced(names, {name: _shared(each, envoys, rank, name) for name, each in there.items()})


def _shared(cluster: Resource, envoys: int, rank: int | None, name: str) -> Resource:
    return _limited(cluster, share(cluster.limit, envoys, rank, name)) if cluster.limit else cluster


@lru_cache(maxsize=16_384)  # no more than two shares of each cluster are in use at a time
def _limited(whole: Resource, limit: int) -> Resource:
    if limit == whole.limit:
        return whole
    stem = whole.payload.removesuffix(limits(whole.limit, whole.queue_max))
    return _cluster(whole.version.partition("-")[0], stem, limit, whole.queue_max)


def _cluster(stem_version: str, stem: bytes, limit: int, queue_max: int) -> Resource:
    payload = stem + limits(limit, queue_max)
    return Resource(f"{stem_version}-{limit}-{queue_max}", payload, limit, queue_max)


@dataclass(frozen=True)
class _Piece:
    """Some of the resources of a snapshot, by type URL."""

    resources: Mapping[str, Resources]


@dataclass(frozen=True)
class _Part(_Piece):
    """One endpoint's part, and the view that it was built from."""

    view: EndpointView
    routed: Routed


class SnapshotBuilder:
    """Builds one snapshot after the other, each as if it were the first.

    Of a view that is the very object that it was last time nothing is looked at again: with one pod changed
    among 10,000 the cost is one endpoint's, and a look at which those are, without a loop in Python.
    """

    def __init__(self) -> None:
        self._parts: dict[int, _Part] = {}  # by the identity of their views, which they keep
        self._domain = ""  # that their routes are of
        self._common = _Piece({})  # what is there whatever the endpoints are
        self._checked: tuple[Gateway, tuple[EndpointName, ...]] | None = None
        self._routes: tuple[tuple[Routed, ...], tuple[ApiKey, ...]] | None = None
        self._last: Snapshot | None = None

    def new(self, world: World) -> tuple[EndpointView, ...]:
        """The endpoints of `world` that have to be built."""
        by_id = _by_id(world)
        missing = by_id.keys() - self._known(world.gateway).keys()
        return tuple(sorted([by_id[each] for each in missing], key=_name))

    def _known(self, gateway: Gateway) -> Mapping[int, _Part]:
        return self._parts if gateway.domain == self._domain else {}

    def build(self, world: World) -> Snapshot:
        """Every resource of `world`. Raises InvalidInput, naming each problem, if it cannot be built."""
        new = self.new(world)
        frame = world.gateway, tuple(map(_name, world.endpoints))
        check_world(world, new, frame=frame != self._checked)
        known, by_id = self._known(world.gateway), _by_id(world)
        made = {id(each): _part(each, world.gateway.domain) for each in new}
        kept = known.keys() & by_id.keys()
        left = [self._parts[key] for key in self._parts.keys() - kept]
        parts = {**known, **made}
        for key in known.keys() - kept:
            del parts[key]
        common = _common(world.gateway)
        collections = {
            kind: self._replaced(kind, [self._common, *left], [common, *made.values()])
            for kind in (CLUSTERS, ASSIGNMENTS, LISTENERS)
        }
        table = self._table(tuple(map(_routed, map(parts.__getitem__, by_id))), world.gateway.api_keys)
        self._last = Snapshot({**collections, ROUTES: table}, world.envoys)
        self._parts, self._common, self._checked = parts, common, frame
        self._domain = world.gateway.domain
        return self._last

    def _replaced(self, kind: str, old: Iterable[_Piece], new: Iterable[_Piece]) -> Collection:
        """The last collection with what is in `new` in the place of what is in `old`."""
        last = self._last.collections[kind] if self._last is not None else Collection({})
        gone, come = _joined(kind, old), _joined(kind, new)
        return last.replaced({*gone, *come}, come)

    def _table(self, routed: tuple[Routed, ...], keys: tuple[ApiKey, ...]) -> Collection:
        last = self._last.collections[ROUTES] if self._last is not None else Collection({})
        if self._routes == (routed, keys):
            return last
        table = last.replaced([ROUTE_TABLE], _collected([(ROUTE_TABLE, build_table(routed, keys))]))
        self._routes = routed, keys
        return table


def _by_id(world: World) -> dict[int, EndpointView]:
    """In their order."""
    return dict(zip(map(id, world.endpoints), world.endpoints, strict=True))


def build_snapshot(world: World) -> Snapshot:
    """Every resource of `world`. Raises InvalidInput, naming each problem, if it cannot be built."""
    return SnapshotBuilder().build(world)


def _common(gateway: Gateway) -> _Piece:
    listener = _collected([(LISTENER, build_listener(gateway))])
    return _Piece({CLUSTERS: _collected(build_traces_cluster(gateway)), LISTENERS: listener})


def _part(endpoint: EndpointView, domain: str) -> _Part:
    clusters = {
        built.name: _cluster(resource(built.stem).version, built.stem, built.limit, built.queue_max)
        for revision in endpoint.revisions
        for built in build_clusters(revision)
    }
    assignments = _collected(pair for revision in endpoint.revisions for pair in build_assignments(revision))
    routed = routed_of(target_of(endpoint), domain)
    return _Part({CLUSTERS: clusters, ASSIGNMENTS: assignments}, endpoint, routed)


def _joined(kind: str, pieces: Iterable[_Piece]) -> Resources:
    return {name: each for piece in pieces for name, each in piece.resources.get(kind, {}).items()}


def resource(payload: bytes) -> Resource:
    """A resource whose version is the hash of its content."""
    return Resource(hashlib.blake2b(payload, digest_size=VERSION_BYTES).hexdigest(), payload)


def _collected(pairs: Iterable[tuple[str, bytes]]) -> Resources:
    return {name: resource(payload) for name, payload in pairs}
