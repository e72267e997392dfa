"""Requests over REST and gRPC to a model in this process, and their answers as arrays."""

from __future__ import annotations

import asyncio
import json
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimtab.runtime.mlflow import wording
from trimtab.runtime.mlflow.answer import Answer
from trimtab.runtime.mlflow.open_inference.datatypes import BYTES, FIXED, from_bytes, to_bytes
from trimtab.runtime.mlflow.open_inference.job import InferJob
from trimtab.runtime.mlflow.open_inference.messages import Refused
from trimtab.runtime.mlflow.open_inference.schema import message
from trimtab.runtime.mlflow.open_inference.service import GrpcWire, Model, RestWire
from trimtab.runtime.mlflow.open_inference.signature import Inputs
from trimtab.runtime.mlflow.quick import Quick
from trimtab.runtime.mlflow.scoring import Scorer

LOOP = asyncio.new_event_loop()
LOOP.close()
Given = dict[str, tuple[str, tuple[int, ...], list[Any]]]  # by name: datatype, shape, flat elements
BINARY, LENGTH = "application/octet-stream", b"inference-header-content-length"


@dataclass
class Subject:
    """A model with both ways to it."""

    scorer: Scorer
    quick: Quick | None
    model: Model

    @classmethod
    def of(cls, pyfunc: Any, quick: Quick | None = None) -> Subject:
        scorer = Scorer(pyfunc)
        return cls(scorer, quick, Model.of(pyfunc.metadata, ("m",), "3"))

    def rest(self, body: bytes, headers: dict[bytes, bytes], *, slow: bool = False) -> Answer:
        scope = {"type": "http", "path": "/v2/models/m/infer", "headers": list(headers.items())}
        return wording.open_inference(self._asked(RestWire(self.model, scope, body), slow=slow))

    def grpc(self, body: bytes, headers: dict[bytes, bytes] | None = None, *, slow: bool = False) -> Answer:
        scope = {"type": "http", "path": "/", "headers": list((headers or {}).items())}
        return wording.grpc(self._asked(GrpcWire(self.model, scope, body), slow=slow))

    def _asked(self, wire: Any, *, slow: bool) -> Answer:
        inputs = self.model.inputs
        known = Inputs((), tuple) if isinstance(inputs, Refused) else inputs
        job = InferJob(wire, known, self.model.outputs, asyncio.Future(loop=LOOP))
        job.slow = slow
        (self.quick or self.scorer).carry_out(job)
        assert job.answer is not None
        return job.answer


def as_json(given: Given, **more: Any) -> tuple[bytes, dict[bytes, bytes]]:
    inputs = [
        {"name": name, "datatype": datatype, "shape": list(shape), "data": [_plain(e) for e in elements]}
        for name, (datatype, shape, elements) in given.items()
    ]
    return json.dumps({"inputs": inputs, **more}).encode(), {}


def as_binary(given: Given, **more: Any) -> tuple[bytes, dict[bytes, bytes]]:
    inputs, tail = [], b""
    for name, (datatype, shape, elements) in given.items():
        raw = to_bytes(array(datatype, elements), datatype)
        told = {"name": name, "datatype": datatype, "shape": list(shape)}
        inputs.append(told | {"parameters": {"binary_data_size": len(raw)}})
        tail += raw
    more.setdefault("parameters", {"binary_data_output": True})
    text = json.dumps({"inputs": inputs, **more}).encode()
    return text + tail, {LENGTH: b"%d" % len(text)}


def as_message(given: Given, *, raw: bool, **more: Any) -> bytes:
    told = message("ModelInferRequest")(model_name="m", **more)
    fields = {"BOOL": "bool", "INT64": "int64", "UINT64": "uint64", "FP32": "fp32", "FP64": "fp64"}
    for name, (datatype, shape, elements) in given.items():
        one = told.inputs.add(name=name, datatype=datatype, shape=shape)
        if raw:
            told.raw_input_contents.append(to_bytes(array(datatype, elements), datatype))
            continue
        default = "bytes" if datatype == BYTES else "uint" if datatype.startswith("U") else "int"
        field = getattr(one.contents, f"{fields.get(datatype, default)}_contents")
        field.extend(e.encode() if isinstance(e, str) else e for e in elements)
    return frame(told.SerializeToString())


def frame(data: bytes, compressed: int = 0) -> bytes:
    return struct.pack(">BI", compressed, len(data)) + data


def array(datatype: str, elements: list[Any]) -> Any:
    if datatype != BYTES:
        return np.array(elements, dtype=FIXED[datatype])
    found = np.empty(len(elements), dtype=object)
    found[:] = elements
    return found


def outputs_of(answer: Answer) -> dict[str, list[Any]]:
    """By name, the elements of a REST answer."""
    body = answer.encoded()
    length = dict(answer.headers).get(LENGTH)
    end = int(length) if length else len(body)
    found, rest = {}, body[end:]
    for one in json.loads(body[:end])["outputs"]:
        size = one.get("parameters", {}).get("binary_data_size")
        if size is None:
            found[one["name"]] = one["data"]
        else:
            found[one["name"]] = _texts(from_bytes(one["datatype"], rest[:size], "").tolist())
            rest = rest[size:]
    assert not rest
    return found


def message_of(answer: Answer) -> Any:
    assert (answer.status, answer.media_type) == (200, "application/grpc")
    return message("ModelInferResponse").FromString(answer.encoded()[5:])


def grpc_outputs_of(answer: Answer) -> dict[str, list[Any]]:
    told = message_of(answer)
    return {
        one.name: _texts(from_bytes(one.datatype, raw, "").tolist())
        for one, raw in zip(told.outputs, told.raw_output_contents, strict=True)
    }


def _texts(elements: list[Any]) -> list[Any]:
    return [each.decode() if isinstance(each, bytes) else each for each in elements]


def _plain(element: Any) -> Any:
    return element.decode() if isinstance(element, bytes) else element
