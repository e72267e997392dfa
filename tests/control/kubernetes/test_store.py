"""What is remembered comes back, within bounds; and nothing counts as recorded before it is written."""

from __future__ import annotations

import base64
import json
import random
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.control.decisions import Logged
from trimtab.control.kubernetes.memory import (
    CHANGES_KEPT,
    DECISIONS_KEPT,
    TEXT_MAX,
    Memory,
    packed,
    unpacked,
)
from trimtab.control.kubernetes.store import KubernetesStore
from trimtab.control.records import Change, EndpointRecord, Failure, LearnedLimit, Outcome, RevisionRecord
from trimtab.core.errors import Conflict, Failed
from trimtab.core.names import EndpointName
from trimtab.core.revision import Revision, RevisionKey
from trimtab.core.spec import Custom, EndpointSpec, ModelSpec, Source, with_defaults
from trimtab.v1 import control_pb2 as v1

IRIS = EndpointName("team", "iris")


def spec(env: str = "b") -> EndpointSpec:
    source = Source("own", "own", digest="uri:own")
    model = ModelSpec("iris", source, "custom", env=(("A", env),), custom=Custom(image="i:1"))
    return with_defaults("iris", EndpointSpec((model,)))


def revision(number: int, **more: int) -> RevisionRecord:
    return RevisionRecord(
        Revision(RevisionKey(IRIS, number), spec().models[0], f"hash-{number}", 5.0), **more
    )


def endpoint(**more: object) -> EndpointRecord:
    record = EndpointRecord(
        IRIS, spec(), 2, 7.0, 2, 1, failure=Failure("why", "what to do", ("a", "b")), stages=(("start", 0.5),)
    )
    return replace(record, **more)  # type: ignore[arg-type]


def decision(pods: int, before: int = 1) -> Logged:
    return Logged(
        IRIS, v1.Decision(at_s=float(pods), revision=1, pods=pods, pods_before=before, reason="load")
    )


def change(generation: int, env: str = "b") -> Change:
    return Change(generation, 1.0, "kubectl", "range 1..2 → 1..3", 1, spec(env), "served")


def memory() -> Memory:
    return Memory(
        4,
        endpoint(),
        (revision(1, pods_wanted=3, first_limit=2, learned_limit=9), revision(2, failures=1)),
        (change(2), change(1)),
        (LearnedLimit("hash-1", 9, '{"a": 1}', 3.0),),
        (decision(3).message.SerializeToString(),),
    )


def test_what_is_remembered_comes_back() -> None:
    assert unpacked(IRIS, packed(memory())) == memory()


def test_the_next_control_plane_knows_as_much() -> None:
    store = KubernetesStore()
    store.load(unpacked(IRIS, packed(memory())))
    assert store.memory(IRIS) == memory()
    assert store.recorded(IRIS)
    assert [each.pods for each in store.log.latest(IRIS, 5, 1e9)] == [3]


def test_a_record_is_bounded_and_what_is_acted_upon_stays() -> None:
    draw = random.Random(1)
    changes = tuple(change(n, draw.randbytes(8_000).hex()) for n in range(80, 0, -1))
    decisions = tuple(decision(n).message.SerializeToString() for n in range(40))
    large = replace(memory(), changes=changes, decisions=decisions)
    text = packed(large)
    assert len(text) <= TEXT_MAX
    found = unpacked(IRIS, text)
    assert (found.endpoint, found.revisions) == (large.endpoint, large.revisions)
    assert found.changes == changes[: len(found.changes)], "the newest stay"
    assert 0 < len(found.changes) < CHANGES_KEPT
    assert found.decisions == decisions[-len(found.decisions) :]
    assert len(found.decisions) < DECISIONS_KEPT


def test_what_cannot_be_remembered_is_told() -> None:
    env = random.Random(1).randbytes(200_000).hex()
    with pytest.raises(Failed, match="too large to be remembered"):
        packed(replace(memory(), endpoint=endpoint(spec=spec(env)), changes=(), decisions=()))


@pytest.mark.parametrize("text", ["", "text", "bm90IHppcHBlZA==", packed(memory())[:-40]])
def test_a_damaged_record_is_told(text: str) -> None:
    with pytest.raises(Failed, match=r"iris\.team: status\.record: cannot be read"):
        unpacked(IRIS, text)


def test_a_record_of_a_newer_version_is_not_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as newer:
        newer.setattr("trimtab.control.kubernetes.memory.FORMAT", 2)
        text = packed(memory())
    with pytest.raises(Conflict, match="newer trimtab"):
        unpacked(IRIS, text)


def test_nothing_counts_as_recorded_before_it_is_written() -> None:
    store = KubernetesStore()
    dirty: list[EndpointName] = []
    store.dirty = dirty.append
    assert store.recorded(IRIS), "there is nothing of it to record"
    store.put_revision(revision(1))
    store.put_endpoint(endpoint(wanted_revision=1))
    assert dirty == [IRIS, IRIS]
    assert not store.recorded(IRIS)
    written = store.memory(IRIS)
    assert written is not None
    store.put_endpoint(endpoint(wanted_revision=1, serving_revision=0))  # while that was under way
    store.written(written)
    assert not store.recorded(IRIS)
    store.written(store.memory(IRIS) or written)
    assert store.recorded(IRIS)


@pytest.mark.parametrize(
    ("more", "waits"),
    [
        ({"serving_revision": 2}, True),
        ({"outcome": Outcome.FAILED}, True),
        ({"deleting": True}, True),
        ({"stages": (("start", 1.0),)}, False),
    ],
)
def test_only_what_is_acted_upon_has_to_be_written_first(more: dict[str, object], waits: bool) -> None:
    store = KubernetesStore()
    store.load(memory())
    store.put_endpoint(endpoint(**more))
    assert store.recorded(IRIS) is not waits
    store.load(memory())
    store.put_revision(revision(1, pods_wanted=7))
    assert store.recorded(IRIS), "how many pods are wanted its Deployment tells too"
    store.put_revision(revision(3))
    assert not store.recorded(IRIS)


def test_a_removed_endpoint_is_told_once_and_leaves_nothing() -> None:
    store = KubernetesStore()
    store.load(memory())
    gone: list[EndpointName] = []
    store.removed = gone.append
    store.remove_endpoint(IRIS)
    assert gone == [IRIS]
    assert store.memory(IRIS) is None
    assert store.recorded(IRIS)


def test_decisions_that_changed_nothing_are_written_nowhere() -> None:
    store = KubernetesStore()
    store.load(memory())
    dirty: list[EndpointName] = []
    store.dirty = dirty.append
    store.record([decision(3, before=3)])
    assert dirty == []
    assert len(store.log.latest(IRIS, 9, 1e9)) == 2
    store.record([decision(n) for n in range(4, 30)])
    assert dirty
    found = store.memory(IRIS)
    assert found is not None
    assert [v1.Decision.FromString(each).pods for each in found.decisions] == list(range(14, 30))


def test_what_was_learned_is_written_with_each_endpoint_that_has_the_hash() -> None:
    store = KubernetesStore()
    store.load(memory())
    dirty: list[EndpointName] = []
    store.dirty = dirty.append
    store.record([], [LearnedLimit("hash-2", 5, "{}", 9.0), LearnedLimit("elsewhere", 5, "{}", 9.0)])
    assert dirty == [IRIS]
    found = store.memory(IRIS)
    assert found is not None
    assert [each.hash for each in found.learned] == ["hash-1", "hash-2"]


@pytest.mark.parametrize("spec", ["no json", '{"models": 5}'])
def test_a_damaged_spec_in_a_record_is_told(spec: str) -> None:
    told = json.loads(zlib.decompress(base64.b64decode(packed(memory()))))
    told["endpoint"]["spec"] = spec
    text = base64.b64encode(zlib.compress(json.dumps(told).encode())).decode()
    with pytest.raises(Failed, match=r"iris\.team: status\.record: cannot be read"):
        unpacked(IRIS, text)


_puts = st.sampled_from(("endpoint", "revision", "remove revision", "change", "outcome", "decision", "limit"))


@given(st.lists(st.tuples(_puts, st.integers(1, 3), st.booleans()), max_size=12))
def test_what_is_remembered_is_what_is_there_however_often_it_is_asked_for(
    puts: list[tuple[str, int, bool]],
) -> None:
    store = KubernetesStore()
    store.put_endpoint(endpoint())
    for kind, number, asked_before in puts:
        if asked_before:
            assert store.memory(IRIS) is store.memory(IRIS), "it is not read again"
        if kind == "endpoint":
            store.put_endpoint(endpoint(generation=number))
        elif kind == "revision":
            store.put_revision(revision(number, pods_wanted=number))
        elif kind == "remove revision":
            store.remove_revision(RevisionKey(IRIS, number))
        elif kind == "change":
            store.put_change(IRIS, change(number))
        elif kind == "outcome":
            store.set_change_outcome(IRIS, number, "failed")
        elif kind == "decision":
            store.record([replace(decision(number + 1), name=IRIS)])
        else:
            store.record([], [LearnedLimit(f"hash-{number}", number, "{}", float(number))])
        store.observed[IRIS] = number
        kept = store.memory(IRIS)
        store._memories.clear()
        assert kept == store.memory(IRIS)
    store.remove_endpoint(IRIS)
    assert store.memory(IRIS) is None
    store.close()
