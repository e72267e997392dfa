"""From one snapshot to the next, as messages of bounded size, and what a follower makes of them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set

from trimtab.core.errors import InvalidInput
from trimtab.v1 import replication_pb2 as v1
from trimtab.xds.kinds import ADDITION_ORDER
from trimtab.xds.server import NodeStatus, StreamStatus, TypeStatus
from trimtab.xds.snapshot import Collection, Resource, Snapshot

PART_BYTES = 1 << 20  # of one message; a resource that is larger goes alone


def messages(
    term: int, snapshot: Snapshot, told: Snapshot | None, versions: Mapping[str, str]
) -> Iterator[v1.LeaderMessage]:
    """What leads to `snapshot`: from `told`, or from what has these versions. The last one is complete."""
    message, size = v1.LeaderMessage(term=term), 0
    for kind, collection in snapshot.collections.items():
        before = told.collections[kind] if told is not None else None
        known = before.version if before is not None else versions.get(kind, "")
        if known == collection.version:
            continue
        change = _begun(message, kind, collection, before)
        for name, resource in _new(collection, before):
            if size and size + len(resource.payload) > PART_BYTES:
                yield message
                message, size = v1.LeaderMessage(term=term), 0
                change = message.changes.add(type_url=kind, version=collection.version)
            change.resources.add(
                name=name,
                version=resource.version,
                payload=resource.payload,
                limit=resource.limit,
                queue_max=resource.queue_max,
            )
            size += len(resource.payload)
    message.complete = True
    message.envoys.extend(snapshot.envoys)
    yield message


def _begun(
    message: v1.LeaderMessage, kind: str, collection: Collection, before: Collection | None
) -> v1.CollectionChange:
    names = _changed(collection, before) if before is not None else ()
    gone = sorted(name for name in names if name not in collection.resources)
    return message.changes.add(type_url=kind, version=collection.version, anew=before is None, removed=gone)


def _new(collection: Collection, before: Collection | None) -> Iterator[tuple[str, Resource]]:
    if before is None:
        yield from collection.resources.items()
        return
    for name in sorted(_changed(collection, before)):
        if name in collection.resources:
            yield name, collection.resources[name]


def _changed(collection: Collection, before: Collection) -> Set[str]:
    """The names of which anything is another: of thousands few, mostly."""
    known = collection.changed_since(before.version)
    names = collection.resources.keys() | before.resources.keys() if known is None else known
    return {name for name in names if _version(collection, name) != _version(before, name)}


def _version(collection: Collection, name: str) -> str:
    resource = collection.resources.get(name)
    return resource.version if resource is not None else ""


class Replica:
    """A follower's copy of what the leader publishes, while it comes in."""

    def __init__(self, snapshot: Snapshot | None) -> None:
        """`snapshot` is what it has of an earlier leader, if any."""
        self._resources: dict[str, dict[str, Resource]] = {kind: {} for kind in ADDITION_ORDER}
        self._versions: dict[str, str] = {}
        if snapshot is not None:
            for kind, collection in snapshot.collections.items():
                self._resources[kind] = dict(collection.resources)
                self._versions[kind] = collection.version

    @property
    def versions(self) -> dict[str, str]:
        """Of each type, what it has."""
        return dict(self._versions)

    def take(self, message: v1.LeaderMessage) -> Snapshot | None:
        """The new snapshot, once it is whole. Raises InvalidInput if it is not what the leader has."""
        for change in message.changes:
            if change.type_url not in self._resources:  # a newer leader's: no Envoy of ours can ask for it
                continue
            resources = self._resources[change.type_url]
            if change.anew:
                resources.clear()
            for name in change.removed:
                resources.pop(name, None)
            for each in change.resources:
                resources[each.name] = Resource(each.version, each.payload, each.limit, each.queue_max)
            self._versions[change.type_url] = change.version
        return self._whole(tuple(message.envoys)) if message.complete else None

    def _whole(self, envoys: tuple[str, ...]) -> Snapshot:
        found = Snapshot({kind: Collection(dict(some)) for kind, some in self._resources.items()}, envoys)
        for kind, version in self._versions.items():
            if found.version(kind) != version:
                raise InvalidInput(f"{kind} is not what the leader has", hint="it is asked for anew")
        return found


def streams_message(streams: tuple[StreamStatus, ...]) -> v1.FollowerMessage:
    """All Envoys of a follower."""
    message = v1.FollowerMessage(envoys=v1.FollowedEnvoys())
    for stream in streams:
        envoy = message.envoys.streams.add(
            node=stream.status.node, connected_since_s=stream.status.connected_since_s
        )
        subscribed = {each.type_url: each for each in stream.status.types}
        for kind, in_force in stream.in_force.items():
            told = envoy.types.add(type_url=kind, in_force_version=in_force, subscribed=kind in subscribed)
            if kind in subscribed:
                one = subscribed[kind]
                told.sent_version, told.acked_version = one.sent_version, one.acked_version
                told.nack, told.nack_at_s = one.nack, one.nack_at_s
    return message


def streams_of(message: v1.FollowedEnvoys) -> tuple[StreamStatus, ...]:
    """The inverse of `streams_message`; types that we do not know are passed over."""
    found = []
    for envoy in message.streams:
        told = [each for each in envoy.types if each.type_url in ADDITION_ORDER]
        types = tuple(
            TypeStatus(each.type_url, each.sent_version, each.acked_version, each.nack, each.nack_at_s)
            for each in told
            if each.subscribed
        )
        in_force = {each.type_url: each.in_force_version for each in told}
        found.append(StreamStatus(NodeStatus(envoy.node, True, envoy.connected_since_s, types), in_force))
    return tuple(found)
