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

FAR_S = 7_258_118_400.0
"""The begin of 2200, in seconds since 1970: a time farther off is in milliseconds or finer, or wrong."""

TIME_HINT = "write ISO 8601 before the year 2200, such as 2023-11-16T18:17:03.979, or seconds as a number"
_FINER = {"milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}  # of them to a second
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 -- of times without an offset
_EPOCH_UTC = _EPOCH.replace(tzinfo=UTC)


class Rows:
    """The rows below the header, which is the first line that is not blank.

    `heads` are the columns' names, in lower case, and `line` is their line.
    """

    def __init__(self, path: str, reader: Iterable[list[str]]) -> None:
        self._path = path
        self._reader = iter(reader)
        self.heads: list[str] = []
        self.line = 0
        while not any(self.heads) and (row := next(self._reader, None)) is not None:
            self.heads = [head.strip().lower() for head in row]
            self.line += 1

    def read(self, numbers: Sequence[int]) -> tuple[Floats, Floats, list[Floats]]:
        """The line of each row, its time (s), and the columns `numbers` (0 and more). Raises InvalidInput."""
        chunks, line = [], self.line
        while chunk := list(islice(self._reader, CHUNK_ROWS)):
            chunks.append(self._parsed(chunk, numbers, line))
            line += len(chunk)
        if not sum(chunk.shape[1] for chunk in chunks):
            raise InvalidInput(
                "has no rows", where=self._path, hint="put one line per period or request in it"
            )
        lines, times_s, *columns = np.concatenate(chunks, axis=1)
        return lines, times_s, columns

    def _parsed(self, chunk: list[list[str]], numbers: Sequence[int], line: int) -> Floats:
        """Shape (2 + numbers, rows). At once if all rows are alike, else row by row."""
        rows = [row for row in chunk if row]
        try:
            columns = [[float(at) for at, row in enumerate(chunk, line + 1) if row]]
            columns.append(_seconds([row[0] for row in rows]))
            columns += [[float(row[index]) for row in rows] for index in numbers]
            found = np.array(columns)
        except (ValueError, IndexError, TypeError, OverflowError):
            return self._one_by_one(chunk, numbers, line)
        if np.isfinite(found).all() and (np.abs(found[1]) < FAR_S).all() and (found[2:] >= 0).all():
            return found
        return self._one_by_one(chunk, numbers, line)

    def _one_by_one(self, chunk: list[list[str]], numbers: Sequence[int], line: int) -> Floats:
        found = []
        for number, row in enumerate(chunk, line + 1):
            if any(cell.strip() for cell in row):
                cells = [self._number(row, index, number) for index in numbers]
                found.append([number, self._time(row, number), *cells])
        return np.array(found, dtype=np.float64).reshape(-1, 2 + len(numbers)).T

    def _time(self, row: list[str], line: int) -> float:
        try:
            return instant_s(row[0])
        except (ValueError, OverflowError):
            raise self.wrong(line, 0, *wrong_time(row[0])) from None

    def _number(self, row: list[str], index: int, line: int) -> float:
        if index >= len(row):
            raise self.wrong(line, index, "is missing", f"the header names {len(self.heads)} columns")
        try:
            value = float(row[index])
        except ValueError:
            value = -1.0
        if not (isfinite(value) and value >= 0):
            raise self.wrong(
                line, index, f"`{_short(row[index])}` is not a number from 0 up", "mend or remove the row"
            )
        return value

    def wrong(self, line: int, index: int, message: str, hint: str) -> InvalidInput:
        """The error that names a cell."""
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
        at_s = (at.replace(tzinfo=at.tzinfo or UTC) - _EPOCH_UTC).total_seconds()
    if not abs(at_s) < FAR_S:
        raise ValueError(text)
    return at_s


def wrong_time(text: str) -> tuple[str, str]:
    """What to say of a text that `instant_s` refused, and a hint."""
    try:
        away_s = abs(float(text))
    except ValueError:
        return f"`{_short(text)}` is not a time", TIME_HINT
    if not isfinite(away_s):
        return f"`{_short(text)}` is not a time", TIME_HINT
    finer = [
        f"these look like {unit}: divide them by {by:,.0f}"
        for unit, by in _FINER.items()
        if away_s < FAR_S * by
    ]
    return f"`{_short(text)}` as seconds is more than 230 years from 1970", finer[0] if finer else TIME_HINT


def is_dated(at_s: float) -> bool:
    """Whether a time is a date; those of 1970 are plain seconds."""
    return at_s >= 86_400 * 365


def instant_text(at_s: float) -> str:
    """As a trace would write it: a date, or plain seconds."""
    return date_text(at_s) if is_dated(at_s) else f"{at_s:.10g}"


def date_text(at_s: float) -> str:
    """A time as a date."""
    return datetime.fromtimestamp(at_s, UTC).replace(tzinfo=None).isoformat(timespec="seconds")


def _seconds(cells: list[str]) -> list[float]:
    """`instant_s` of cells that are all alike: all numbers, all with an offset or all without."""
    try:
        return [float(cell) for cell in cells]
    except ValueError:
        moments = [datetime.fromisoformat(cell) for cell in cells]
    epoch = _EPOCH if moments[0].tzinfo is None else _EPOCH_UTC
    return [(moment - epoch).total_seconds() for moment in moments]
