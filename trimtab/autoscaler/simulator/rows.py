"""The rows of a trace's CSV file as arrays: many at a time, one by one to say which is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import islice
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from trimtab.core.errors import InvalidInput

Floats = NDArray[np.float64]

CHUNK_ROWS = 50_000
"""Rows held as text at a time: 10 million rows then need little more memory than their numbers."""

SHOWN_MAX = 40  # characters of a wrong cell

TIME_HINT = "write ISO 8601, such as 2023-11-16T18:17:03.979, or seconds as a number"
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 -- of times without an offset
_EPOCH_UTC = _EPOCH.replace(tzinfo=UTC)


class Rows:
    """The rows below the header. `heads` are the columns' names, in lower case."""

    def __init__(self, path: str, reader: Iterable[list[str]]) -> None:
        self._path = path
        self._reader = iter(reader)
        self.heads = [head.strip().lower() for head in next(self._reader, [])]

    def read(self, numbers: Sequence[int]) -> tuple[Floats, list[Floats]]:
        """The times (s), and the columns `numbers` (0 and more). Raises InvalidInput."""
        chunks, line = [], 1
        while chunk := list(islice(self._reader, CHUNK_ROWS)):
            chunks.append(self._parsed(chunk, numbers, line))
            line += len(chunk)
        if not sum(chunk.shape[1] for chunk in chunks):
            raise InvalidInput(
                "has no rows", where=self._path, hint="put one line per period or request in it"
            )
        times_s, *columns = np.concatenate(chunks, axis=1)
        return times_s, columns

    def _parsed(self, chunk: list[list[str]], numbers: Sequence[int], line: int) -> Floats:
        """Shape (1 + numbers, rows). At once if all rows are alike, else row by row."""
        rows = [row for row in chunk if row]
        try:
            columns = [_seconds([row[0] for row in rows])]
            columns += [[float(row[index]) for row in rows] for index in numbers]
            found = np.array(columns)
        except (ValueError, IndexError, TypeError, OverflowError):
            return self._one_by_one(chunk, numbers, line)
        if np.isfinite(found).all() and (found[1:] >= 0).all():
            return found
        return self._one_by_one(chunk, numbers, line)

    def _one_by_one(self, chunk: list[list[str]], numbers: Sequence[int], line: int) -> Floats:
        found = []
        for number, row in enumerate(chunk, line + 1):
            if any(cell.strip() for cell in row):
                found.append([self._time(row, number), *(self._number(row, i, number) for i in numbers)])
        return np.array(found).reshape(-1, 1 + len(numbers)).T

    def _time(self, row: list[str], line: int) -> float:
        try:
            return instant_s(row[0])
        except (ValueError, OverflowError):
            raise self._wrong(line, 0, f"`{_short(row[0])}` is not a time", TIME_HINT) from None

    def _number(self, row: list[str], index: int, line: int) -> float:
        if index >= len(row):
            raise self._wrong(line, index, "is missing", f"the header names {len(self.heads)} columns")
        try:
            value = float(row[index])
        except ValueError:
            value = -1.0
        if not (isfinite(value) and value >= 0):
            raise self._wrong(
                line, index, f"`{_short(row[index])}` is not a number from 0 up", "mend or remove the row"
            )
        return value

    def _wrong(self, line: int, index: int, message: str, hint: str) -> InvalidInput:
        where = f"{self._path}:{line}: column `{self.heads[index]}`"
        return InvalidInput(message, where=where, hint=hint)


def _short(cell: str) -> str:
    return cell if len(cell) <= SHOWN_MAX else f"{cell[:SHOWN_MAX]}…"


def instant_s(text: str) -> float:
    """Seconds since 1970 of an ISO 8601 time, or the number itself. Raises ValueError, OverflowError."""
    try:
        at_s = float(text)
    except ValueError:
        at = datetime.fromisoformat(text.strip())
        return (at.replace(tzinfo=at.tzinfo or UTC) - _EPOCH_UTC).total_seconds()
    if not isfinite(at_s):
        raise ValueError(text)
    return at_s


def instant_text(at_s: float) -> str:
    """As a trace would write it: a date, or plain seconds if that would be one of 1970."""
    if at_s < 86_400 * 365:
        return f"{at_s:g}"
    return datetime.fromtimestamp(at_s, UTC).replace(tzinfo=None).isoformat(timespec="seconds")


def _seconds(cells: list[str]) -> list[float]:
    """`instant_s` of cells that are all alike: all numbers, all with an offset or all without."""
    try:
        return [float(cell) for cell in cells]
    except ValueError:
        moments = [datetime.fromisoformat(cell) for cell in cells]
    epoch = _EPOCH if moments[0].tzinfo is None else _EPOCH_UTC
    return [(moment - epoch).total_seconds() for moment in moments]
