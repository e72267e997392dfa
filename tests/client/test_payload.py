"""What people have in hand, as MLflow's scoring protocol."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.client.payload import DEFAULT_URL, FORMS, Target, body_of
from trimtab.core.errors import InvalidInput

VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False), st.text()
)


def said(inputs: Any, params: Any = None) -> Any:
    return json.loads(body_of(inputs, params))


@pytest.mark.parametrize("form", FORMS)
def test_mlflows_own_forms_are_taken_as_they_are(form: str) -> None:
    assert said({form: [1, 2]}) == {form: [1, 2]}
    assert said({form: [1], "params": {"a": 1}}, {"b": 2}) == {form: [1], "params": {"a": 1, "b": 2}}


def test_a_frame_is_split_and_what_it_misses_is_null() -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": [0.1, float("nan")], "c": ["x", None]}, index=["p", "q"])
    assert said(frame) == {
        "dataframe_split": {"columns": ["a", "b", "c"], "data": [[1, 0.1, "x"], [2, None, None]]}
    }


def test_types_that_json_does_not_know() -> None:
    at = pd.Timestamp("2026-03-01T12:00:00")
    frame = pd.DataFrame({"at": [at], "raw": [b"\x00\xff"], "f": np.array([1.5], dtype=np.float32)})
    assert said(frame)["dataframe_split"]["data"] == [["2026-03-01T12:00:00", "AP8=", 1.5]]
    assert said([np.int64(3), dt.date(2026, 3, 1)]) == {"inputs": [3, "2026-03-01"]}


@given(st.lists(st.lists(st.floats(allow_nan=False), min_size=2, max_size=2), min_size=1))
def test_arrays_keep_every_digit(rows: list[list[float]]) -> None:
    array = np.array(rows)
    assert said(array) == {"inputs": rows}
    assert said({"one": array}) == {"inputs": {"one": rows}}
    frame = pd.DataFrame(array, columns=["a", "b"])
    assert said(frame)["dataframe_split"]["data"] == rows


@given(st.lists(VALUES))
def test_lists_are_inputs(values: list[Any]) -> None:
    assert said(values) == {"inputs": values}


def test_records_and_what_language_models_are_asked() -> None:
    assert said([{"a": 1}]) == {"dataframe_records": [{"a": 1}]}
    assert said({"messages": [{"role": "user"}], "stream": False}) == {
        "messages": [{"role": "user"}],
        "stream": False,
    }


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"inputs": [1], "instances": [1]}, "has instances and inputs"),
        (pd.Series([1]), "a row or a column"),
        ([object()], "object has no form in JSON"),
    ],
)
def test_what_cannot_be_meant_is_refused(inputs: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=says) as refused:
        body_of(inputs)
    assert refused.value.hint


def test_where_to_and_with_which_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRIMTAB_URL", "TRIMTAB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert Target.of(None, None).invocations("iris") == f"{DEFAULT_URL}/serving-endpoints/iris/invocations"
    assert "authorization" not in Target.of(None, None).headers()
    monkeypatch.setenv("TRIMTAB_URL", "https://models.example.org/")
    monkeypatch.setenv("TRIMTAB_API_KEY", "k")
    target = Target.of(None, None)
    assert (
        target.invocations("iris.team")
        == "https://models.example.org/serving-endpoints/iris.team/invocations"
    )
    assert target.headers()["authorization"] == "Bearer k"
    for wrong in ("127.0.0.1:8080", "ftp://x"):
        with pytest.raises(InvalidInput):
            Target.of(wrong, None)
    with pytest.raises(InvalidInput):
        target.invocations("../admin")
