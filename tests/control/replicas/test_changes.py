"""What a leader tells makes of a follower's copy what the leader has, whatever either had before."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.control.replicas import changes
from trimtab.control.replicas.changes import Replica, messages, streams_message, streams_of
from trimtab.core.errors import InvalidInput
from trimtab.v1 import replication_pb2 as v1
from trimtab.xds.kinds import ADDITION_ORDER, CLUSTERS, ROUTES
from trimtab.xds.server import NodeStatus, StreamStatus, TypeStatus
from trimtab.xds.snapshot import Collection, Resource, Snapshot, resource

resources = st.tuples(st.binary(max_size=6), st.integers(0, 3), st.integers(0, 3)).map(
    lambda found: Resource(repr(found), *found)  # as of any resource, its version tells its content
)
collections = st.dictionaries(st.sampled_from("abcdef"), resources).map(Collection)
snapshots = st.builds(
    Snapshot,
    st.fixed_dictionaries(dict.fromkeys(ADDITION_ORDER, collections)),
    st.lists(st.sampled_from("xyz"), unique=True).map(tuple),
)


@given(st.none() | snapshots, st.lists(snapshots, min_size=1, max_size=4), st.integers(1, 20))
def test_a_copy_becomes_what_is_published(
    had: Snapshot | None, published: list[Snapshot], part_bytes: int
) -> None:
    replica, told = Replica(had), None
    versions = replica.versions
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(changes, "PART_BYTES", part_bytes)
        for snapshot in published:
            found = [replica.take(message) for message in messages(3, snapshot, told, versions)]
            assert found[:-1] == [None] * (len(found) - 1), "half of a change is never served"
            assert found[-1] is not None
            assert found[-1] == snapshot
            told = snapshot


def test_only_what_changed_is_told_and_in_bounded_messages() -> None:
    many = {f"c{number}": resource(bytes([number]) * 100) for number in range(50)}
    before = Snapshot({kind: Collection(many) for kind in ADDITION_ORDER})
    after = Snapshot({**before.collections, ROUTES: Collection(many | {"c7": resource(b"new")})})
    (message,) = messages(1, after, before, {})
    (change,) = message.changes
    assert ([each.name for each in change.resources], list(change.removed)) == (["c7"], [])
    assert [list(each.changes) for each in messages(1, before, None, before.versions)] == [[]]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(changes, "PART_BYTES", 1_000)
        parts = list(messages(1, before, None, {}))
    assert max(part.ByteSize() for part in parts) < 2_000
    assert [part.complete for part in parts] == [False] * (len(parts) - 1) + [True]


def test_a_copy_that_is_not_what_the_leader_has_is_not_served() -> None:
    change = v1.CollectionChange(type_url=CLUSTERS, version="another", anew=True)
    with pytest.raises(InvalidInput, match="is not what the leader has"):
        Replica(None).take(v1.LeaderMessage(term=1, changes=[change], complete=True))


def test_how_far_envoys_are_is_told_as_it_is() -> None:
    told = TypeStatus(CLUSTERS, "2", "1", "no such thing", 5.0)
    status = NodeStatus("envoy-1", True, 7.0, (told,))
    streams = (StreamStatus(status, dict.fromkeys(ADDITION_ORDER, "1")),)
    assert streams_of(streams_message(streams).envoys) == streams
