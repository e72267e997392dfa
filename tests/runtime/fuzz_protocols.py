"""What a caller may send to the other protocols: nearly right requests of Open Inference and of OpenAI."""

from __future__ import annotations

import json
import os
import struct
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.runtime.fuzz import COLUMNS, ROW, values

EXAMPLES = int(os.environ.get("TRIMTAB_FUZZ_EXAMPLES", "120"))
QUICKLY = settings(
    max_examples=EXAMPLES, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)
DATATYPES = ["FP64", "FP32", "INT64", "INT32", "UINT8", "BOOL", "BYTES", "FP16", "BF16", "fp64", "", "X"]
TENSORS = [
    {"name": n, "shape": [1], "datatype": "FP64", "data": [v]} for n, v in zip(COLUMNS, ROW, strict=True)
]
INFER = {"id": "1", "inputs": TENSORS, "parameters": {"scale": 2.0}, "outputs": [{"name": "predictions"}]}
CHAT = {"model": "bot", "messages": [{"role": "user", "content": "be or not"}], "max_tokens": 5}


@st.composite
def changed(draw: st.DrawFn, good: Any) -> Any:
    """A good body with one to three things in it replaced, added or left out."""
    body = json.loads(json.dumps(good))
    for _ in range(draw(st.integers(1, 3))):
        at: Any = body
        while True:
            keys: list[Any] = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(at[key], dict | list) and at[key] and draw(st.integers(0, 3)):
                at = at[key]
                continue
            how = draw(st.integers(0, 5))
            if how == 0:
                del at[key]
            elif how == 1 and isinstance(at, dict):
                at[
                    draw(st.sampled_from(["parameters", "data", "shape", "x", "binary_data_size", "stream"]))
                ] = draw(values)
            elif how == 2:
                at[key] = draw(st.sampled_from(DATATYPES))
            elif how == 3:
                at[key] = draw(
                    st.sampled_from([[-1], [0], [2**62], [2**31, 2**31], [1, 1], [[1]], 2**70, -1])
                )
            else:
                at[key] = draw(values)
            break
    return body


def _text(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


infers = st.one_of(st.just(INFER), changed(INFER), changed(INFER)).map(_text)
chats = st.one_of(st.just(CHAT), changed(CHAT), changed({**CHAT, "stream": True}), values).map(_text)
binary_lengths = st.one_of(
    st.just(""), st.integers(-5, 600).map(str), st.text(max_size=8, alphabet="0123 x-+eE.")
)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """A gRPC frame: of a right message, of one with some bytes replaced, or anything. Its length may lie."""
    from trimtab.runtime.mlflow.open_inference.schema import message  # noqa: PLC0415

    told = message("ModelInferRequest")(model_name="iris", id="1")
    for name, value in zip(COLUMNS, ROW, strict=True):
        shape = draw(st.sampled_from([[1], [1], [1], [1, 1], [0], [-1], [2**40], [2**62, 4]]))
        one = told.inputs.add(
            name=name, datatype=draw(st.sampled_from(["FP64"] * 6 + DATATYPES)), shape=shape
        )
        if draw(st.integers(0, 3)):
            one.contents.fp64_contents.append(value)
        else:
            told.raw_input_contents.append(draw(st.sampled_from([struct.pack("<d", value), b"", b"123"])))
    raw = bytearray(told.SerializeToString())
    for _ in range(draw(st.sampled_from([0, 0, 1, 3]))):
        raw[draw(st.integers(0, len(raw) - 1))] = draw(st.integers(0, 255))
    length = draw(st.sampled_from([len(raw)] * 4 + [0, 2**32 - 1, len(raw) + 1]))
    flag = draw(st.sampled_from([0] * 6 + [1, 2, 255]))
    return struct.pack(">BI", flag, length) + bytes(raw)


frames = st.one_of(messages(), messages(), st.binary(max_size=60))
