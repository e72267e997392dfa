"""Lines of a log for programs and for people."""

from __future__ import annotations

import json

import pytest

from trimtab.core.lines import encoded, readable


def test_a_line_is_one_object_and_reads_well() -> None:
    line = encoded(
        1_700_000_000.25,
        "error",
        "request",
        status=400,
        took_ms=1.5,
        cause="two\nlines",
        fault=None,
        trace="",
    )
    assert json.loads(line) == {
        "at": "2023-11-14T22:13:20.250Z",
        "level": "error",
        "event": "request",
        "status": 400,
        "took_ms": 1.5,
        "cause": "two\nlines",
    }
    assert "\n" not in line
    assert readable(line) == "22:13:20.250 error request: status 400, took ms 1.5, cause two lines"


def test_long_texts_are_cut() -> None:
    assert len(encoded(0, "error", "request", cause="x" * 100_000)) < 1_000


@pytest.mark.parametrize(
    "line",
    ["", "what a model prints", '{"at": "', '{"at": "x"}', '{"at": "x", "level": [1]}', '{"a": 1}', "[1]"],
)
def test_any_other_line_stays_as_it_is(line: str) -> None:
    assert readable(line) == line
