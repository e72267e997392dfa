"""The store under a full disk, and as it grows."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trimtab.control.decisions import Logged
from trimtab.control.endpoints import REVISIONS_KEPT, Endpoints
from trimtab.control.migrations import STEPS
from trimtab.control.records import Failure, Outcome
from trimtab.control.servable import on_this_machine
from trimtab.control.sqlite import SqliteStore
from trimtab.core.clock import ManualClock
from trimtab.core.errors import Exhausted
from trimtab.core.names import EndpointName
from trimtab.v1 import control_pb2 as v1

Spec = Callable[..., Any]
OTHER = EndpointName("default", "other")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path)
    yield opened
    opened.close()


def opened(store: SqliteStore) -> Endpoints:
    return Endpoints(store, ManualClock(), on_this_machine(lambda digest: True))


def known(endpoints: Endpoints) -> list[Any]:
    return [(record, endpoints.revisions(record.name)) for record in endpoints.all()]


def serve(endpoints: Endpoints, name: EndpointName) -> None:
    record = endpoints.get(name)
    served = replace(record, serving_revision=record.wanted_revision)
    endpoints.end_rollout(served, Outcome.SERVING, Failure())


WRITES: dict[str, Callable[[Endpoints, EndpointName, Spec], object]] = {
    "create": lambda endpoints, name, spec: endpoints.apply(OTHER, spec(1, name="other"), by="ann"),
    "update": lambda endpoints, name, spec: endpoints.apply(name, spec(99), by="ann"),
    "rollback": lambda endpoints, name, spec: endpoints.rollback(name, 0, "ann"),
    "delete": lambda endpoints, name, spec: endpoints.delete(name),
    "wanted": lambda endpoints, name, spec: endpoints.put_revision(
        replace(endpoints.revisions(name)[2], pods_wanted=7)
    ),
    "end": lambda endpoints, name, spec: serve(endpoints, name),
    "remove": lambda endpoints, name, spec: endpoints.remove(name),
    "forget": lambda endpoints, name, spec: endpoints.forget_revisions(endpoints.old_revisions(())),
}


@pytest.mark.parametrize("what", WRITES)
def test_a_disk_that_fills_at_any_statement_leaves_memory_and_disk_agreeing(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, spec: Spec, iris: EndpointName, what: str
) -> None:
    endpoints = opened(store)
    for version in range(REVISIONS_KEPT + 3):
        endpoints.apply(iris, spec(version), by="ann")
        serve(endpoints, iris)
    run, left = store._run, 0

    def filling(query: str, *values: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Exhausted("database or disk is full")
        run(query, *values)

    monkeypatch.setattr(store, "_run", filling)
    for statements in range(20):
        left = statements
        try:
            WRITES[what](endpoints, iris, spec)
        except Exhausted:
            assert known(endpoints) == known(opened(store))
        else:
            assert statements > 0, "it wrote nothing"
            assert known(endpoints) == known(opened(store))
            return
    pytest.fail("it never succeeded")


def test_a_store_of_an_earlier_version_keeps_all_it_holds(tmp_path: Path, iris: EndpointName) -> None:
    path = tmp_path / "trimtab.db"
    db = sqlite3.connect(path)
    db.executescript(f"{STEPS[0]}; PRAGMA user_version = 1;")
    row = (iris.namespace, iris.name, 5.0, 1, v1.Decision(at_s=5.0, pods=3).SerializeToString())
    db.execute("INSERT INTO decisions (namespace, name, at_s, changed, decision) VALUES (?, ?, ?, ?, ?)", row)
    db.commit()
    db.close()
    store = SqliteStore(tmp_path)
    try:
        assert [d.pods for d in store.log.latest(iris, 10, 1e9)] == [3]
        (old,) = store.log.to_replay(iris, 0.0, 1e9)
        assert (old.given, old.checkpoint) == (b"", b"")
        store.record([Logged(iris, v1.Decision(at_s=6.0))])
        assert store._db.execute("SELECT bytes FROM log_sizes").fetchall() == [
            (sum(len(d.SerializeToString()) for d in store.log.latest(iris, 10, 1e9)),)
        ]
        assert store._db.execute("PRAGMA user_version").fetchone()[0] == len(STEPS)
    finally:
        store.close()
