"""REST with its binary extension, and gRPC: what is written is read, and what is damaged is refused."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import hypothesis.strategies as st
import mlflow.pyfunc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from mlflow.models import Model as MlflowModel

from tests.runtime.open_inference.asking import (
    BINARY,
    LENGTH,
    Given,
    Subject,
    array,
    as_binary,
    as_json,
    as_message,
    frame,
    grpc_outputs_of,
    message_of,
    outputs_of,
)
from trimtab.runtime.mlflow import wording
from trimtab.runtime.mlflow.answer import Fault, error
from trimtab.runtime.mlflow.open_inference.datatypes import BYTES, FIXED
from trimtab.runtime.mlflow.open_inference.schema import message

SETTINGS = settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
pytestmark = pytest.mark.filterwarnings("ignore")
DAMAGE = st.one_of(
    st.binary(max_size=6), st.sampled_from([b"", b"0", b"-1", b"9" * 30, b"1e3", b"[[", b"null"])
)


class Echo:
    """A model without a signature that gives back what it is given."""

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        return data


@pytest.fixture(scope="module")
def echo() -> Subject:
    meta = MlflowModel()
    meta.add_flavor("python_function", loader_module="none")
    return Subject.of(mlflow.pyfunc.PyFuncModel(meta, Echo(), predict_fn="predict"))


def elements(datatype: str) -> st.SearchStrategy[Any]:
    if datatype == BYTES:
        return st.text(max_size=5)
    dtype = FIXED[datatype]
    if dtype.kind == "b":
        return st.booleans()
    if dtype.kind == "f":
        return st.floats(width=8 * dtype.itemsize, allow_nan=False, allow_infinity=False)  # type: ignore[arg-type]
    bounds = np.iinfo(dtype)
    return st.integers(int(bounds.min), int(bounds.max))


@st.composite
def tensors(draw: st.DrawFn) -> Given:
    given: Given = {}
    for name in draw(st.lists(st.sampled_from("abcde"), min_size=1, max_size=3, unique=True)):
        datatype = draw(st.sampled_from([*FIXED, BYTES]))
        shape = tuple(draw(st.lists(st.integers(0, 3), min_size=1, max_size=3)))
        size = int(np.prod(shape))
        given[name] = (datatype, shape, draw(st.lists(elements(datatype), min_size=size, max_size=size)))
    return given


def same(found: dict[str, list[Any]], asked: Given) -> bool:
    """Whether the outputs are the inputs; one alone is called after the key of /invocations."""
    names = list(asked) if len(asked) > 1 else ["predictions"]
    wanted = [array(datatype, elements).tolist() for datatype, _, elements in asked.values()]
    return found == dict(zip(names, wanted, strict=True))


@SETTINGS
@given(asked=tensors())
def test_what_is_asked_comes_back_by_every_wire(echo: Subject, asked: Given) -> None:
    for body, headers in (
        as_json(asked),
        as_binary(asked),
        as_json(asked, parameters={"binary_data_output": True}),
    ):
        answer = echo.rest(body, headers)
        assert answer.status == 200, answer
        assert same(outputs_of(answer), asked)
    assert same(grpc_outputs_of(echo.grpc(as_message(asked, raw=True))), asked)
    if not any(datatype == "FP16" for datatype, _, _ in asked.values()):
        assert same(grpc_outputs_of(echo.grpc(as_message(asked, raw=False))), asked)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Something cut out, put in, or put in the place of something."""
    begin = draw(st.integers(0, len(whole)))
    end = draw(st.integers(begin, min(len(whole), begin + 8)))
    return whole[:begin] + draw(DAMAGE) + whole[end:]


@SETTINGS
@given(asked=tensors(), data=st.data())
def test_damaged_bodies_and_lengths_are_the_callers_fault(echo: Subject, asked: Given, data: Any) -> None:
    body, headers = as_binary(asked)
    if data.draw(st.booleans()):
        body = data.draw(damaged(body))
    else:
        headers = {LENGTH: data.draw(st.one_of(DAMAGE, st.integers(0, 300).map(lambda n: b"%d" % n)))}
    answer = echo.rest(body, headers)
    assert answer.status in (200, 400, 501), answer
    if answer.status != 200:
        assert answer.fault is Fault.CALLER
        assert list(json.loads(answer.body)) == ["error"]


@SETTINGS
@given(asked=tensors(), data=st.data())
def test_damaged_messages_are_the_callers_fault(echo: Subject, asked: Given, data: Any) -> None:
    half = any(datatype == "FP16" for datatype, _, _ in asked.values())  # it has no field of its own
    whole = as_message(asked, raw=half or data.draw(st.booleans()))
    if data.draw(st.booleans()):
        whole = frame(data.draw(damaged(whole[5:])), data.draw(st.sampled_from([0, 0, 1, 2])))
    else:
        whole = data.draw(damaged(whole))
    answer = echo.grpc(whole, {b"grpc-encoding": data.draw(st.sampled_from([b"gzip", b"identity", b"x"]))})
    status = dict(answer.headers).get(b"grpc-status", b"0")
    assert status in (b"0", b"3", b"5", b"12"), answer
    assert (answer.fault is None) == (status == b"0")


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"datatype": "BF16", "data": [1]}, "BF16 is not supported"),
        ({"datatype": "FP31", "data": [1]}, "unknown datatype 'FP31'"),
        ({"datatype": "INT8", "data": [300]}, "beyond INT8"),
        ({"datatype": "INT8", "data": [1.5]}, "other elements than INT8s"),
        ({"datatype": "INT64", "data": [1 << 64]}, "INT64"),
        ({"datatype": "FP32", "data": [None]}, "other elements than FP32s"),
        ({"datatype": "BOOL", "data": [1]}, "other elements than BOOLs"),
        ({"datatype": "BYTES", "data": [1]}, "must be strings"),
        ({"datatype": "BYTES", "data": ["\ud800"]}, "is no Unicode"),
        ({"datatype": "FP32", "data": [[1, 2], [3]]}, "is no array"),
        ({"datatype": "FP32", "data": [1, 2]}, "is of 1 elements, not 2"),
        ({"datatype": "FP32", "data": [], "shape": [0, 1 << 62, 1 << 62]}, "no array can have"),
        ({"datatype": "FP32", "data": [1], "shape": [-1]}, "negative length"),
        ({"datatype": "FP32", "data": [1], "shape": [1.0]}, "whole numbers"),
        ({"datatype": "FP32", "data": [1], "shape": [1] * 40}, "at most 32"),
        ({"datatype": "FP32"}, "either `data` or"),
        ({"datatype": "FP32", "parameters": {"binary_data_size": 4}}, "0 bytes are left"),
        ({"datatype": "FP32", "parameters": {"binary_data_size": "4"}}, "a number of bytes"),
        ({"datatype": "FP32", "parameters": {"shared_memory_region": "r"}}, "`shared_memory_region` is not"),
    ],
)
def test_what_cannot_be_read_is_named(echo: Subject, told: dict[str, Any], words: str) -> None:
    body = json.dumps({"inputs": [{"name": "x", "shape": [1], **told}]}).encode()
    answer = echo.rest(body, {})
    assert answer.status == (501 if "shared" in words else 400), answer
    assert words in json.loads(answer.body)["error"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "must be a JSON object"),
        (b"{}", "no `inputs`"),
        (b'{"inputs": {}}', "`inputs` must be a list"),
        (b'{"inputs": [3]}', "`inputs[0]` must be an object"),
        (b'{"id": 3, "inputs": [{"name": "x", "datatype": "BOOL", "shape": [0], "data": []}]}', "`id`"),
    ],
)
def test_what_is_no_request_is_named(echo: Subject, body: bytes, words: str) -> None:
    answer = echo.rest(body, {})
    assert (answer.status, words in json.loads(answer.body)["error"]) == (400, True)


def test_data_that_is_nested_too_deeply(echo: Subject) -> None:
    data = b"[" * 900 + b'"a"' + b"]" * 900
    body = b'{"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": ' + data + b"}]}"
    assert echo.rest(body, {}).status in (200, 400)


ASKED: Given = {"a": ("FP32", (2,), [1.0, 2.0]), "b": ("INT32", (1, 1), [3])}


def test_which_outputs_and_in_which_form_is_the_callers_to_say(echo: Subject) -> None:
    wanted = [{"name": "b", "parameters": {"binary_data": True}}, {"name": "a"}]
    answer = echo.rest(*as_json(ASKED, outputs=wanted, id="7"))
    assert (answer.status, answer.media_type) == (200, BINARY)
    length = int(dict(answer.headers)[LENGTH])
    assert answer.encoded()[length:] == b"\3\0\0\0"
    assert json.loads(answer.encoded()[:length]) == {
        "model_name": "m",
        "model_version": "1",
        "id": "7",
        "outputs": [
            {"name": "b", "shape": [1, 1], "datatype": "INT32", "parameters": {"binary_data_size": 4}},
            {"name": "a", "shape": [2], "datatype": "FP32", "data": [1.0, 2.0]},
        ],
    }
    unknown = echo.rest(*as_json(ASKED, outputs=[{"name": "c"}]))
    assert (unknown.status, "unexpected output 'c'" in unknown.body) == (400, True)
    told = message_of(echo.grpc(as_message(ASKED, raw=True, id="8", outputs=[{"name": "b"}])))
    assert (told.id, told.model_name, [one.name for one in told.outputs]) == ("8", "m", ["b"])


def test_compressed_requests_and_what_is_too_large_once_it_is_not(echo: Subject) -> None:
    body, headers = as_binary(ASKED)
    for encoding, packed in ((b"gzip", gzip.compress(body)), (b"deflate", zlib.compress(body))):
        assert same(outputs_of(echo.rest(packed, {**headers, b"content-encoding": encoding})), ASKED)
        cut = echo.rest(packed[:-9], {**headers, b"content-encoding": encoding})
        assert (cut.status, cut.fault) == (400, Fault.CALLER)
    bomb = gzip.compress(bytes(17 << 20))
    assert echo.rest(bomb, {b"content-encoding": b"gzip"}).status == 413
    assert echo.rest(body, {b"content-encoding": b"br"}).status == 415
    told = as_message(ASKED, raw=True)[5:]
    found = echo.grpc(frame(gzip.compress(told), 1), {b"grpc-encoding": b"gzip"})
    assert same(grpc_outputs_of(found), ASKED)
    too_large = dict(echo.grpc(frame(bomb, 1), {b"grpc-encoding": b"gzip"}).headers)
    assert too_large[b"grpc-status"] == b"8"


def test_text_in_bytes_that_is_none(echo: Subject) -> None:
    answer = echo.rest(*as_binary({"x": (BYTES, (1,), [b"\xff"])}))
    assert (answer.status, "no UTF-8" in answer.body) == (400, True)


def test_an_unknown_model_or_version(echo: Subject) -> None:
    for asked in ({"model_name": "n"}, {"model_version": "2"}):
        told = as_message(ASKED, raw=True)
        other = message("ModelInferRequest").FromString(told[5:])
        other.MergeFrom(message("ModelInferRequest")(**asked))
        answer = echo.grpc(frame(other.SerializeToString()))
        assert dict(answer.headers)[b"grpc-status"] == b"5"


def test_words_that_are_no_unicode_still_reach_a_caller_of_grpc() -> None:
    headers = dict(wording.grpc(error(500, "BAD_REQUEST", "no \udc80 byte", Fault.MODEL)).headers)
    assert headers[b"grpc-message"] == b"no ? byte"
