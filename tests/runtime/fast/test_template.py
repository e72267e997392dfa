"""Bodies of which only the rows are read: whatever stands there, it is read as it would be in the whole."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.runtime.mlflow.fast.envelope import Envelope, Form, opened
from trimtab.runtime.mlflow.fast.template import KNOWN_MAX, Templates, learned

COLUMNS = ["a", "b"]
SPLIT = {"dataframe_split": {"columns": COLUMNS, "data": [[1.5, 2]]}}
INPUTS = {"inputs": [[1.5, 2]]}
WRITTEN = [
    json.dumps(SPLIT).encode(),
    json.dumps(SPLIT, separators=(",", ":")).encode(),
    json.dumps(SPLIT, indent=2).encode(),
    json.dumps(INPUTS).encode(),
    b' {"dataframe_records" : [{"a": 1.5, "b": 2}] }\n',
    "\N{BYTE ORDER MARK}".encode() + json.dumps({"instances": [[1.5, 2]]}).encode(),
]
# What may stand where the rows do, and what only looks as if it could.
ODD = [
    "7",
    "[[1, 2]]",
    "[[NaN, -Infinity]]",
    "[[1e400, 12345678901234567890123]]",
    '[["\\ud800", "\\u00e9"]]',
    '[[1, 2]], "data": [[3, 4]]',
    '[[1, 2]], "columns": ["b", "a"]',
    '[[1, 2]]}, "params": {"x": 1',
    "[[1, 2]] }",
    '{"data": 7}',
    '"data": 7',
    "",
    "[[1, 2]",
    "[1]" * 2,
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def around(written: bytes) -> tuple[bytes, bytes]:
    """What is before and behind the rows of a body."""
    value = next(iter(json.loads(written).values()))
    rows = json.dumps(value["data"] if type(value) is dict else value)
    for text in (rows, rows.replace(" ", "")):
        if text.encode() in written:
            before, _, after = written.partition(text.encode())
            return before, after
    before, _, rest = written.partition(b"[\n")
    return written[: written.rindex(b'"data": ') + 8], rest[rest.rindex(b"]") + 1 :]


def known(written: bytes, exact: bool = True) -> Templates:
    templates = Templates(exact)
    envelope = opened(written, exact)
    assert envelope is not None
    templates.learn(written, envelope)
    return templates


def read(templates: Templates, body: bytes) -> Envelope | None:
    """None where it cannot be read this way, or at all."""
    try:
        return templates.filled(body)
    except (ValueError, RecursionError):
        return None


@pytest.mark.parametrize("written", WRITTEN, ids=range(len(WRITTEN)))
def test_each_way_to_write_a_body_has_a_template(written: bytes) -> None:
    found = read(known(written), written)
    assert found == opened(written, True)
    assert found is not None
    before, after = around(written)
    assert read(known(written), before + b"[[3, 4.5]]" + after) == opened(
        before + b"[[3, 4.5]]" + after, True
    )


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("written", WRITTEN, ids=range(len(WRITTEN)))
def test_what_stands_there_is_read_as_in_the_whole_or_not_at_all(
    written: bytes, odd: str, exact: bool
) -> None:
    before, after = around(written)
    body = before + odd.encode() + after
    found = read(known(written, exact), body)
    if found is not None:
        whole = opened(body, exact)
        if not exact and "e400" in odd:  # an integer beyond 64 bits is a double then, as in a large body
            assert whole is not None
            found, whole = (Envelope(e.form, str(e.data).count(",")) for e in (found, whole))
        assert repr(found) == repr(whole)


@given(st.sampled_from(WRITTEN), VALUES)
def test_any_value_is_read_as_in_the_whole(written: bytes, value: Any) -> None:
    before, after = around(written)
    body = before + json.dumps(value).encode() + after
    assert read(known(written), body) == opened(body, True)


@given(st.sampled_from(WRITTEN), st.text(alphabet='[]{}",:17 dat\\', max_size=12))
def test_any_text_is_read_as_in_the_whole_or_not_at_all(written: bytes, text: str) -> None:
    before, after = around(written)
    body = before + text.encode() + after
    found = read(known(written), body)
    assert found is None or found == Envelope(found.form, _data(body))


def _data(body: bytes) -> Any:
    (value,) = json.loads(body).values()
    return value


@pytest.mark.parametrize(
    "body",
    [
        b'{"dataframe_split": {"data": [[1, 2]], "columns": ["a", "b"]}}',  # something follows
        b'{"inputs": [[1, 2]], "params": {"x": 1}}',
        b'{"params": {"x": 1}, "inputs": [[1, 2]]}',
        b'{"dataframe_split": [[1, 2]]}',
        b'{"inputs": {"inputs": [[1]]}}',  # its name once more, in a value
    ],
)
def test_what_is_not_sure_is_not_learned(body: bytes) -> None:
    envelope = opened(body, True)
    assert envelope is not None
    assert learned(body, envelope) is None


def test_so_many_are_known_and_new_ones_come_in() -> None:
    templates = Templates(exact=True)
    bodies = [b'{%s"inputs":[[1]]}' % (b" " * spaces) for spaces in range(40)]
    for body in bodies:
        templates.learn(body, Envelope(Form.INPUTS, [[1]]))
    fit = [body for body in bodies if read(templates, body)]
    assert len(fit) == KNOWN_MAX
    assert bodies[31] in fit, "the latest that was learned"
