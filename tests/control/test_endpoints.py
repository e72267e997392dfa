"""What people ask for, and what is remembered of it, on a real SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from trimtab.control.endpoints import REVISIONS_KEPT, Endpoints
from trimtab.control.migrations import STEPS
from trimtab.control.records import Failure, Outcome
from trimtab.control.servable import on_this_machine
from trimtab.control.sqlite import SqliteStore
from trimtab.core.clock import ManualClock
from trimtab.core.errors import Conflict, Exhausted, InvalidInput, NotFound
from trimtab.core.names import EndpointName
from trimtab.core.revision import RevisionKey
from trimtab.core.spec import ConcurrencyRange, EndpointSpec, ModelSpec, Resources, Source, with_defaults

IRIS = EndpointName("default", "iris")


def spec(version: int = 1, low: int = 1, high: int = 64, **other: object) -> EndpointSpec:
    source = Source(f"models:/iris/{version}", version=str(version), digest=f"sha256:{version}")
    model = ModelSpec("", source, concurrency=ConcurrencyRange(low, high))
    return replace(with_defaults("iris", EndpointSpec((model,))), **other)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def reopened(store: SqliteStore, clock: ManualClock) -> Endpoints:
    return Endpoints(store, clock, on_this_machine(lambda digest: digest != "sha256:9"))


@pytest.fixture
def endpoints(store: SqliteStore, clock: ManualClock) -> Endpoints:
    return reopened(store, clock)


def served(endpoints: Endpoints) -> None:
    """Let the newest change end well."""
    record = endpoints.get(IRIS)
    record = replace(record, serving_revision=record.wanted_revision)
    endpoints.end_rollout(record, Outcome.SERVING, Failure())


def test_a_new_model_is_a_new_revision_and_a_new_range_is_not(endpoints: Endpoints) -> None:
    assert endpoints.apply(IRIS, spec(1), by="ann").wanted_revision == 1
    served(endpoints)
    assert endpoints.apply(IRIS, spec(1, low=2, high=100), by="bob").wanted_revision == 1
    served(endpoints)
    assert endpoints.apply(IRIS, spec(2), by="ann").wanted_revision == 2
    told = [(c.generation, c.by, c.what, c.outcome) for c in endpoints.history(IRIS, 10)]
    change = "model models:/iris/1 → models:/iris/2; range 2..100 → 1..64; digest sha256:1 → sha256:2"
    assert told == [
        (3, "ann", change, "rolling out"),
        (2, "bob", "range 1..64 → 2..100", "served"),
        (1, "ann", "created with models:/iris/1, range 1..64", "served"),
    ]


def test_the_same_again_changes_nothing_unless_it_failed(endpoints: Endpoints) -> None:
    first = endpoints.apply(IRIS, spec(), by="ann")
    assert endpoints.apply(IRIS, spec(), by="ann") is first
    later = spec()
    model = later.models[0]
    model = replace(model, source=replace(model.source, resolved_at_s=99.0))
    assert endpoints.apply(IRIS, replace(later, models=(model,)), by="ann") is first
    endpoints.put_revision(replace(endpoints.revisions(IRIS)[1], failures=3, failed_at_s=5.0))
    endpoints.end_rollout(first, Outcome.FAILED, Failure("it broke"))
    again = endpoints.apply(IRIS, spec(), by="ann")
    assert (again.generation, again.wanted_revision, again.outcome) == (2, 1, Outcome.ROLLING)
    assert endpoints.revisions(IRIS)[1].failures == 0
    assert [c.outcome for c in endpoints.history(IRIS, 10)] == ["rolling out", "failed"]


def test_an_update_before_the_last_one_ended_supersedes_it(endpoints: Endpoints) -> None:
    endpoints.apply(IRIS, spec(1), by="ann")
    endpoints.apply(IRIS, spec(2), by="ann")
    assert [c.outcome for c in endpoints.history(IRIS, 10)] == ["rolling out", "superseded"]


def test_rollback_keeps_the_range_and_names_what_served_before(endpoints: Endpoints) -> None:
    endpoints.apply(IRIS, spec(1), by="ann")
    served(endpoints)
    endpoints.apply(IRIS, spec(2), by="ann")
    served(endpoints)
    endpoints.apply(IRIS, spec(2, high=99), by="ann")
    served(endpoints)
    back = endpoints.rollback(IRIS, 0, "bob")
    assert back.wanted_revision == 1
    assert back.spec.models[0].source.version == "1"
    assert back.spec.models[0].concurrency.max == 99
    with pytest.raises(InvalidInput, match="the wanted one already"):
        endpoints.rollback(IRIS, 1, "bob")
    with pytest.raises(NotFound, match="no revision 7"):
        endpoints.rollback(IRIS, 7, "bob")


def test_rollback_of_a_failed_update_returns_to_what_serves(endpoints: Endpoints) -> None:
    endpoints.apply(IRIS, spec(1), by="ann")
    with pytest.raises(NotFound, match="nothing served before"):
        endpoints.rollback(IRIS, 0, "ann")
    served(endpoints)
    failed = endpoints.apply(IRIS, spec(2), by="ann")
    endpoints.end_rollout(failed, Outcome.FAILED, Failure("it broke"))
    assert endpoints.rollback(IRIS, 0, "ann").wanted_revision == 1


def test_bad_specs_name_the_field_and_change_nothing(endpoints: Endpoints) -> None:
    with pytest.raises(InvalidInput) as caught:
        endpoints.apply(IRIS, spec(9, low=5, high=2), by="ann")
    assert [p.where for p in caught.value.problems] == ["models[0].concurrency", "models[0].source.digest"]
    assert endpoints.all() == []
    unresolved = replace(spec(), models=(ModelSpec("iris", Source("models:/iris/1")),))
    with pytest.raises(InvalidInput, match="was not resolved"):
        endpoints.apply(IRIS, unresolved, by="ann")


def test_create_update_and_generations_are_checked(endpoints: Endpoints) -> None:
    with pytest.raises(NotFound):
        endpoints.apply(IRIS, spec(), by="ann", must="update")
    endpoints.apply(IRIS, spec(), by="ann", must="create")
    with pytest.raises(Conflict, match="exists already"):
        endpoints.apply(IRIS, spec(2), by="ann", must="create")
    with pytest.raises(Conflict, match="generation 1, not 4"):
        endpoints.apply(IRIS, spec(2), by="ann", expected_generation=4)
    endpoints.delete(IRIS)
    with pytest.raises(Conflict, match="being deleted"):
        endpoints.apply(IRIS, spec(2), by="ann")


def test_everything_is_there_again_after_a_restart(
    endpoints: Endpoints, store: SqliteStore, clock: ManualClock
) -> None:
    endpoints.apply(IRIS, spec(1), by="ann", client_stages_s={"download": 2.0, "resolve": 1.0})
    endpoints.end_rollout(endpoints.get(IRIS), Outcome.FAILED, Failure("cause", "hint", ("a", "b")))
    again = reopened(store, clock)
    assert again.get(IRIS) == endpoints.get(IRIS)
    assert again.get(IRIS).stages == (("resolve", 1.0), ("download", 2.0))
    assert again.get(IRIS).failure.log_tail == ("a", "b")
    assert again.revisions(IRIS) == endpoints.revisions(IRIS)


def test_a_removed_endpoint_leaves_nothing_behind(endpoints: Endpoints, store: SqliteStore) -> None:
    endpoints.apply(IRIS, spec(), by="ann")
    endpoints.remove(IRIS)
    assert (store.endpoints(), store.revisions(IRIS), store.changes(IRIS, 10)) == ([], [], [])


@pytest.mark.parametrize(
    ("runtime", "cpu", "memory", "first"),
    [
        ("mlflow", 2.0, 1 << 30, 50),
        ("mlflow", 4.0, 0, 50),
        ("mlflow", 1.0, 1 << 30, 0),
        ("mlflow", 2.0, 1 << 29, 0),
        ("triton", 2.0, 1 << 30, 0),
    ],
)
def test_an_update_begins_with_the_limit_of_what_serves_if_it_has_no_less_of_anything(
    store: SqliteStore,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    runtime: str,
    cpu: float,
    memory: int,
    first: int,
) -> None:
    monkeypatch.setattr("trimtab.control.servable.missing_problems", lambda _: [])  # nothing starts here

    def made(version: int, runtime: str, resources: Resources) -> EndpointSpec:
        asked = spec(version)
        return replace(asked, models=(replace(asked.models[0], runtime=runtime, resources=resources),))

    endpoints = reopened(store, clock)
    endpoints.apply(IRIS, made(1, "mlflow", Resources(2.0, 1 << 30)), by="ann")
    endpoints.put_revision(replace(endpoints.revisions(IRIS)[1], learned_limit=50))
    endpoints.apply(IRIS, made(2, "mlflow", Resources(2.0, 1 << 30)), by="ann")
    assert endpoints.revisions(IRIS)[2].first_limit == 0, "the first one has not served"
    endpoints.put(replace(endpoints.get(IRIS), serving_revision=1))
    endpoints.apply(IRIS, made(3, runtime, Resources(cpu, memory)), by="ann")
    assert endpoints.revisions(IRIS)[3].first_limit == first
    assert reopened(store, clock).revisions(IRIS)[3].first_limit == first
    endpoints.put(replace(endpoints.get(IRIS), serving_revision=3))
    endpoints.apply(IRIS, made(4, runtime, Resources(cpu, memory)), by="ann")
    assert endpoints.revisions(IRIS)[4].first_limit == first, "nothing was learned of the one between"
    endpoints.put(replace(endpoints.get(IRIS), serving_revision=1))
    assert endpoints.rollback(IRIS, 2, "ann").wanted_revision == 2
    assert endpoints.revisions(IRIS)[2].first_limit == 50


def test_old_revisions_are_forgotten_but_not_what_runs(endpoints: Endpoints) -> None:
    for version in range(10, 25):
        endpoints.apply(IRIS, spec(version), by="ann")
        served(endpoints)
    old = endpoints.old_revisions({RevisionKey(IRIS, 2)})
    assert "sha256:10" in endpoints.digests()
    assert "sha256:10" not in endpoints.digests(without=old)
    endpoints.forget_revisions(old)
    kept = sorted(endpoints.revisions(IRIS))
    assert kept == [2, *range(15 - REVISIONS_KEPT + 1, 16)]
    assert "sha256:10" not in endpoints.digests()


def test_a_write_that_fails_changes_nothing(endpoints: Endpoints, store: SqliteStore) -> None:
    before = endpoints.apply(IRIS, spec(1), by="ann")
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    big = spec(2)
    big = replace(big, models=(replace(big.models[0], env=(("X", "y" * 500_000),)),))
    with pytest.raises(Exhausted, match="full"):
        endpoints.apply(IRIS, big, by="ann")
    assert endpoints.get(IRIS) == before
    assert store.endpoint(IRIS) == before
    store._db.execute(f"PRAGMA max_page_count = {pages + 10_000}")
    assert endpoints.apply(IRIS, big, by="ann").generation == 2


def test_a_store_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    SqliteStore(tmp_path).close()
    with sqlite3.connect(tmp_path / "trimtab.db") as db:
        db.execute(f"PRAGMA user_version = {len(STEPS) + 1}")
    db.close()
    with pytest.raises(Conflict, match="newer trimtab"):
        SqliteStore(tmp_path)
