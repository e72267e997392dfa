"""What the store keeps of decisions and of what was learned, and for how long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from trimtab.control import decision_log
from trimtab.control.decision_log import LOG_BYTES_MAX
from trimtab.control.decisions import Logged
from trimtab.control.endpoints import Endpoints
from trimtab.control.records import LearnedLimit
from trimtab.control.servable import on_this_machine
from trimtab.control.sqlite import LEARNED_MAX, UNUSED_KEPT_S, SqliteStore
from trimtab.core.clock import ManualClock
from trimtab.core.errors import Exhausted
from trimtab.core.names import EndpointName
from trimtab.v1 import control_pb2 as v1

IRIS, OTHER = EndpointName("default", "iris"), EndpointName("default", "other")
BIG = b"x" * 30_000
Spec = Callable[..., Any]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path)
    yield opened
    opened.close()


def decision(second: float, before: int = 1, pods: int = 1) -> v1.Decision:
    return v1.Decision(at_s=second, pods_before=before, pods=pods)


def limit(second: float, before: int, after: int) -> v1.Decision:
    return v1.Decision(at_s=second, axis=v1.AXIS_LIMIT, limit_before=before, limit=after)


def sizes(store: SqliteStore) -> list[int]:
    """As counted, after checking that the count is right."""
    kept = "SELECT SUM(size) FROM decisions GROUP BY namespace, name ORDER BY namespace, name"
    counted = "SELECT bytes FROM log_sizes ORDER BY namespace, name"
    found = store._db.execute(counted).fetchall()
    assert found == store._db.execute(kept).fetchall()
    return [size for (size,) in found]


def test_newest_first_of_one_axis_and_only_changes_if_asked(store: SqliteStore) -> None:
    store.record([Logged(IRIS, decision(second, 1, 1 + second % 2)) for second in range(200)])
    store.record([Logged(IRIS, limit(50.5, 4, 8)), Logged(IRIS, limit(51.5, 8, 8))])
    assert [d.at_s for d in store.log.latest(IRIS, 2, 1e9)] == [199, 198]
    changes = store.log.latest(IRIS, 5, 100.0, changes_only=True)
    assert [d.at_s for d in changes] == [99, 97, 95, 93, 91]
    assert [d.limit for d in store.log.latest(IRIS, 5, 1e9, axis=v1.AXIS_LIMIT)] == [8, 8]
    told = store.log.latest(IRIS, 5, 1e9, axis=v1.AXIS_LIMIT, changes_only=True)
    assert [(d.at_s, d.limit_before) for d in told] == [(50.5, 4)]


def test_a_log_is_bounded_in_bytes_of_both_axes_together(store: SqliteStore) -> None:
    count = 3 * LOG_BYTES_MAX // len(BIG)
    for second in range(0, count, 10):
        store.record([Logged(IRIS, decision(second + each), BIG) for each in range(9)])
        store.record([Logged(IRIS, limit(second + 9, 1, 2), BIG), Logged(OTHER, decision(second))])
        assert max(sizes(store)) <= LOG_BYTES_MAX
    kept = store.log.latest(IRIS, 10_000, 1e9)
    assert sizes(store)[0] > LOG_BYTES_MAX * 0.98
    assert kept[0].at_s >= count - 10
    assert len(store.log.latest(OTHER, 10_000, 1e9)) == -(-count // 10), "another's stays whole"
    store.remove_endpoint(IRIS)
    assert len(sizes(store)) == 1


def test_many_endpoints_share_the_room_of_some(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decision_log, "LOGS_BYTES_MAX", 10 * len(BIG))
    names = [EndpointName("default", f"e{index}") for index in range(5)]
    for second in range(10):
        store.record([Logged(name, decision(second), BIG) for name in names])
    assert sum(sizes(store)) <= 10 * len(BIG)
    assert [len(store.log.latest(name, 100, 1e9)) for name in names] == [1] * 5


def test_one_larger_than_the_bound_is_not_kept_and_harms_nothing(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decision_log, "LOG_BYTES_MAX", 1_000)
    store.record([Logged(IRIS, decision(1.0), BIG)])
    store.record([Logged(IRIS, decision(2.0))])
    assert [d.at_s for d in store.log.latest(IRIS, 10, 1e9)] == [2.0]


def test_what_was_decided_and_learned_is_one_write(store: SqliteStore) -> None:
    statements: list[str] = []
    store._db.set_trace_callback(statements.append)
    learned = LearnedLimit("h", 8, "{}", 5.0)
    store.record([Logged(IRIS, decision(1.0)), Logged(OTHER, decision(1.0))], [learned])
    store.record([])
    store._db.set_trace_callback(None)
    assert [s for s in statements if s in ("COMMIT", "BEGIN IMMEDIATE")] == ["BEGIN IMMEDIATE", "COMMIT"]
    assert store.learned("h") == learned


def test_a_full_disk_leaves_the_count_right(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.record([Logged(IRIS, decision(1.0), BIG)])
    before, run = sizes(store), store.log._run

    def full(query: str, *values: Any) -> None:
        if query.startswith("INSERT INTO log_sizes"):
            raise Exhausted("the disk is full")
        run(query, *values)

    monkeypatch.setattr(store.log, "_run", full)
    with pytest.raises(Exhausted):
        store.record([Logged(IRIS, decision(2.0), BIG)])
    monkeypatch.undo()
    assert sizes(store) == before


def test_neither_trimming_nor_reading_sorts_or_looks_at_others(store: SqliteStore) -> None:
    """With thousands each, sorting cost most of a decision's time."""
    monkey = pytest.MonkeyPatch()
    monkey.setattr(decision_log, "LOG_BYTES_MAX", 40_000)
    store.record([Logged(IRIS, decision(1.0), BIG, b"c")])
    statements: list[str] = []
    store._db.set_trace_callback(statements.append)
    store.record([Logged(IRIS, decision(2.0), BIG)])
    store.log.latest(IRIS, 20, 1e9)
    store.log.to_replay(IRIS, 5.0, 1e9)
    store._db.set_trace_callback(None)
    monkey.undo()
    looked_up = [s for s in statements if "FROM decisions" in s]
    assert len(looked_up) == 5
    for statement in looked_up:
        steps = store._db.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
        assert not any("TEMP B-TREE" in str(step) or "SCAN" in str(step) for step in steps), steps


def test_a_replay_begins_with_the_last_checkpoint_before_it(store: SqliteStore) -> None:
    for second in range(30):
        store.record([Logged(IRIS, decision(second), b"g", b"c" if second % 10 == 3 else b"")])
        store.record([Logged(IRIS, limit(second, 1, 2)), Logged(OTHER, decision(second), b"g", b"c")])

    def times(since_s: float, until_s: float) -> tuple[float, float]:
        found = [entry.message.at_s for entry in store.log.to_replay(IRIS, since_s, until_s)]
        assert found == [float(second) for second in range(int(found[0]), int(found[-1]) + 1)]
        return found[0], found[-1]

    assert times(25.0, 1e9) == (23.0, 29.0)
    assert times(13.0, 20.0) == (13.0, 20.0)
    assert times(0.0, 5.0) == (0.0, 5.0), "what comes before the first checkpoint is told as not replayed"


def test_what_was_learned_comes_with_each_revision_of_its_hash(store: SqliteStore, spec: Spec) -> None:
    endpoints = Endpoints(store, ManualClock(), on_this_machine(lambda digest: True))
    for name in (IRIS, OTHER):
        endpoints.apply(name, spec(1), by="ann")
    revision_hash = endpoints.revisions(IRIS)[1].revision.hash
    store.record([], [LearnedLimit(revision_hash, 8, "{}", 5.0)])
    assert [store.revisions(name)[0].learned_limit for name in (IRIS, OTHER)] == [8, 8]
    endpoints.apply(OTHER, spec(2), by="ann")
    assert [r.learned_limit for r in store.revisions(OTHER)] == [8, 0]


def test_what_nothing_refers_to_is_forgotten_after_a_while(store: SqliteStore, spec: Spec) -> None:
    endpoints = Endpoints(store, ManualClock(), on_this_machine(lambda digest: True))
    endpoints.apply(IRIS, spec(1), by="ann")
    used = endpoints.revisions(IRIS)[1].revision.hash
    store.record([], [LearnedLimit(used, 8, "{}", 0.0), LearnedLimit("old", 8, "{}", 0.0)])
    store.record([], [LearnedLimit("new", 8, "{}", UNUSED_KEPT_S - 1.0)])
    assert store.learned("old") is not None, "it may be deployed again"
    store.record([], [LearnedLimit("newer", 8, "{}", UNUSED_KEPT_S + 1.0)])
    assert store.learned("old") is None
    assert store.learned(used) is not None


def test_what_was_learned_is_bounded(store: SqliteStore, spec: Spec) -> None:
    endpoints = Endpoints(store, ManualClock(), on_this_machine(lambda digest: True))
    endpoints.apply(IRIS, spec(1), by="ann")
    used = endpoints.revisions(IRIS)[1].revision.hash
    store.record([], [LearnedLimit(used, 8, "{}", 0.0)])
    many = ((f"h{index}", 1, "{}", float(index)) for index in range(LEARNED_MAX + 50))
    with store.transaction():
        store._db.executemany("INSERT INTO learned VALUES (?, ?, ?, ?)", many)
    store.record([], [LearnedLimit("last", 8, "{}", 1e6)])
    count = store._db.execute("SELECT COUNT(*) FROM learned").fetchone()[0]
    assert count == LEARNED_MAX + 1, "and what is in use beside them"
    assert store.learned("last")
    assert store.learned(used)
