"""All that one Envoy should know, at one version. Pure.

A resource's version is the hash of its content: equal content has an equal version whoever built it
and whenever, so a restarted control plane sends a reconnecting Envoy nothing that it has already.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

from trimtab.core.names import EndpointName
from trimtab.xds.assignments import build_assignments
from trimtab.xds.check import check_world
from trimtab.xds.clusters import build_clusters, limits
from trimtab.xds.kinds import ASSIGNMENTS, CLUSTERS, LISTENERS, ROUTES
from trimtab.xds.listeners import LISTENER, build_listener
from trimtab.xds.routes import ROUTE_TABLE, Target, build_table, target_of
from trimtab.xds.shares import share
from trimtab.xds.telemetry import build_traces_cluster
from trimtab.xds.world import ApiKey, EndpointView, Gateway, World

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


@dataclass(frozen=True)
class Collection:
    """All resources of one type by name. `version` changes whenever any of them does."""

    resources: Mapping[str, Resource]

    @cached_property
    def version(self) -> str:
        """The hash of all names and versions."""
        digest = hashlib.blake2b(digest_size=VERSION_BYTES)
        for name in sorted(self.resources):
            digest.update(f"{name}\0{self.resources[name].version}\0".encode())
        return digest.hexdigest()


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


def shared_clusters(clusters: Collection, envoys: int, rank: int | None) -> Collection:
    """The clusters as the Envoy `rank` of so many should have them; without a rank, with the least share."""
    return Collection(
        {
            name: _limited(found, share(found.limit, envoys, rank, name)) if found.limit else found
            for name, found in clusters.resources.items()
        }
    )


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
    target: Target


class SnapshotBuilder:
    """Builds one snapshot after the other, each as if it were the first.

    Of a view that is the very object that it was last time nothing is looked at again: with one pod changed
    among 10,000 the cost is one endpoint's, and a hash over the versions of all.
    """

    def __init__(self) -> None:
        self._parts: dict[EndpointName, _Part] = {}
        self._frame = _Piece({})  # what is there whatever the endpoints are
        self._routes: tuple[tuple[Target, ...], str, tuple[ApiKey, ...]] | None = None
        self._last: Snapshot | None = None

    def new(self, world: World) -> tuple[EndpointView, ...]:
        """The endpoints of `world` that have to be built."""
        known = self._parts
        return tuple(
            [each for each in world.endpoints if each.name not in known or known[each.name].view is not each]
        )

    def build(self, world: World) -> Snapshot:
        """Every resource of `world`. Raises InvalidInput, naming each problem, if it cannot be built."""
        new = self.new(world)
        check_world(world, new)
        made = {endpoint.name: _part(endpoint) for endpoint in new}
        parts = {each.name: made.get(each.name) or self._parts[each.name] for each in world.endpoints}
        frame = _frame(world.gateway)
        left = [part for name, part in self._parts.items() if parts.get(name) is not part]
        collections = {
            kind: self._replaced(kind, [self._frame, *left], [frame, *made.values()])
            for kind in (CLUSTERS, ASSIGNMENTS, LISTENERS)
        }
        table = self._table(tuple([part.target for part in parts.values()]), world.gateway)
        self._last = Snapshot({**collections, ROUTES: table}, world.envoys)
        self._parts, self._frame = parts, frame
        return self._last

    def _replaced(self, kind: str, old: Iterable[_Piece], new: Iterable[_Piece]) -> Collection:
        """The last collection with what is in `new` in the place of what is in `old`.

        It is the last one itself, with the version that it has found out, if it has the same content.
        """
        last = self._last.collections[kind] if self._last is not None else Collection({})
        gone, come = _joined(kind, old), _joined(kind, new)
        if gone == come:
            return last
        return Collection({name: each for name, each in last.resources.items() if name not in gone} | come)

    def _table(self, targets: tuple[Target, ...], gateway: Gateway) -> Collection:
        routes = targets, gateway.domain, gateway.api_keys
        if self._last is not None and self._routes == routes:
            return self._last.collections[ROUTES]
        table = Collection(_collected([(ROUTE_TABLE, build_table(*routes))]))
        self._routes = routes
        return table


def build_snapshot(world: World) -> Snapshot:
    """Every resource of `world`. Raises InvalidInput, naming each problem, if it cannot be built."""
    return SnapshotBuilder().build(world)


def _frame(gateway: Gateway) -> _Piece:
    listener = _collected([(LISTENER, build_listener(gateway))])
    return _Piece({CLUSTERS: _collected(build_traces_cluster(gateway)), LISTENERS: listener})


def _part(endpoint: EndpointView) -> _Part:
    clusters = {
        built.name: _cluster(resource(built.stem).version, built.stem, built.limit, built.queue_max)
        for revision in endpoint.revisions
        for built in build_clusters(revision)
    }
    assignments = _collected(pair for revision in endpoint.revisions for pair in build_assignments(revision))
    return _Part({CLUSTERS: clusters, ASSIGNMENTS: assignments}, endpoint, target_of(endpoint))


def _joined(kind: str, pieces: Iterable[_Piece]) -> Resources:
    return {name: each for piece in pieces for name, each in piece.resources.get(kind, {}).items()}


def resource(payload: bytes) -> Resource:
    """A resource whose version is the hash of its content."""
    return Resource(hashlib.blake2b(payload, digest_size=VERSION_BYTES).hexdigest(), payload)


def _collected(pairs: Iterable[tuple[str, bytes]]) -> Resources:
    return {name: resource(payload) for name, payload in pairs}
