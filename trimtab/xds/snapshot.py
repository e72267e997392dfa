"""All that one Envoy should know, at one version. Pure.

A resource's version is the hash of its content, the route table's that of all it is made of: equal content
has an equal version whoever built it and whenever, so a restarted control plane sends a reconnecting Envoy
nothing that it has already.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property, lru_cache
from itertools import compress, count
from operator import attrgetter, is_not
from typing import NamedTuple, cast

from trimtab.xds.assignments import build_assignments
from trimtab.xds.check import check_world
from trimtab.xds.clusters import build_clusters, limits
from trimtab.xds.kinds import ASSIGNMENTS, CLUSTERS, LISTENERS, ROUTES
from trimtab.xds.listeners import LISTENER, build_listener
from trimtab.xds.routes import ROUTE_TABLE, Routed, build_table, routed_of, table_digest, target_of
from trimtab.xds.shares import share
from trimtab.xds.telemetry import build_traces_cluster
from trimtab.xds.world import ApiKey, EndpointView, Gateway, RevisionView, World

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


class RouteTable(Resource):
    """The table of all endpoints' routes, whose message is made when it is first asked for.

    A thousand endpoints have megabytes of them, another table with each that begins to serve, and few of
    these are ever sent to an Envoy: see `server.ROUTES_BYTES_PER_S`. Two are equal whose versions are.
    """

    _routed: Sequence[Routed]
    _keys: tuple[ApiKey, ...]

    def __init__(self, routed: Sequence[Routed], keys: tuple[ApiKey, ...]) -> None:
        digest = table_digest(routed, keys)[:VERSION_BYTES]
        self.__dict__.update(version=digest.hex(), limit=0, queue_max=0, _routed=routed, _keys=keys)

    @cached_property
    def payload(self) -> bytes:
        return build_table(self._routed, self._keys)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Resource) and self.version == other.version

    def __hash__(self) -> int:
        return hash(self.version)

    def __repr__(self) -> str:
        return f"RouteTable({self.version})"


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


class _Found(NamedTuple):
    """What a world still has of the last snapshot's parts: of each endpoint one, or None: it is to be built.

    `alike`: the endpoints are the same ones, in the same order, whatever else they are.
    """

    parts: list[_Part | None]
    missing: list[int]
    left: list[_Part]
    alike: bool


class SnapshotBuilder:
    """Builds one snapshot after the other, each as if it were the first.

    Of a view that is the very object that it was last time nothing is looked at again: with one pod changed
    among 10,000 the cost is one endpoint's, and a look at which that is, without a loop in Python.
    """

    def __init__(self) -> None:
        self._views: tuple[EndpointView, ...] = ()  # of the last snapshot
        self._parts: list[_Part] = []  # theirs
        self._common = _Piece({})  # what is there whatever the endpoints are
        self._gateway: Gateway | None = None  # its
        self._last: Snapshot | None = None

    def new(self, world: World) -> tuple[EndpointView, ...]:
        """The endpoints of `world` that have to be built."""
        return tuple([world.endpoints[place] for place in self._find(world).missing])

    def build(self, world: World) -> Snapshot:
        """Every resource of `world`. Raises InvalidInput, naming each problem, if it cannot be built."""
        found = self._find(world)
        new = [world.endpoints[place] for place in found.missing]
        check_world(world, new, frame=not found.alike or world.gateway != self._gateway)
        before = {part.view.name: part for part in found.left} if found.alike else {}
        made = [_part(view, world.gateway.domain, before.get(view.name)) for view in new]
        common = _common(world.gateway)
        collections = {
            kind: self._replaced(kind, [self._common, *found.left], [common, *made])
            for kind in (CLUSTERS, ASSIGNMENTS, LISTENERS)
        }
        parts = found.parts
        for place, part in zip(found.missing, made, strict=True):
            parts[place] = part
        whole = cast("list[_Part]", parts)
        same = found.alike and [part.routed for part in made] == [part.routed for part in found.left]
        self._last = Snapshot({**collections, ROUTES: self._table(whole, world, same=same)}, world.envoys)
        self._views, self._parts, self._common, self._gateway = world.endpoints, whole, common, world.gateway
        return self._last

    def _find(self, world: World) -> _Found:
        now, before, parts = world.endpoints, self._views, self._parts
        if self._gateway is None or world.gateway.domain != self._gateway.domain:
            return _Found([None] * len(now), list(range(len(now))), parts, alike=False)
        if len(now) == len(before):
            missing = list(compress(count(), map(is_not, now, before)))
            if all(now[place].name == before[place].name for place in missing):
                kept: list[_Part | None] = [*parts]
                for place in missing:
                    kept[place] = None
                return _Found(kept, missing, [parts[place] for place in missing], alike=True)
        known = {id(part.view): part for part in parts}
        found = [known.get(id(view)) for view in now]
        there = set(map(id, found))
        left = [part for part in parts if id(part) not in there]
        return _Found(found, [place for place, part in enumerate(found) if part is None], left, alike=False)

    def _replaced(self, kind: str, old: Iterable[_Piece], new: Iterable[_Piece]) -> Collection:
        """The last collection with what is in `new` in the place of what is in `old`."""
        last = self._last.collections[kind] if self._last is not None else Collection({})
        gone, come = _joined(kind, old), _joined(kind, new)
        return last.replaced({*gone, *come}, come)

    def _table(self, parts: Iterable[_Part], world: World, *, same: bool) -> Collection:
        """`same`: all endpoints' routes are what they were."""
        last = self._last.collections[ROUTES] if self._last is not None else Collection({})
        keys = world.gateway.api_keys
        if same and self._gateway is not None and self._gateway.api_keys == keys:
            return last
        return last.replaced([ROUTE_TABLE], {ROUTE_TABLE: RouteTable([part.routed for part in parts], keys)})


def build_snapshot(world: World) -> Snapshot:
    """Every resource of `world`. Raises InvalidInput, naming each problem, if it cannot be built."""
    return SnapshotBuilder().build(world)


def _common(gateway: Gateway) -> _Piece:
    listener = _collected([(LISTENER, build_listener(gateway))])
    return _Piece({CLUSTERS: _collected(build_traces_cluster(gateway)), LISTENERS: listener})


def _part(endpoint: EndpointView, domain: str, before: _Part | None) -> _Part:
    """`before`: the last one of that endpoint. Where only pods are others, only assignments are."""
    assignments = _collected(pair for revision in endpoint.revisions for pair in build_assignments(revision))
    if before is not None and _framed(endpoint) == _framed(before.view):
        clusters, routed = before.resources[CLUSTERS], before.routed
    else:
        clusters = {
            built.name: _cluster(resource(built.stem).version, built.stem, built.limit, built.queue_max)
            for revision in endpoint.revisions
            for built in build_clusters(revision)
        }
        routed = routed_of(target_of(endpoint), domain)
    return _Part({CLUSTERS: clusters, ASSIGNMENTS: assignments}, endpoint, routed)


def _framed(endpoint: EndpointView) -> tuple[object, ...]:
    """All of it but its pods."""
    return _of_endpoint(endpoint), [_of_revision(each) for each in endpoint.revisions]


def _all_but(kind: type[EndpointView | RevisionView], left_out: str) -> attrgetter[tuple[object, ...]]:
    return attrgetter(*(each.name for each in fields(kind) if each.name != left_out))


_of_endpoint, _of_revision = _all_but(EndpointView, "revisions"), _all_but(RevisionView, "backends")


def _joined(kind: str, pieces: Iterable[_Piece]) -> Resources:
    return {name: each for piece in pieces for name, each in piece.resources.get(kind, {}).items()}


def resource(payload: bytes) -> Resource:
    """A resource whose version is the hash of its content."""
    return Resource(hashlib.blake2b(payload, digest_size=VERSION_BYTES).hexdigest(), payload)


def _collected(pairs: Iterable[tuple[str, bytes]]) -> Resources:
    return {name: resource(payload) for name, payload in pairs}
