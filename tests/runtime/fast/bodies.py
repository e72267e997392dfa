"""Request bodies for a signature: mostly what it allows, and whatever else may come."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pandas as pd
from pyarrow import ArrowException

from tests.runtime.fast.subjects import EXITS, RAISES, RAISES_MLFLOWS, UNWRITABLE, Subject

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
CONTENT_TYPES = (
    *["application/json"] * 12,
    "application/json; charset=utf-8",
    "application/json;charset=UTF-8",
    "application/json; charset=latin-1",
    "text/csv",
)
PARQUET = "application/vnd.apache.parquet"
WHOLE = st.one_of(st.integers(-9, 9), st.sampled_from([RAISES, RAISES_MLFLOWS, UNWRITABLE, EXITS]))
DATES = ["2026-01-02", "2026-01-02 03:04:05", "2026-01-02T03:04:05.123456", "1066-10-14"]
VALUES = {
    "double": st.one_of(st.floats(-1e6, 1e6), st.floats(), WHOLE, st.sampled_from([1 << 53, -(1 << 53)])),
    "float": st.one_of(st.floats(-1e6, 1e6), WHOLE, st.just((1 << 24) + 1)),
    "long": st.one_of(WHOLE, st.integers(-(1 << 63), (1 << 63) - 1)),
    "integer": st.one_of(WHOLE, st.integers(-(1 << 31), (1 << 31) - 1)),
    "boolean": st.booleans(),
    "string": st.text(max_size=6),
    "datetime": st.sampled_from(DATES),
    "binary": st.sampled_from(["AAEC", "", "not base64"]),
    "map": st.dictionaries(st.text(max_size=3), WHOLE, max_size=2),
    "object": st.fixed_dictionaries({"n": WHOLE}, optional={"s": st.text(max_size=3)}),
    "anytype": st.one_of(WHOLE, st.none(), st.text(max_size=3), st.lists(WHOLE, max_size=2)),
}
VALUES["array"] = st.lists(VALUES["double"], max_size=3)
PANDAS = {"double": "float64", "float": "float32", "integer": "int32", "datetime": "datetime64[ns]"}
KINDS = {"float64": "double", "float32": "float", "int64": "long", "int32": "integer", "uint8": "small"}
KINDS |= {"bool": "boolean", "object": "string", "<U0": "string"}
VALUES["small"] = st.integers(0, 255)
ODD_NUMBERS = [1.5, 2.0, -0.0, 300, -1, 10**20, -(10**20), 1 << 63, 1 << 64, (1 << 53) + 1, 1e300]
ODD_TEXTS = ["5", "x", "", "a\0", "2026-01-02T03:04:05Z", "\ud800"]
ODD_REST = [None, True, float("nan"), float("inf"), [], [1], [[1.5]], {}, {"a": 1}]
ODD = st.sampled_from([*ODD_NUMBERS, *ODD_TEXTS, *ODD_REST])
PARAMS = st.sampled_from(
    [None, {}, {"scale": 2}, {"scale": 2.5, "top": 1}, {"scale": "x"}, {"other": 1}, {"top": 1 << 64}, 7]
)


@st.composite
def bodies(draw: st.DrawFn, subject: Subject) -> tuple[bytes, str]:
    """A body and its content type."""
    form = draw(st.sampled_from(FORMS))
    odd = draw(st.sampled_from([False] * 3 + [True]))
    data = draw(_table(subject, form, odd) if subject.table else _tensors(subject, form, odd))
    value: dict[str, Any] = {form: data}
    if draw(st.integers(0, 5)) == 0:
        value["params"] = draw(PARAMS)
    if odd and draw(st.integers(0, 9)) == 0:
        value[draw(st.sampled_from([*FORMS, "signature_name", "prompt", "x"]))] = [1]
    body = json.dumps(value, ensure_ascii=draw(st.booleans())).encode(errors="surrogatepass")
    if odd and draw(st.integers(0, 3)) == 0:
        body = draw(_damaged(body))
    return body, draw(st.sampled_from(CONTENT_TYPES))


def requests(subject: Subject) -> st.SearchStrategy[tuple[bytes, str]]:
    """A body and its content type, in any format that MLflow takes."""
    return st.one_of(*[bodies(subject)] * 7, files(subject)) if subject.table else bodies(subject)


@st.composite
def files(draw: st.DrawFn, subject: Subject) -> tuple[bytes, str]:
    """A table as CSV, sometimes a broken one, or as Parquet."""
    odd = draw(st.sampled_from([False] * 3 + [True]))
    rows = draw(_table(subject, "dataframe_records", odd))
    whole = json.dumps(rows, ensure_ascii=False).encode(errors="replace")  # half characters pandas refuses
    frame = pd.DataFrame(json.loads(whole))
    if draw(st.booleans()):
        text = frame.to_csv(index=draw(st.booleans())).encode()
        return text[: draw(st.integers(0, len(text)))] if odd and draw(st.booleans()) else text, "text/csv"
    try:
        kinds = {} if odd else {n: PANDAS[k] for n, k in subject.kinds.items() if k in PANDAS and n in frame}
        return frame.astype(kinds).to_parquet(), PARQUET
    except (ArrowException, ValueError, TypeError, OverflowError):  # a column of several types
        return b"PAR1", PARQUET


def _cell(kind: str, odd: bool) -> st.SearchStrategy[Any]:
    return st.one_of(*[VALUES[kind]] * 4, ODD) if odd else VALUES[kind]


@st.composite
def _table(draw: st.DrawFn, subject: Subject, form: str, odd: bool) -> Any:
    names = [name for name in subject.kinds if name not in subject.optional or draw(st.booleans())]
    if draw(st.booleans()):
        names = draw(st.permutations(names))
    rows = [
        {name: draw(_cell(subject.kinds[name], odd)) for name in names}
        for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2, 3] if odd else [1, 1, 1, 2, 3])))
    ]
    if odd:
        _spoil(draw, rows)
    if form == "dataframe_split":
        columns = list(rows[0]) if rows else names
        split: dict[str, Any] = {"columns": columns, "data": [list(row.values()) for row in rows]}
        return _spoiled_split(draw, split) if odd else split
    if form in ("instances", "inputs") and draw(st.booleans()):
        return {name: [row.get(name) for row in rows] for name in names}
    return rows


def _spoil(draw: st.DrawFn, rows: list[dict[str, Any]]) -> None:
    """A row without a column, or with one too many."""
    if rows and draw(st.integers(0, 3)) == 0:
        row = draw(st.sampled_from(rows))
        row.pop(draw(st.sampled_from([*row, "no such"])), None)
    if rows and draw(st.integers(0, 3)) == 0:
        for row in rows:
            row["extra"] = draw(ODD)


def _spoiled_split(draw: st.DrawFn, split: dict[str, Any]) -> Any:
    how = draw(st.sampled_from(["", "", "index", "no columns", "double", "no data", "list", "other"]))
    if how == "index":
        split["index"] = list(range(5, 5 + len(split["data"])))
    elif how == "no columns":
        del split["columns"]
    elif how == "double":
        split["columns"] = [split["columns"][0] for _ in split["columns"]] if split["columns"] else []
    elif how == "no data":
        del split["data"]
    elif how == "list":
        return split["data"]
    elif how == "other":
        split["dtype"] = "x"
    return split


@st.composite
def _tensors(draw: st.DrawFn, subject: Subject, form: str, odd: bool) -> Any:
    rows = draw(st.integers(0 if odd else 1, 3))
    found = {}
    for name, shape in subject.shapes.items():
        kind = KINDS[subject.kinds[name]]
        lengths = [rows, *shape[1:]]
        if odd and draw(st.integers(0, 3)) == 0:
            place = draw(st.integers(0, len(lengths) - 1))
            lengths[place] += 1
        found[name] = draw(_nested(kind, lengths, odd))
    whole = found.get("", found)
    if form == "dataframe_split":
        split: dict[str, Any] = {"data": whole}
        if isinstance(whole, list) and whole and isinstance(whole[0], list) and draw(st.booleans()):
            split["columns"] = [f"c{place}" for place in range(len(whole[0]))]
        return split
    if "" in found and form == "dataframe_records":
        return [dict(enumerate(row)) if isinstance(row, list) else row for row in whole]
    if "" not in found and form == "instances" and draw(st.booleans()):
        return [{name: array[place : place + 1] for name, array in found.items()} for place in range(rows)]
    return whole


@st.composite
def _nested(draw: st.DrawFn, kind: str, lengths: list[int], odd: bool) -> Any:
    if not lengths:
        return draw(_cell(kind, odd))
    return [draw(_nested(kind, lengths[1:], odd)) for _ in range(lengths[0])]


DAMAGES: dict[str, Callable[[bytes, int], bytes]] = {
    "cut short": lambda body, place: body[:place],
    "not UTF-8": lambda body, place: body[:place] + b"\xff" + body[place:],
    "byte order mark": lambda body, _: b"\xef\xbb\xbf" + body,
    "key twice": lambda body, _: b'{"inputs": 1, ' + body[1:],
    "large": lambda body, _: body.replace(b"}", b" " * 5000 + b"}", 1),  # orjson's turn
    "beyond a double": lambda body, _: body.replace(b"1", b"1e400", 1) + b" " * 5000,
    "UTF-16": lambda body, _: body.decode(errors="ignore").encode("utf-16"),
    "deep": lambda *_: b'{"inputs": ' + b"[" * 2000 + b"]" * 2000 + b"}",
    "white space": lambda body, _: b" \n" + body + b"\t",
}


@st.composite
def _damaged(draw: st.DrawFn, body: bytes) -> bytes:
    damage = DAMAGES[draw(st.sampled_from([*DAMAGES]))]
    return damage(body, draw(st.integers(0, len(body))))
