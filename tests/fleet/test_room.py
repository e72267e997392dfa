"""The arithmetic of memory: what fits, what is expected, who must go."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from trimtab.fleet.appetite import REVISIONS_MAX, Appetites
from trimtab.fleet.memory import Memory, machine_memory, within_groups
from trimtab.fleet.room import (
    Appetite,
    estimate_bytes,
    floor_bytes,
    learn,
    pending_bytes,
    reserve_bytes,
    room_for,
    to_blame,
)
from trimtab.fleet.usage import Meter, held_bytes

MIB, GIB = 1 << 20, 1 << 30
BYTES = st.integers(0, 1 << 40)


def test_the_worked_example():
    memory = Memory(8 * GIB, 3 * GIB)
    pending = pending_bytes([Appetite("a", 100 * MIB, 400 * MIB)])
    room = room_for(memory, pending, 400 * MIB)
    assert room.pods == 5
    assert room.why == "this machine: 2.2 GiB free, a pod takes 400 MiB"


def test_unknown_memory_is_unknown_room():
    assert room_for(None, 0, GIB).pods is None


@given(total=BYTES, available=BYTES, pending=BYTES, each=BYTES)
def test_what_fits_leaves_the_reserve(total, available, pending, each):
    pods = room_for(Memory(total, available), pending, each).pods
    assert pods >= 0
    each = max(1, each)  # as a pod that nobody knows the size of is counted
    taken = pods * each + pending + reserve_bytes(total)
    assert pods == 0 or taken <= available
    assert taken + each > available


@given(total=BYTES)
def test_a_pod_is_never_started_into_what_the_guard_defends(total):
    assert 0 < floor_bytes(total) < reserve_bytes(total)


@given(learned=st.none() | BYTES, typical=BYTES, folder=BYTES, limit=BYTES)
def test_an_estimate_trusts_what_was_seen_and_keeps_the_limit(learned, typical, folder, limit):
    estimate = estimate_bytes(learned, typical, folder, limit)
    assert not limit or estimate <= limit
    if learned is not None and not limit:
        assert estimate == learned
    if learned is None and not limit:
        assert estimate >= max(typical, folder)


@given(known=st.none() | BYTES, seen=BYTES)
def test_learning_rises_at_once_and_falls_slowly(known, seen):
    after = learn(known, seen)
    assert seen <= after <= max(seen, known or 0)
    if known is not None and known > seen:
        assert after >= known - (known - seen) // 10


@given(st.lists(st.tuples(st.none() | BYTES, BYTES)))
def test_only_starting_pods_that_want_more_are_pending(pairs):
    pods = [Appetite(str(n), taken, expected) for n, (taken, expected) in enumerate(pairs)]
    assert 0 <= pending_bytes(pods) <= sum(expected for _, expected in pairs)


def test_the_most_excessive_is_to_blame_and_the_modest_never():
    modest = Appetite("modest", 5 * GIB, 5 * GIB)
    eater = Appetite("eater", 3 * GIB, 1 * GIB)
    nibbler = Appetite("nibbler", 2 * GIB, 1 * GIB)
    unknown = Appetite("unknown", None, 1 * GIB)
    assert to_blame([modest, nibbler, eater, unknown]) == eater
    assert to_blame([modest, unknown]) is None
    assert to_blame([]) is None


def write(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


def test_the_tightest_control_group_bounds_us_version_2(tmp_path):
    machine = Memory(16 * GIB, 12 * GIB)
    write(tmp_path / "user", memory__max=4 * GIB, memory__current=3 * GIB)
    write(tmp_path / "user", memory__stat=f"anon 5\ninactive_file {GIB}\nactive_file 7")
    write(tmp_path / "user" / "app", memory__max="max", memory__current=GIB)
    assert within_groups(machine, "0::/user/app\n", tmp_path) == Memory(4 * GIB, 2 * GIB)


def test_in_a_container_the_mount_is_the_group_itself(tmp_path):
    write(tmp_path, memory__max=2 * GIB, memory__current=GIB)
    found = within_groups(Memory(16 * GIB, 12 * GIB), "0::/not/visible/here\n", tmp_path)
    assert found == Memory(2 * GIB, GIB)


def test_the_tightest_control_group_bounds_us_version_1(tmp_path):
    write(tmp_path / "memory" / "job", memory__limit_in_bytes=2 * GIB, memory__usage_in_bytes=3 * GIB)
    write(tmp_path / "memory", memory__limit_in_bytes=9223372036854771712, memory__usage_in_bytes=5 * GIB)
    membership = "5:cpu,cpuacct:/x\n4:memory:/job\n0::/\n"
    assert within_groups(Memory(16 * GIB, 12 * GIB), membership, tmp_path) == Memory(2 * GIB, 0)


def test_without_a_bound_the_machine_is_what_there_is(tmp_path):
    machine = Memory(16 * GIB, 12 * GIB)
    assert within_groups(machine, "0::/\n", tmp_path) == machine
    assert within_groups(machine, "", tmp_path) == machine


def test_this_machine_has_memory():
    memory = machine_memory()
    assert memory is not None
    assert 0 < memory.available_bytes <= memory.total_bytes


def test_what_was_learned_outlives_us(tmp_path):
    path = tmp_path / "appetites.json"
    first = Appetites(path)
    first.saw("abc", GIB)
    first.save(first.unsaved())
    assert first.unsaved() is None
    first.saw("abc", GIB + 1)  # too small a change to write down
    assert first.unsaved() is None
    second = Appetites(path)
    second.load()
    assert second.of("abc") == GIB
    assert second.of("other") is None


def test_a_pod_that_had_to_be_killed_teaches_nothing(tmp_path):
    appetites = Appetites(tmp_path / "appetites.json")
    appetites.saw("abc", 30 * GIB)
    appetites.correct("abc", GIB)
    assert appetites.of("abc") == GIB
    appetites.correct("never-seen", GIB)
    assert appetites.of("never-seen") is None


def test_a_broken_file_costs_only_what_was_learned(tmp_path):
    path = tmp_path / "appetites.json"
    for content in ("{torn", "[]", json.dumps({"a": "x", "b": -1, "c": GIB})):
        path.write_text(content)
        appetites = Appetites(path)
        appetites.load()
        assert appetites.of("a") is None
        assert appetites.of("b") is None
    assert appetites.of("c") == GIB


def test_the_least_recently_seen_is_forgotten_first(tmp_path):
    appetites = Appetites(tmp_path / "appetites.json")
    for number in range(REVISIONS_MAX):
        appetites.saw(str(number), GIB)
    appetites.saw("0", GIB)
    appetites.saw("new", GIB)
    assert appetites.of("0") == GIB
    assert appetites.of("1") is None


def test_a_process_that_is_gone_uses_nothing():
    assert Meter().read([2**22 + 1], 0.0) == {}
    assert held_bytes([2**22 + 1]) is None
