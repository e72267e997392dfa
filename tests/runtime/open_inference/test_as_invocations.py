"""What Open Inference answers is what `/invocations` answers to the same values, whatever the wire.

The models of `fast/subjects` tell in their answers all that they see of their input.
"""

from __future__ import annotations

import base64
import json
import math
from collections import Counter
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from tests.runtime.fast.bodies import VALUES
from tests.runtime.fast.subjects import Subject as Known
from tests.runtime.fast.subjects import quick, subjects
from tests.runtime.fast.test_as_mlflow import NAMES
from tests.runtime.open_inference.asking import (
    Given,
    Subject,
    as_binary,
    as_json,
    as_message,
    grpc_outputs_of,
    outputs_of,
)
from trimtab.runtime.mlflow.answer import Fault

EXAMPLES = 12  # for each model
SETTINGS = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
DATATYPES = {
    "double": "FP64",
    "float": "FP32",
    "long": "INT64",
    "integer": "INT32",
    "boolean": "BOOL",
    "string": "BYTES",
    "datetime": "BYTES",
    "binary": "BYTES",
    "float64": "FP64",
    "float32": "FP32",
    "int64": "INT64",
    "int32": "INT32",
    "uint8": "UINT8",
    "bool": "BOOL",
    "<U0": "BYTES",
}
OF_DTYPES = {
    "float64": "double",
    "float32": "float",
    "int64": "long",
    "int32": "integer",
    "uint8": "small",
    "bool": "boolean",
    "<U0": "string",
}
NO_TENSOR = {"lists": "xs", "things": "thing", "anything": "x"}  # a column of each that cannot be one
TENSORS = [name for name in NAMES if name not in ("named", *NO_TENSOR)]  # the answer of `named` is no array

# In a pod a warning is a line in the log; as an error it would change MLflow's answers.
pytestmark = [pytest.mark.usefixtures("quiet"), pytest.mark.filterwarnings("ignore")]


@st.composite
def questions(draw: st.DrawFn, known: Known) -> tuple[Given, dict[str, Any]]:
    """The same values as tensors, and as a body of /invocations."""
    rows = draw(st.integers(1, 3))
    if known.table:
        names = [name for name in known.kinds if name not in known.optional or draw(st.booleans())]
        shape = draw(st.sampled_from([(rows,), (rows, 1)]))
        columns = {name: _column(draw, known.kinds[name], rows) for name in names}
        given = {name: (DATATYPES[known.kinds[name]], shape, columns[name]) for name in names}
        told = [[_as_told(columns[name][row]) for name in names] for row in range(rows)]
        return given, {"dataframe_split": {"columns": names, "data": told}}
    given, told_by_name = {}, {}
    for name, kind in known.kinds.items():
        shape = (rows, *known.shapes[name][1:])
        size = 1
        for length in shape:
            size *= length
        elements = [draw(VALUES[OF_DTYPES[kind]]) for _ in range(size)]
        given[name or "any"] = (DATATYPES[kind], shape, elements)
        told_by_name[name] = _nested(elements, shape)
    return given, {"inputs": told_by_name.get("", told_by_name)}


def _column(draw: st.DrawFn, kind: str, rows: int) -> list[Any]:
    if kind == "binary":
        return [draw(st.sampled_from([b"\x00\x01\x02", b"x"])) for _ in range(rows)]
    if kind == "datetime":
        return [draw(VALUES[kind])] * rows  # all written alike: pandas refuses a mixture
    return [draw(VALUES[kind]) for _ in range(rows)]


def _as_told(value: Any) -> Any:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _nested(elements: list[Any], shape: tuple[int, ...]) -> Any:
    if len(shape) == 1:
        return elements
    step = len(elements) // shape[0]
    return [_nested(elements[at : at + step], shape[1:]) for at in range(0, len(elements), step)]


@pytest.mark.parametrize("name", TENSORS)
def test_whatever_the_wire_the_answer_is_that_of_invocations(name: str) -> None:
    known = subjects()[name]
    subject = Subject.of(known.model, quick(name))
    seen: Counter[Any] = Counter()

    @SETTINGS
    @given(question=questions(known), slow=st.booleans())
    def alike(question: tuple[Given, dict[str, Any]], slow: bool) -> None:
        tensors, body = question
        score = subject.scorer.score(json.dumps(body).encode(), "application/json").answer
        answers = [
            subject.rest(*as_binary(tensors), slow=slow),
            subject.grpc(as_message(tensors, raw=True), slow=slow),
            subject.grpc(as_message(tensors, raw=False), slow=slow),
        ]
        if "binary" not in known.kinds.values():  # bytes that are no text have no place in JSON
            answers.append(subject.rest(*as_json(tensors), slow=slow))
        seen[score.fault] += 1
        for answer in answers:
            assert answer.fault is score.fault, (answer, score)
        if score.fault is not None:
            assert answers[0].status == (500 if score.fault is Fault.MODEL else 400)
            return
        predictions = json.loads(score.body)["predictions"]
        for answer in answers:
            read = grpc_outputs_of if answer.media_type == "application/grpc" else outputs_of
            assert _flat(read(answer)) == _flat(predictions)

    alike()
    assert seen[None] >= 1, seen


@pytest.mark.parametrize(("name", "column"), NO_TENSOR.items())
def test_columns_that_are_no_tensors_are_refused_by_name(name: str, column: str) -> None:
    known = subjects()[name]
    answer = Subject.of(known.model, quick(name)).rest(*as_json({column: ("INT64", (1,), [1])}), slow=False)
    assert (answer.status, answer.fault) == (501, Fault.CALLER)
    told = json.loads(answer.encoded())["error"]
    assert column in told
    assert "/invocations" in told


def _flat(value: Any) -> list[Any]:
    """The elements of outputs or predictions; NaN as text, since it is not equal to itself."""
    if isinstance(value, dict):
        return [element for each in value.values() for element in _flat(each)]
    if isinstance(value, list):
        return [element for each in value for element in _flat(each)]
    return [str(value) if isinstance(value, float) and math.isnan(value) else value]
