"""What a signature says as metadata, what fits it, and what a model may return."""

from __future__ import annotations

import json
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
from mlflow.models import Model as MlflowModel
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import Array, DataType

from tests.runtime.open_inference.asking import Given, Subject, as_binary, as_json, as_message, outputs_of
from trimtab.runtime.mlflow.answer import Fault
from trimtab.runtime.mlflow.open_inference.messages import Refused

pytestmark = [pytest.mark.usefixtures("quiet"), pytest.mark.filterwarnings("ignore")]


class Returns:
    """A model that returns, or raises, what it was made with; and keeps what it was asked."""

    def __init__(self, value: Any = None) -> None:
        self.value = value
        self.asked: list[tuple[Any, Any]] = []

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        self.asked.append((data, params))
        if isinstance(self.value, BaseException):
            raise self.value
        return self.value


def subject(
    inputs: Schema | None = None, value: Any = 0, outputs: Schema | None = None, **more: Any
) -> tuple[Subject, Returns]:
    signature = None if inputs is None else ModelSignature(inputs, outputs, **more)
    meta = MlflowModel(signature=signature)
    meta.add_flavor("python_function", loader_module="none")
    model = Returns(value)
    return Subject.of(mlflow.pyfunc.PyFuncModel(meta, model)), model


def tensor(dtype: str, shape: tuple[int, ...], name: str | None = None) -> TensorSpec:
    return TensorSpec(np.dtype(dtype), shape, name)


COLUMNS = Schema([ColSpec("double", "x"), ColSpec("string", "who"), ColSpec("long", "n", required=False)])
ROW: Given = {"x": ("FP64", (1,), [1.5]), "who": ("BYTES", (1,), ["é"])}
ONE: Given = {"x": ("FP32", (1, 2), [1.0, 2.0])}


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        (COLUMNS, [("x", "FP64", [-1]), ("who", "BYTES", [-1]), ("n", "INT64", [-1])]),
        (Schema([ColSpec("float"), ColSpec("float")]), [("inputs", "FP32", [-1, 2])]),
        (Schema([tensor("float16", (-1, 3))]), [("inputs", "FP16", [-1, 3])]),
        (
            Schema([tensor("uint8", (-1, 2), "a"), tensor("str", (-1,), "b"), tensor("bool", (2,), "c")]),
            [("a", "UINT8", [-1, 2]), ("b", "BYTES", [-1]), ("c", "BOOL", [2])],
        ),
        (None, []),
    ],
)
def test_metadata_is_the_signature(schema: Schema | None, told: list[Any]) -> None:
    metadata = subject(schema)[0].model.metadata("m")
    assert [(one["name"], one["datatype"], one["shape"]) for one in metadata["inputs"]] == told
    assert (metadata["versions"], metadata["platform"]) == (["1"], "mlflow")


def test_metadata_of_outputs() -> None:
    for schema, told in (
        (Schema([ColSpec("long")]), [("predictions", "INT64", [-1])]),
        (
            Schema([ColSpec("long", "a"), ColSpec("string", "b")]),
            [("a", "INT64", [-1]), ("b", "BYTES", [-1])],
        ),
        (Schema([tensor("float32", (-1, 2))]), [("predictions", "FP32", [-1, 2])]),
        (Schema([ColSpec(Array(DataType.long), "a")]), []),
    ):
        outputs = subject(COLUMNS, outputs=schema)[0].model.metadata("m")["outputs"]
        assert [(one["name"], one["datatype"], one["shape"]) for one in outputs] == told


@pytest.mark.parametrize(
    "schema",
    [
        Schema([ColSpec(Array(DataType.long), "a")]),
        Schema([ColSpec("float"), ColSpec("string")]),
        Schema([tensor("complex64", (-1,))]),
        Schema([tensor("datetime64[s]", (-1,))]),
    ],
    ids=str,
)
def test_a_signature_without_a_sound_translation_is_refused(schema: Schema) -> None:
    refused, model = subject(schema)
    answer = refused.rest(*as_json(ONE))
    assert (answer.status, answer.fault) == (501, Fault.CALLER)
    assert "can be asked by /invocations" in json.loads(answer.body)["error"]
    assert dict(refused.grpc(as_message(ONE, raw=True)).headers)[b"grpc-status"] == b"12"
    with pytest.raises(Refused):
        refused.model.metadata("m")
    assert not model.asked


@pytest.mark.parametrize(
    ("schema", "given", "words"),
    [
        (COLUMNS, {"x": ROW["x"]}, "'who' is missing"),
        (COLUMNS, {**ROW, "y": ROW["x"]}, "unexpected input 'y'"),
        (COLUMNS, {**ROW, "x": ("FP64", (2,), [1.0, 2.0])}, "not of one length"),
        (COLUMNS, {**ROW, "x": ("FP64", (1, 1, 1), [1.0])}, "a column's is [n] or [n, 1]"),
        (COLUMNS, {**ROW, "x": ("BYTES", (1,), ["1"])}, "its datatype is BYTES, the model's FP64"),
        (COLUMNS, {**ROW, "x": ("INT64", (1,), [1])}, "its datatype is INT64"),
        (COLUMNS, {**ROW, "who": ("INT8", (1,), [1])}, "its datatype is INT8"),
        (Schema([ColSpec("datetime", "t")]), {"t": ("BYTES", (1,), ["noon"])}, "is no date"),
        (Schema([ColSpec("float")] * 2), {"x": ("FP32", (2,), [1.0, 2.0])}, "the model's [-1, 2]"),
        (Schema([ColSpec("float")] * 2), ROW, "takes 1 input"),
        (Schema([tensor("float32", (-1, 2))]), {"x": ("FP64", (1, 2), [1.0, 2.0])}, "its datatype is FP64"),
        (Schema([tensor("float32", (-1, 2))]), {"x": ("FP32", (1, 3), [1.0] * 3)}, "the model's [-1, 2]"),
        (Schema([tensor("float32", (-1, 2))]), ROW, "takes 1 input"),
        (Schema([tensor("float32", (-1, 2), "x"), tensor("float32", (-1,), "y")]), ONE, "'y' is missing"),
    ],
)
def test_what_does_not_fit_the_signature_is_named(schema: Schema, given: Given, words: str) -> None:
    asked, model = subject(schema)
    answer = asked.rest(*as_json(given))
    assert (answer.status, answer.fault, words in answer.body) == (400, Fault.CALLER, True), answer
    assert not model.asked


def test_an_input_that_is_there_twice() -> None:
    one = {"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}
    answer = subject()[0].rest(json.dumps({"inputs": [one, one]}).encode(), {})
    assert (answer.status, "'x' is there twice" in answer.body) == (400, True)


def test_a_narrower_type_becomes_the_signatures() -> None:
    asked, model = subject(Schema([ColSpec("double", "x"), ColSpec("long", "n")]))
    given: Given = {"x": ("FP32", (1,), [1.5]), "n": ("UINT8", (1, 1), [3])}
    assert asked.rest(*as_binary(given)).status == 200
    assert [str(dtype) for dtype in model.asked[0][0].dtypes] == ["float64", "int64"]
    asked, model = subject(Schema([tensor("float64", (-1, 2))]))
    assert asked.rest(*as_binary(ONE)).status == 200
    assert str(model.asked[0][0].dtype) == "float64"


def test_what_the_model_gets_without_a_signature() -> None:
    asked, model = subject()
    assert asked.rest(*as_binary({"x": ("FP16", (1, 2), [1.0, 2.0])})).status == 200
    assert asked.rest(*as_binary({**ONE, "who": ("BYTES", (1,), ["é"])})).status == 200
    (one, _), (several, _) = model.asked
    assert (one.dtype, one.tolist(), one.flags.writeable) == (np.float16, [[1.0, 2.0]], True)
    assert (several["who"].tolist(), several["x"].shape) == (["é"], (1, 2))


def test_columns_without_names() -> None:
    asked, model = subject(Schema([ColSpec("float")] * 2))
    assert asked.rest(*as_binary({"whatever": ONE["x"]})).status == 200
    assert model.asked[0][0].to_numpy().tolist() == [[1.0, 2.0]]


def test_parameters_are_the_models() -> None:
    asked, model = subject(COLUMNS, params=ParamSchema([ParamSpec("top", "long", 3)]))
    assert asked.rest(*as_json(ROW, parameters={"top": 5, "binary_data_output": True})).status == 200
    wrong = asked.rest(*as_json(ROW, parameters={"top": "many"}))
    assert (wrong.status, wrong.fault, len(model.asked)) == (400, Fault.CALLER, 1)
    assert model.asked[0][1] == {"top": 5}


FRAME = pd.DataFrame({"a": [1, 2], "b": ["x", "y"], "t": pd.to_datetime(["2026-01-02", "2026-01-03"])})


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ([1, 2], {"predictions": ("INT64", [2], [1, 2])}),
        (7.5, {"predictions": ("FP64", [], [7.5])}),
        (["a", "b"], {"predictions": ("BYTES", [2], ["a", "b"])}),
        (np.array([[True]]), {"predictions": ("BOOL", [1, 1], [True])}),
        (pd.Series([1.5]), {"predictions": ("FP64", [1], [1.5])}),
        (np.array([1, 2], dtype=object), {"predictions": ("INT64", [2], [1, 2])}),
        (np.array([1], dtype=">i4"), {"predictions": ("INT32", [1], [1])}),
        ({"p": [0.5], "label": ["no"]}, {"p": ("FP64", [1], [0.5]), "label": ("BYTES", [1], ["no"])}),
        (
            FRAME,
            {
                "a": ("INT64", [2], [1, 2]),
                "b": ("BYTES", [2], ["x", "y"]),
                "t": ("BYTES", [2], ["2026-01-02T00:00:00.000000", "2026-01-03T00:00:00.000000"]),
            },
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_model_returns_becomes_tensors(value: Any, told: dict[str, Any]) -> None:
    answer = subject(value=value)[0].rest(*as_json(ONE))
    assert answer.status == 200, answer
    outputs = json.loads(answer.encoded())["outputs"]
    assert {one["name"]: (one["datatype"], one["shape"], one["data"]) for one in outputs} == told
    binary = subject(value=value)[0].rest(*as_binary(ONE))
    assert outputs_of(binary) == {name: data for name, (_, _, data) in told.items()}


def test_one_output_has_the_signatures_name() -> None:
    answer = subject(COLUMNS, [3], Schema([ColSpec("long", "species")]))[0].rest(*as_json(ROW))
    assert outputs_of(answer) == {"species": [3]}


@pytest.mark.parametrize(
    "value",
    [None, [None], [{"a": 1}], [[1], [1, 2]], object(), np.array([1j]), {"a": {"b": 1}}, b"\xff"],
    ids=str,
)
def test_what_is_no_tensor_is_refused(value: Any) -> None:
    answer = subject(value=value)[0].rest(*as_json(ONE))
    if value == b"\xff":  # no text: but in binary it can be asked for
        assert (answer.status, "ask for it in binary" in answer.body) == (400, True)
        return
    assert (answer.status, answer.fault) == (501, Fault.CALLER)
    assert list(json.loads(answer.body)) == ["error"]


@pytest.mark.parametrize("raised", [ValueError("no such flower"), SystemExit(3)], ids=repr)
def test_a_model_that_raises_is_a_500_of_the_model(raised: BaseException) -> None:
    answer = subject(value=raised)[0].rest(*as_json(ONE))
    assert (answer.status, answer.fault) == (500, Fault.MODEL)
    assert json.loads(answer.body)["error"] == f"{type(raised).__name__}: {raised}"
    headers = dict(subject(value=raised)[0].grpc(as_message(ONE, raw=True)).headers)
    assert headers[b"grpc-status"] == b"13"
    assert headers[b"grpc-message"].decode() == f"{type(raised).__name__}: {raised}"


def test_a_fault_of_ours_is_answered_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever happens while a request is read, somebody waits for its answer."""

    def broken(*_: Any) -> None:
        raise KeyError("ours")

    monkeypatch.setattr("trimtab.runtime.mlflow.open_inference.rest.read", broken)
    answer = subject()[0].rest(*as_json(ONE))
    assert (answer.status, answer.fault) == (500, Fault.PLATFORM)
