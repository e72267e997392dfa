"""The store's schema, one step per version. Steps are only added; opening a store applies them."""

from __future__ import annotations

import sqlite3

from trimtab.core.errors import Conflict

STEPS = (
    """
    CREATE TABLE endpoints (
        namespace TEXT NOT NULL, name TEXT NOT NULL, spec TEXT NOT NULL, generation INTEGER NOT NULL,
        changed_at_s REAL NOT NULL, wanted_revision INTEGER NOT NULL, serving_revision INTEGER NOT NULL,
        outcome TEXT NOT NULL, failure TEXT NOT NULL, stages TEXT NOT NULL, deleting INTEGER NOT NULL,
        PRIMARY KEY (namespace, name)
    );
    CREATE TABLE revisions (
        namespace TEXT NOT NULL, name TEXT NOT NULL, number INTEGER NOT NULL, hash TEXT NOT NULL,
        model TEXT NOT NULL, created_at_s REAL NOT NULL, pods_wanted INTEGER NOT NULL,
        failures INTEGER NOT NULL, failed_at_s REAL NOT NULL,
        PRIMARY KEY (namespace, name, number)
    );
    CREATE TABLE changes (
        namespace TEXT NOT NULL, name TEXT NOT NULL, generation INTEGER NOT NULL, at_s REAL NOT NULL,
        author TEXT NOT NULL, what TEXT NOT NULL, revision INTEGER NOT NULL, spec TEXT NOT NULL,
        outcome TEXT NOT NULL,
        PRIMARY KEY (namespace, name, generation)
    );
    CREATE TABLE decisions (
        id INTEGER PRIMARY KEY, namespace TEXT NOT NULL, name TEXT NOT NULL, at_s REAL NOT NULL,
        changed INTEGER NOT NULL, decision BLOB NOT NULL
    );
    CREATE INDEX decisions_of ON decisions (namespace, name, at_s);
    """,
    # An index ends with the id, by which the newest are found and the oldest trimmed: no sorting then.
    """
    DROP INDEX decisions_of;
    CREATE INDEX decisions_of ON decisions (namespace, name);
    """,
    # What decisions were made from, for a replay; how large each endpoint's log is; what was learned.
    """
    ALTER TABLE decisions ADD COLUMN axis INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE decisions ADD COLUMN size INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE decisions ADD COLUMN given BLOB NOT NULL DEFAULT x'';
    ALTER TABLE decisions ADD COLUMN checkpoint BLOB NOT NULL DEFAULT x'';
    UPDATE decisions SET size = length(decision);
    CREATE TABLE log_sizes (
        namespace TEXT NOT NULL, name TEXT NOT NULL, bytes INTEGER NOT NULL, PRIMARY KEY (namespace, name)
    );
    INSERT INTO log_sizes SELECT namespace, name, SUM(size) FROM decisions GROUP BY namespace, name;
    CREATE TABLE learned (
        hash TEXT PRIMARY KEY, target INTEGER NOT NULL, content TEXT NOT NULL, at_s REAL NOT NULL
    );
    """,
    # The limit with which an update begins.
    """
    ALTER TABLE revisions ADD COLUMN first_limit INTEGER NOT NULL DEFAULT 0;
    """,
)


def migrate(db: sqlite3.Connection, where: str) -> None:
    """Bring the schema up to date. Raises Conflict if a newer trimtab wrote the store."""
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if version > len(STEPS):
        raise Conflict(
            f"was written by a newer trimtab (schema {version}, this one knows {len(STEPS)})",
            where=where,
            hint="upgrade trimtab, or use another --home",
        )
    for number, step in enumerate(STEPS[version:], version + 1):
        db.executescript(f"BEGIN; {step}; PRAGMA user_version = {number}; COMMIT;")
