"""Signatures of columns: from a request's data to rows, and from rows to what the model takes.

MLflow makes a DataFrame of the data, casts its columns to the signature's types, and makes another one
of the columns that the signature names, in the signature's order. Here each value is looked at once;
where all of them are what the signature says, the result is known, and is built in one go.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from trimtab.runtime.mlflow.fast.envelope import Form

EXACT = 1 << 53  # every integer up to it is a double; beyond, the order of conversions may show

Row = Sequence[Any]
Names = tuple[str, ...]
T = TypeVar("T")

_NUMBERS = frozenset({int, float})


def _doubles(values: Row) -> bool:
    types = set(map(type, values))
    if types == {float}:
        return True
    return types <= _NUMBERS and min(values) >= -EXACT and max(values) <= EXACT


def _integers(bits: int) -> Callable[[Row], bool]:
    low, high = -(1 << bits - 1), (1 << bits - 1) - 1

    def sure(values: Row) -> bool:
        return set(map(type, values)) == {int} and low <= min(values) and max(values) <= high

    return sure


def _booleans(values: Row) -> bool:
    return set(map(type, values)) == {bool}


def _texts(values: Row) -> bool:
    """Text that NumPy keeps as it is: it drops zeros at the end."""
    return set(map(type, values)) == {str} and not any("\0" in value for value in values)


_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d:\d\d(?:\.\d{6})?)?", re.ASCII)
_DIGITS = re.compile(r"\d", re.ASCII)


def _dates(values: Row) -> bool:
    """Dates without a time zone, all written alike: pandas takes the first one's format for all."""
    if set(map(type, values)) != {str} or not all(map(_DATE.fullmatch, values)):
        return False
    return len(set(map(_date_format, values))) == 1


def _date_format(text: str) -> str:
    """`0000-00-00 00:00:00`."""
    return _DIGITS.sub("0", text)


@dataclass(frozen=True)
class Kind:
    """A type of MLflow's: which values are surely of it, and what they are in a DataFrame."""

    name: str
    sure: Callable[[Row], bool]
    dtype: np.dtype[Any] | None  # None: as pandas has it
    forms: frozenset[Form] = frozenset(Form)

    def series(self, values: Row) -> Any:
        """One column of a DataFrame."""
        if self.dtype is not None:
            return np.array(values, dtype=self.dtype)
        series = pd.Series(list(values))
        if self.name != "datetime":
            return series
        series = pd.to_datetime(series)
        return series.dt.as_unit("ns") if hasattr(series.dt, "as_unit") else series


_FRAMES = frozenset({Form.SPLIT, Form.RECORDS})  # elsewhere NumPy reads dates, not pandas
KINDS = {
    kind.name: kind
    for kind in (
        Kind("double", _doubles, np.dtype("float64")),
        Kind("float", _doubles, np.dtype("float32")),
        Kind("long", _integers(64), np.dtype("int64")),
        Kind("integer", _integers(32), np.dtype("int32")),
        Kind("boolean", _booleans, np.dtype("bool")),
        Kind("string", _texts, None),
        Kind("datetime", _dates, None, _FRAMES),
    )
}


@dataclass(frozen=True)
class Column:
    """One input of a signature."""

    name: str
    kind: Kind
    required: bool = True


class Columns:
    """A compiled signature of named columns."""

    exact = False  # of integers only those are read that have 64 bits

    def __init__(self, columns: tuple[Column, ...]) -> None:
        self.columns = columns
        self._all = tuple(column.name for column in columns)
        self._required = frozenset(column.name for column in columns if column.required)
        self._layouts: dict[Names, _Layout] = {}

    @classmethod
    def compiled(cls, schema: Any) -> Columns | None:
        """Of an MLflow `Schema`; None if it has inputs of other kinds, or without names."""
        columns = []
        for spec in schema.inputs:
            kind = KINDS.get(getattr(spec.type, "name", ""))
            if kind is None or not isinstance(spec.name, str):
                return None
            required = spec.required if hasattr(spec, "required") else not spec.optional  # before 2.10
            columns.append(Column(spec.name, kind, required))
        names = {column.name for column in columns}
        return cls(tuple(columns)) if columns and len(names) == len(columns) else None

    def read(self, form: Form, data: Any) -> tuple[tuple[Names, Names], list[Row]] | None:
        """Which columns there are, in the signature's order, the formats of dates, and the rows.

        None if not sure. Rows with the same columns and formats can be joined.
        """
        if form is Form.SPLIT:
            found = self._split(data)
        elif type(data) is list:
            found = self._records(data)
        elif form is not Form.RECORDS and type(data) is dict:
            found = self._by_column(data)
        else:
            found = None
        if found is None:
            return None
        names, rows = found
        layout = self._layout(names)
        if layout is None or not layout.sure(form, rows):
            return None
        return (names, layout.formats(rows)), rows

    @staticmethod
    def length(rows: list[Row]) -> int:
        """How many rows."""
        return len(rows)

    @staticmethod
    def joined(several: Sequence[list[Row]]) -> list[Row]:
        """The rows of several requests as one."""
        return several[0] if len(several) == 1 else [row for rows in several for row in rows]

    def built(self, found: Any, rows: list[Row]) -> pd.DataFrame:
        """The DataFrame that MLflow would hand to the model; `found` is what `read` did."""
        layout = self._layouts[found[0]]
        if layout.dtype is not None:
            values = np.array(rows, dtype=layout.dtype, order="F")  # one block, as MLflow's has
            return pd.DataFrame(values, columns=layout.index, copy=False)
        series = zip(layout.columns, zip(*rows, strict=True), strict=True)
        return pd.DataFrame({column.name: column.kind.series(values) for column, values in series})

    def _split(self, data: Any) -> tuple[Names, list[Row]] | None:
        if type(data) is not dict or len(data) != 2 or "columns" not in data or "data" not in data:
            return None
        given, rows = data["columns"], data["data"]
        if type(given) is not list or type(rows) is not list or not _all_lists(rows, len(given)):
            return None
        if tuple(given) == self._all:
            return self._all, rows
        if set(map(type, given)) != {str}:
            return None
        names = self._ordered(given)
        return None if names is None else (names, _arranged(rows, given, names))

    def _records(self, data: list[Any]) -> tuple[Names, list[Row]] | None:
        if set(map(type, data)) != {dict}:
            return None
        keys = data[0].keys()
        names = self._ordered(keys)
        if names is None or any(record.keys() != keys for record in data):
            return None
        if len(names) == 1:
            return names, [(record[names[0]],) for record in data]
        return names, list(map(itemgetter(*names), data))

    def _by_column(self, data: dict[str, Any]) -> tuple[Names, list[Row]] | None:
        names = self._ordered(data)
        if names is None:
            return None
        lists = [data[name] for name in names]
        if set(map(type, lists)) != {list} or len(set(map(len, lists))) != 1:
            return None
        return names, list(zip(*lists, strict=True))

    def _ordered(self, given: Any) -> Names | None:
        """The given columns in the signature's order; None if one is missing, double or too many."""
        wanted = set(given)
        if len(wanted) != len(given) or not self._required <= wanted:
            return None
        names = self._all if len(wanted) == len(self._all) else self._some(wanted)
        return names if wanted.issubset(names) and len(names) == len(wanted) else None

    def _some(self, wanted: set[str]) -> Names:
        return tuple(name for name in self._all if name in wanted)

    def _layout(self, names: Names) -> _Layout | None:
        found = self._layouts.get(names)
        if found is None and names and len(self._layouts) < LAYOUTS_MAX:
            found = _Layout(tuple(column for column in self.columns if column.name in names))
            self._layouts[names] = found
        return found


LAYOUTS_MAX = 64  # of optional columns some are there and some not: so many combinations are kept


class _Layout:
    """The columns that some requests have."""

    def __init__(self, columns: tuple[Column, ...]) -> None:
        self.columns = columns
        kinds = {column.kind for column in columns}
        self.only = kinds.pop() if len(kinds) == 1 else None
        self.dtype = self.only.dtype if self.only else None
        self.forms = frozenset(Form).intersection(*(column.kind.forms for column in columns))
        self._dates = [place for place, column in enumerate(columns) if column.kind.name == "datetime"]
        self.index = pd.DataFrame({column.name: [0] for column in columns}).columns

    def formats(self, rows: list[Row]) -> Names:
        """How each column of dates is written."""
        return tuple(_date_format(rows[0][place]) for place in self._dates) if self._dates else ()

    def sure(self, form: Form, rows: list[Row]) -> bool:
        """Whether every value is surely of its column's type."""
        if not rows or form not in self.forms:
            return False
        if self.only is not None and len(rows) == 1:
            return self.only.sure(rows[0])
        values = zip(*rows, strict=True)
        return all(column.kind.sure(each) for column, each in zip(self.columns, values, strict=True))


def _all_lists(rows: list[Any], length: int) -> bool:
    """Whether each of some rows is a list of this length."""
    if len(rows) == 1:
        return type(rows[0]) is list and len(rows[0]) == length
    return set(map(type, rows)) == {list} and set(map(len, rows)) == {length}


def _arranged(rows: list[Row], given: list[str], names: Names) -> list[Row]:
    """The rows with their values in the order of `names`."""
    if tuple(given) == names:
        return rows
    if len(names) == 1:
        return rows
    where = {name: position for position, name in enumerate(given)}
    return list(map(itemgetter(*(where[name] for name in names)), rows))
