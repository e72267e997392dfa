"""The local store: SQLite in WAL mode. Nothing else on this machine is authoritative.

One connection, used from one thread; a write is one transaction and is on disk when the call
returns. All methods raise Exhausted when the disk is full; then nothing was changed.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from trimtab.control import codec
from trimtab.control.decision_log import DecisionLog
from trimtab.control.decisions import Logged
from trimtab.control.migrations import migrate
from trimtab.control.records import Change, EndpointRecord, Failure, LearnedLimit, Outcome, RevisionRecord
from trimtab.core.errors import Exhausted, Failed, TrimtabError, Unauthorised
from trimtab.core.names import EndpointName
from trimtab.core.revision import Revision, RevisionKey

FILE = "trimtab.db"
CHANGES_MAX = 500  # per endpoint
UNUSED_KEPT_S = 30 * 86_400.0  # what was learned of a model that nothing refers to: it may be deployed again
LEARNED_MAX = 10_000

Key = tuple[str, str]
Value = str | int | float | bytes


class SqliteStore:
    """Endpoints, revisions, changes, decisions (`log`) and what was learned."""

    def __init__(self, home: Path | None, log_bytes_max: int | None = None) -> None:
        """Opens or makes `home/trimtab.db`, or with None one in memory.

        Raises Failed, Exhausted, Unauthorised or Conflict. `log_bytes_max` bounds the decisions of all
        endpoints together; None: as `decision_log` does.
        """
        self.path = home / FILE if home is not None else Path(":memory:")
        with self._explained():
            self._db = sqlite3.connect(self.path, isolation_level=None, timeout=5.0)
            if home is not None:
                self.path.chmod(0o600)
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("PRAGMA foreign_keys = ON")
            migrate(self._db, str(self.path))
        self.log = DecisionLog(self._run, self._query, log_bytes_max)

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of it or nothing. Raises Exhausted if the disk is full."""
        with self._explained():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # a full disk may have rolled it back already
                    self._db.execute("ROLLBACK")
                raise

    def recorded(self, name: EndpointName) -> bool:  # noqa: ARG002
        """A put is on the disk when it returns."""
        return True

    # endpoints

    def endpoints(self) -> list[EndpointRecord]:
        rows = self._query("SELECT * FROM endpoints ORDER BY namespace, name")
        return [_endpoint(row) for row in rows]

    def endpoint(self, name: EndpointName) -> EndpointRecord | None:
        rows = self._query("SELECT * FROM endpoints WHERE namespace = ? AND name = ?", *_key(name))
        return _endpoint(rows[0]) if rows else None

    def put_endpoint(self, record: EndpointRecord) -> None:
        self._run(
            "INSERT OR REPLACE INTO endpoints VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *_key(record.name),
            codec.spec_to_json(record.spec),
            record.generation,
            record.changed_at_s,
            record.wanted_revision,
            record.serving_revision,
            record.outcome.name,
            json.dumps(asdict(record.failure)),
            json.dumps(record.stages),
            int(record.deleting),
        )

    def remove_endpoint(self, name: EndpointName) -> None:
        """The endpoint and all that was recorded of it."""
        with self.transaction():
            for table in ("endpoints", "revisions", "changes", "decisions", "log_sizes"):
                self._run(f"DELETE FROM {table} WHERE namespace = ? AND name = ?", *_key(name))  # noqa: S608

    # revisions

    def revisions(self, name: EndpointName) -> list[RevisionRecord]:
        """Oldest first."""
        query = (
            "SELECT revisions.*, COALESCE(target, 0) FROM revisions LEFT JOIN learned USING (hash)"
            " WHERE namespace = ? AND name = ? ORDER BY number"
        )
        return [_revision(row) for row in self._query(query, *_key(name))]

    def put_revision(self, record: RevisionRecord) -> None:
        revision = record.revision
        self._run(
            "INSERT OR REPLACE INTO revisions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *_key(revision.key.endpoint),
            revision.key.number,
            revision.hash,
            codec.model_to_json(revision.model),
            revision.created_at_s,
            record.pods_wanted,
            record.failures,
            record.failed_at_s,
            record.first_limit,
        )

    def remove_revision(self, key: RevisionKey) -> None:
        query = "DELETE FROM revisions WHERE namespace = ? AND name = ? AND number = ?"
        self._run(query, *_key(key.endpoint), key.number)

    # changes

    def put_change(self, name: EndpointName, change: Change) -> None:
        """Adds or replaces one change; the oldest beyond CHANGES_MAX go."""
        self._run(
            "INSERT OR REPLACE INTO changes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *_key(name),
            change.generation,
            change.at_s,
            change.by,
            change.what,
            change.revision,
            codec.spec_to_json(change.spec),
            change.outcome,
        )
        query = "DELETE FROM changes WHERE namespace = ? AND name = ? AND generation <= ?"
        self._run(query, *_key(name), change.generation - CHANGES_MAX)

    def changes(self, name: EndpointName, limit: int) -> list[Change]:
        """Newest first."""
        query = "SELECT * FROM changes WHERE namespace = ? AND name = ? ORDER BY generation DESC LIMIT ?"
        return [_change(row) for row in self._query(query, *_key(name), limit)]

    def set_change_outcome(self, name: EndpointName, generation: int, outcome: str) -> None:
        query = "UPDATE changes SET outcome = ? WHERE namespace = ? AND name = ? AND generation = ?"
        self._run(query, outcome, *_key(name), generation)

    # what was learned

    def learned(self, revision_hash: str) -> LearnedLimit | None:
        rows = self._query("SELECT * FROM learned WHERE hash = ?", revision_hash)
        return LearnedLimit(*rows[0]) if rows else None

    def record(self, logged: Sequence[Logged], learned: Sequence[LearnedLimit] = ()) -> None:
        """All or none, in one write to the disk; nothing is written for nothing."""
        if not logged and not learned:
            return
        with self.transaction():
            self.log.add(logged)
            for each in learned:
                self._put_learned(each)

    def _put_learned(self, learned: LearnedLimit) -> None:
        """Adds or replaces it; before one more is kept, the old and the many that nothing refers to go."""
        known = self.learned(learned.hash) is not None
        values = (learned.hash, learned.target, learned.content, learned.at_s)
        self._run("INSERT OR REPLACE INTO learned VALUES (?, ?, ?, ?)", *values)
        if known:
            return
        self._run(
            "DELETE FROM learned WHERE hash NOT IN (SELECT hash FROM revisions) AND (at_s < ? OR hash NOT IN"
            " (SELECT hash FROM learned ORDER BY at_s DESC LIMIT ?))",
            learned.at_s - UNUSED_KEPT_S,
            LEARNED_MAX,
        )

    def _query(self, query: str, *values: Value) -> list[tuple[Any, ...]]:
        with self._explained():
            return list(self._db.execute(query, values))

    def _run(self, query: str, *values: Value) -> None:
        with self._explained():
            self._db.execute(query, values)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except TrimtabError:
            raise
        except sqlite3.Error as error:
            raise _meaning(error, self.path) from error
        except PermissionError as error:
            raise Unauthorised("cannot be written", where=str(self.path), hint="mend its rights") from error


def _meaning(error: sqlite3.Error, path: Path) -> TrimtabError:
    where, text = str(path), str(error)
    if "full" in text or "disk I/O" in text:
        return Exhausted(
            f"the store cannot be written: {text}", where=where, hint="free disk space, then try again"
        )
    if "readonly" in text or "unable to open" in text:
        return Unauthorised(
            f"the store cannot be opened: {text}", where=where, hint="mend the rights of the home"
        )
    hint = "keep a copy of it, then `trimtab down --purge` and deploy again"
    return Failed(f"the store is damaged or not ours: {text}", where=where, hint=hint)


def _key(name: EndpointName) -> Key:
    return name.namespace, name.name


def _endpoint(row: tuple[Any, ...]) -> EndpointRecord:
    namespace, name, spec, generation, changed, wanted, serving, outcome, failure, stages, deleting = row
    key = EndpointName(namespace, name)
    found = Failure(**json.loads(failure))
    return EndpointRecord(
        name=key,
        spec=codec.spec_from_json(key, spec),
        generation=generation,
        changed_at_s=changed,
        wanted_revision=wanted,
        serving_revision=serving,
        outcome=Outcome[outcome],
        failure=replace(found, log_tail=tuple(found.log_tail)),
        stages=tuple((stage, float(took)) for stage, took in json.loads(stages)),
        deleting=bool(deleting),
    )


def _revision(row: tuple[Any, ...]) -> RevisionRecord:
    namespace, name, number, hash_, model, created, pods_wanted, failures, failed_at, first, learned = row
    key = RevisionKey(EndpointName(namespace, name), number)
    return RevisionRecord(
        revision=Revision(key, codec.model_from_json(model), hash_, created),
        pods_wanted=pods_wanted,
        failures=failures,
        failed_at_s=failed_at,
        learned_limit=learned,
        first_limit=first,
    )


def _change(row: tuple[Any, ...]) -> Change:
    namespace, name, generation, at_s, by, what, revision, spec, outcome = row
    return Change(
        generation=generation,
        at_s=at_s,
        by=by,
        what=what,
        revision=revision,
        spec=codec.spec_from_json(EndpointName(namespace, name), spec),
        outcome=outcome,
    )
