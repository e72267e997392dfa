"""What a caller may send: bodies, content types, headers of any kind. Drawn by Hypothesis from a seed."""

from __future__ import annotations

import json
import string
from typing import Any

from hypothesis import strategies as st

ROW = [5.1, 3.5, 1.4, 0.2]
COLUMNS = ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"]
GOOD = (
    {"dataframe_split": {"columns": COLUMNS, "data": [ROW]}},
    {"dataframe_records": [dict(zip(COLUMNS, ROW, strict=True))]},
    {"inputs": [ROW]},
    {"instances": [ROW]},
    {"inputs": dict(zip(COLUMNS, [[value] for value in ROW], strict=True)), "params": {"scale": 2.0}},
)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["NaN", "Infinity", "2026-01-02", "\x00", "\ud800", "é" * 50, ""]),
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from([*COLUMNS, "", "x"]), inner, max_size=5)
    ),
    max_leaves=15,
)
keys = st.sampled_from(
    [
        "dataframe_split",
        "dataframe_records",
        "inputs",
        "instances",
        "params",
        "messages",
        "prompt",
        "input",
        "x",
    ]
)
envelopes = st.dictionaries(keys, values, max_size=3)


@st.composite
def nearly_good(draw: st.DrawFn) -> Any:
    """A good body with one value in it replaced, or one of its keys."""
    body = json.loads(json.dumps(draw(st.sampled_from(GOOD))))
    at: Any = body
    while True:
        keys_of = list(at) if isinstance(at, dict) else list(range(len(at)))
        key = draw(st.sampled_from(keys_of))
        if isinstance(at[key], dict | list) and at[key] and draw(st.booleans()):
            at = at[key]
            continue
        at[key] = draw(values)
        return body


def _text(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """The bytes of a good body, cut or with some replaced."""
    body = bytearray(_text(draw(st.sampled_from(GOOD))))
    for _ in range(draw(st.integers(1, 4))):
        body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
    return bytes(body[: draw(st.integers(0, len(body)))] if draw(st.booleans()) else body)


bodies = st.one_of(
    st.sampled_from(GOOD).map(_text),
    st.sampled_from(GOOD).map(_text),
    nearly_good().map(_text),
    envelopes.map(_text),
    values.map(_text),
    mutated(),
    st.binary(max_size=200),
    st.integers(1, 3_000).map(lambda depth: b"[" * depth),
    st.integers(1, 3_000).map(lambda depth: b'{"inputs":' * depth + b"1" + b"}" * depth),
    st.text(alphabet="abc,\n\"'0123456789.", max_size=100).map(str.encode),
)
odd_types = st.text(alphabet=string.printable.strip(), max_size=40)
content_types = st.one_of(
    st.just("application/json"),
    st.just("application/json"),
    st.sampled_from(
        [
            *["application/json"] * 12,
            "application/json; charset=utf-8",
            "application/json;charset=latin-1",
            "application/json; charset=no-such",
            "APPLICATION/JSON",
            "text/csv",
            "text/csv; charset=utf-16",
            "application/vnd.apache.parquet",
            "application/x-parquet",
            "application/octet-stream",
            "multipart/form-data",
            "/",
            ";",
            "",
        ]
    ),
).flatmap(lambda usual: st.just(usual) if usual != ";" else odd_types)
header_values = st.text(alphabet=string.ascii_letters + string.digits + " -_;=,./:%\"'", max_size=80).map(
    str.strip
)
headers = st.dictionaries(
    st.sampled_from(
        [
            *["x-request-id", "traceparent", "tracestate", "accept", "accept-encoding", "content-encoding"],
            *["inference-header-content-length", "x-forwarded-for", "cookie", "range", "expect-ct", "x-any"],
        ]
    ),
    header_values,
    max_size=4,
)
