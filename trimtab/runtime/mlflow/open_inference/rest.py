"""Requests and answers over REST: JSON, and tensors' bytes behind it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.runtime.mlflow.open_inference.datatypes import (
    check,
    from_bytes,
    from_json,
    shaped,
    to_bytes,
    to_json,
)
from trimtab.runtime.mlflow.open_inference.messages import (
    Refused,
    Request,
    Tensor,
    Wanted,
    check_parameters,
)

LENGTH_HEADER = b"inference-header-content-length"
BINARY = "application/octet-stream"
_OWN_PARAMETERS = frozenset({"binary_data_output"})  # of the protocol, not of the model


def read(body: bytes, header_length: bytes) -> Request:
    """A request for inference. `header_length` is the header's value, or nothing. Raises Refused."""
    end = len(body)
    if header_length:
        if not header_length.isdigit() or len(header_length) > 10 or int(header_length) > len(body):
            raise Refused(
                f"Inference-Header-Content-Length is {header_length.decode('latin-1')!r}, "
                f"which is no length within the body of {len(body)} bytes"
            )
        end = int(header_length)
    try:
        told = json.loads(body[:end])
    except (ValueError, RecursionError) as error:
        raise Refused(f"the request is not JSON: {error}") from error
    if not isinstance(told, dict):
        raise Refused("the request must be a JSON object")
    try:
        return _request(told, memoryview(body)[end:])
    except RecursionError as error:
        raise Refused("`data` is nested too deeply") from error


def _request(told: Mapping[str, Any], raw: memoryview) -> Request:
    inputs = _listed(told, "inputs")
    if not inputs:
        raise Refused("the request has no `inputs`")
    tail = _Tail(raw)
    tensors = tuple(_input(one, place, tail) for place, one in enumerate(inputs))
    tail.finish()
    parameters = _parameters(told, "the request")
    binary = parameters.get("binary_data_output", False)
    identity = told.get("id", "")
    if not isinstance(identity, str):
        raise Refused("`id` must be a string")
    return Request(
        tensors,
        {name: value for name, value in parameters.items() if name not in _OWN_PARAMETERS},
        tuple(_wanted(one, place, bool(binary)) for place, one in enumerate(_listed(told, "outputs"))),
        identity,
        bool(binary),
    )


class _Tail:
    """The bytes behind the JSON: of the inputs that say so, in their order."""

    def __init__(self, raw: memoryview) -> None:
        self._raw = raw

    def take(self, size: Any, where: str) -> memoryview:
        if type(size) is not int or size < 0:
            raise Refused(f"{where}: `binary_data_size` must be a number of bytes")
        if size > len(self._raw):
            raise Refused(f"{where}: `binary_data_size` is {size}, and {len(self._raw)} bytes are left")
        found, self._raw = self._raw[:size], self._raw[size:]
        return found

    def finish(self) -> None:
        if len(self._raw):
            raise Refused(f"{len(self._raw)} bytes are left behind the inputs' data")


def _input(told: Any, place: int, tail: _Tail) -> Tensor:
    if not isinstance(told, dict) or not isinstance(told.get("name"), str):
        raise Refused(f"`inputs[{place}]` must be an object with a `name`")
    where = f"input {told['name']!r}"
    datatype, shape = told.get("datatype"), told.get("shape")
    if not isinstance(datatype, str):
        raise Refused(f"{where}: `datatype` is missing")
    if not isinstance(shape, list) or not all(type(length) is int for length in shape):
        raise Refused(f"{where}: `shape` must be a list of whole numbers")
    check(datatype, where)
    size = _parameters(told, where).get("binary_data_size")
    if (size is None) == ("data" not in told):
        raise Refused(f"{where}: it must have either `data` or the parameter `binary_data_size`")
    if size is None:
        array = from_json(datatype, told["data"], where)
    else:
        array = from_bytes(datatype, tail.take(size, where), where)
    return Tensor(told["name"], datatype, shaped(array, shape, where))


def _wanted(told: Any, place: int, binary: bool) -> Wanted:
    if not isinstance(told, dict) or not isinstance(told.get("name"), str):
        raise Refused(f"`outputs[{place}]` must be an object with a `name`")
    parameters = _parameters(told, f"output {told['name']!r}")
    return Wanted(told["name"], bool(parameters.get("binary_data", binary)))


def _parameters(told: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    parameters = told.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise Refused(f"{where}: `parameters` must be an object")
    check_parameters(parameters, where)
    return parameters


def _listed(told: Mapping[str, Any], name: str) -> list[Any]:
    found = told.get(name, [])
    if not isinstance(found, list):
        raise Refused(f"`{name}` must be a list")
    return found


def written(head: Mapping[str, Any], outputs: Sequence[tuple[Tensor, bool]]) -> tuple[bytes, int | None]:
    """The body of an answer, and the length of its JSON if bytes follow. Raises Refused."""
    told, tail = [], []
    for tensor, binary in outputs:
        one: dict[str, Any] = {
            "name": tensor.name,
            "shape": list(tensor.array.shape),
            "datatype": tensor.datatype,
        }
        if binary:
            raw = to_bytes(tensor.array, tensor.datatype)
            tail.append(raw)
            one["parameters"] = {"binary_data_size": len(raw)}
        else:
            one["data"] = to_json(tensor.array, f"output {tensor.name!r}")
        told.append(one)
    text = json.dumps({**head, "outputs": told}).encode()
    return b"".join((text, *tail)), len(text) if tail else None
