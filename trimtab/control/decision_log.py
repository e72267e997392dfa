"""The decisions of each endpoint as the store keeps them, with what they were made from. Bounded in bytes.

A decision takes some 900 bytes with a third of it for its signals, so an endpoint's log reaches back
about six hours; where there are more than 256 endpoints they share the room of so many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from trimtab.control.decisions import Logged
from trimtab.core.names import EndpointName
from trimtab.v1 import control_pb2 as v1

LOG_BYTES_MAX = 4 << 20  # per endpoint
LOGS_BYTES_MAX = 1 << 30  # of all endpoints together
TRIM_ROWS = 8  # looked at in one go while room is made

_COLUMNS = "namespace, name, at_s, changed, decision, axis, size, given, checkpoint"


class DecisionLog:
    """One endpoint's decisions of both axes, in the order in which they were made."""

    def __init__(
        self,
        run: Callable[..., None],
        query: Callable[..., list[tuple[Any, ...]]],
        bytes_max: int | None = None,
    ) -> None:
        """The store's own ways to write and to read; `bytes_max` is for all endpoints."""
        self._run = run
        self._query = query
        self._bytes_max = bytes_max

    def add(self, logged: Iterable[Logged]) -> None:
        """Within a transaction of the caller. An endpoint's oldest beyond its bytes go."""
        logs = int(self._query("SELECT COUNT(*) FROM log_sizes")[0][0])
        most = min(LOG_BYTES_MAX, (self._bytes_max or LOGS_BYTES_MAX) // max(1, logs))
        for entry in logged:
            self._add(entry, most)

    def latest(
        self,
        name: EndpointName,
        limit: int,
        before_s: float,
        *,
        axis: v1.Axis.ValueType = v1.AXIS_PODS,
        changes_only: bool = False,
    ) -> list[v1.Decision]:
        """Newest first, each made before `before_s` (wall clock)."""
        query = (
            "SELECT decision FROM decisions WHERE namespace = ? AND name = ? AND at_s < ? AND changed >= ?"
            " AND axis = ? ORDER BY id DESC LIMIT ?"
        )
        rows = self._query(query, *_key(name), before_s, int(changes_only), axis, limit)
        return [v1.Decision.FromString(row[0]) for row in rows]

    def to_replay(self, name: EndpointName, since_s: float, until_s: float) -> list[Logged]:
        """Decisions about pods, oldest first, from the last checkpoint at or before `since_s` on."""
        where = "namespace = ? AND name = ? AND axis = 0"
        first = self._query(
            f"SELECT id FROM decisions WHERE {where} AND at_s <= ? AND checkpoint != x''"  # noqa: S608
            " ORDER BY id DESC LIMIT 1",
            *_key(name),
            since_s,
        )
        rows = self._query(
            f"SELECT decision, given, checkpoint FROM decisions WHERE {where} AND id >= ? AND at_s <= ?"  # noqa: S608
            " ORDER BY id",
            *_key(name),
            first[0][0] if first else 0,
            until_s,
        )
        return [Logged(name, v1.Decision.FromString(row[0]), row[1], row[2]) for row in rows]

    def _add(self, entry: Logged, most: int) -> None:
        message, key = entry.message.SerializeToString(), _key(entry.name)
        size = len(message) + len(entry.given) + len(entry.checkpoint)
        self._run(
            f"INSERT INTO decisions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
            *key,
            entry.message.at_s,
            int(entry.changed),
            message,
            int(entry.message.axis),
            size,
            entry.given,
            entry.checkpoint,
        )
        self._run(
            "INSERT INTO log_sizes VALUES (?, ?, ?)"
            " ON CONFLICT (namespace, name) DO UPDATE SET bytes = bytes + excluded.bytes",
            *key,
            size,
        )
        self._trim(key, most)

    def _trim(self, key: tuple[str, str], most: int) -> None:
        where = "WHERE namespace = ? AND name = ?"
        held = before = int(self._query(f"SELECT bytes FROM log_sizes {where}", *key)[0][0])  # noqa: S608
        if held <= most:
            return
        query = f"SELECT id, size FROM decisions {where} ORDER BY id LIMIT {TRIM_ROWS}"  # noqa: S608
        while held > most:
            last = 0
            for row, size in self._query(query, *key):
                last, held = row, held - size
                if held <= most:
                    break
            self._run(f"DELETE FROM decisions {where} AND id <= ?", *key, last)  # noqa: S608
        self._run(f"UPDATE log_sizes SET bytes = bytes - ? {where}", before - held, *key)  # noqa: S608


def _key(name: EndpointName) -> tuple[str, str]:
    return name.namespace, name.name
