"""Requests and answers over gRPC: frames, messages, tensors in their own fields or as raw bytes.

What comes is HTTP/1.1, since Envoy bridges it (see `trimtab/xds/bridge.py`).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from trimtab.runtime.mlflow.answer import Answer
from trimtab.runtime.mlflow.open_inference.compression import inflated
from trimtab.runtime.mlflow.open_inference.datatypes import BYTES, FIXED, check, from_bytes, shaped, to_bytes
from trimtab.runtime.mlflow.open_inference.messages import (
    Array,
    Refused,
    Request,
    Tensor,
    Wanted,
    check_parameters,
)
from trimtab.runtime.mlflow.open_inference.schema import message
from trimtab.runtime.mlflow.wording import GRPC_TYPE

_FRAME = struct.Struct(">BI")  # whether it is compressed, and how long it is
_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}


def opened(name: str, body: bytes, encoding: bytes, bytes_max: int) -> Any:
    """The one message of a body. Raises Refused."""
    if len(body) < _FRAME.size:
        raise Refused("the request is no gRPC message")
    compressed, length = _FRAME.unpack_from(body)
    data = body[_FRAME.size :]
    if len(data) != length or compressed > 1:
        raise Refused(
            f"the request is not one gRPC message: its frame says {length} bytes, there are {len(data)}"
        )
    if compressed:
        data = inflated(data, encoding, bytes_max)
    found = message(name)()
    try:
        found.ParseFromString(data)
    except DecodeError as error:
        raise Refused(f"the request is no {name}: {error}") from error
    return found


def framed(told: Any) -> Answer:
    """A message as an answer."""
    data = told.SerializeToString()
    return Answer("", 200, GRPC_TYPE, raw=_FRAME.pack(0, len(data)) + data)


def read(told: Any) -> Request:
    """What a ModelInferRequest asks. Raises Refused."""
    raw = list(told.raw_input_contents)
    if raw and len(raw) != len(told.inputs):
        raise Refused(f"raw_input_contents has {len(raw)} entries for {len(told.inputs)} inputs")
    if not told.inputs:
        raise Refused("the request has no inputs")
    return Request(
        tuple(_input(one, raw[place] if raw else None) for place, one in enumerate(told.inputs)),
        _parameters(told.parameters, "the request"),
        tuple(_wanted(one) for one in told.outputs),
        told.id,
    )


def written(head: Mapping[str, str], outputs: list[Tensor]) -> Answer:
    """A ModelInferResponse, its tensors as raw bytes."""
    told = message("ModelInferResponse")(**head)
    for tensor in outputs:
        told.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.array.shape)
        told.raw_output_contents.append(to_bytes(tensor.array, tensor.datatype))
    return framed(told)


def _input(told: Any, raw: bytes | None) -> Tensor:
    where = f"input {told.name!r}"
    check(told.datatype, where)
    _parameters(told.parameters, where)
    array = _contents(told, where) if raw is None else from_bytes(told.datatype, raw, where)
    return Tensor(told.name, told.datatype, shaped(array, list(told.shape), where))


def _contents(told: Any, where: str) -> Array:
    field = _CONTENTS.get(told.datatype)
    if field is None:
        raise Refused(f"{where}: {told.datatype} has to come in raw_input_contents")
    for other, _ in told.contents.ListFields():
        if other.name != field:
            raise Refused(f"{where}: {told.datatype} belongs into {field}, not into {other.name}")
    elements = list(getattr(told.contents, field))
    if told.datatype == BYTES:
        array: Array = np.empty(len(elements), dtype=object)
        array[:] = elements
        return array
    dtype = FIXED[told.datatype].newbyteorder("=")
    wide = np.array(elements, dtype=None if elements else dtype)
    array = wide.astype(dtype)
    if dtype.kind in "iu" and not np.array_equal(wide, array):
        raise Refused(f"{where}: it has elements beyond {told.datatype}")
    return array


def _wanted(told: Any) -> Wanted:
    _parameters(told.parameters, f"output {told.name!r}")
    return Wanted(told.name)


def _parameters(told: Any, where: str) -> dict[str, Any]:
    found = {}
    for name, parameter in told.items():
        choice = parameter.WhichOneof("parameter_choice")
        if choice is not None:
            found[name] = getattr(parameter, choice)
    check_parameters(found, where)
    return found
