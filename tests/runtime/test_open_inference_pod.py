"""The Open Inference Protocol of a whole pod, over HTTP: health, metadata, inference, and gRPC's frames."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest

from tests.runtime.conftest import until
from trimtab.runtime.mlflow.open_inference.schema import message

COLUMNS = ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"]
ROW = [5.1, 3.5, 1.4, 0.2]
INPUTS = [
    {"name": name, "datatype": "FP64", "shape": [1], "data": [value]}
    for name, value in zip(COLUMNS, ROW, strict=True)
]
GRPC = "/inference.GRPCInferenceService"


def infer(pod: Any, body: bytes, **headers: str) -> Any:
    return pod.ask("POST", "/v2/models/iris/infer", body, **headers)


def test_health_and_metadata(iris_pod: Any) -> None:
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/iris/ready"):
        assert iris_pod.ask("GET", path).status == 200
    told = iris_pod.ask("GET", "/v2").value
    assert (told["name"], "binary_tensor_data" in told["extensions"]) == ("trimtab", True)
    for path in ("/v2/models/iris", "/v2/models/iris/versions/1"):
        told = iris_pod.ask("GET", path).value
        assert [one["name"] for one in told["inputs"]] == COLUMNS
        assert told["outputs"] == [{"name": "predictions", "datatype": "INT64", "shape": [-1]}]


def test_inference_in_json_and_in_binary(iris_pod: Any) -> None:
    answer = infer(iris_pod, json.dumps({"inputs": INPUTS, "id": "7"}).encode())
    assert answer.status == 200
    output = {"name": "predictions", "datatype": "INT64", "shape": [1], "data": [0]}
    assert answer.value == {"model_name": "iris", "model_version": "1", "id": "7", "outputs": [output]}
    assert {"server-timing", "x-request-id"} <= answer.headers.keys()
    inputs = [
        {name: value for name, value in one.items() if name != "data"}
        | {"parameters": {"binary_data_size": 8}}
        for one in INPUTS
    ]
    text = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    headers = {"inference-header-content-length": str(len(text))}
    binary = infer(iris_pod, text + struct.pack("<4d", *ROW), **headers)
    assert (binary.status, binary.headers["content-type"]) == (200, "application/octet-stream")
    length = int(binary.headers["inference-header-content-length"])
    assert np.frombuffer(binary.body[length:], "<i8").tolist() == [0]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v2/models/iris/infer", 400),
        ("POST", "/v2/models/iris/versions/2/infer", 404),
        ("GET", "/v2/models/iris/infer", 405),
        ("POST", "/v2/models/iris", 405),
        ("POST", "/v2", 405),
        ("GET", "/v2/repository/index", 404),
        ("GET", "/v2/", 404),
    ],
)
def test_errors_are_the_protocols_own(iris_pod: Any, method: str, path: str, status: int) -> None:
    answer = iris_pod.ask(method, path, b"{}" if method == "POST" else None)
    assert (answer.status, answer.headers["x-trimtab-fault"], list(answer.value)) == (
        status,
        "caller",
        ["error"],
    )


def test_a_body_that_is_too_large(iris_pod: Any) -> None:
    answer = infer(iris_pod, bytes((16 << 20) + 1))
    assert (answer.status, list(answer.value)) == (413, ["error"])


def test_a_model_that_raises(odd_pod: Any) -> None:
    told = json.dumps(
        {"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": ["raises"]}]}
    ).encode()
    answer = odd_pod.ask("POST", "/v2/models/any/infer", told)
    assert (answer.status, answer.headers["x-trimtab-fault"]) == (500, "model")
    assert "Error" in answer.value["error"]


def call(pod: Any, method: str, request: Any) -> Any:
    data = request.SerializeToString()
    headers = {"te": "trailers"}
    framed = struct.pack(">BI", 0, len(data)) + data
    return pod.ask("POST", f"{GRPC}/{method}", framed, "application/grpc", **headers)


def test_the_calls_of_grpc(iris_pod: Any) -> None:
    for method, field in (("ServerLive", "live"), ("ServerReady", "ready"), ("ModelReady", "ready")):
        answer = call(iris_pod, method, message(f"{method}Request")())
        assert (answer.status, answer.headers["content-type"]) == (200, "application/grpc")
        assert getattr(message(f"{method}Response").FromString(answer.body[5:]), field) is True
    told = call(iris_pod, "ModelMetadata", message("ModelMetadataRequest")(name="iris"))
    found = message("ModelMetadataResponse").FromString(told.body[5:])
    assert [(one.name, one.datatype, list(one.shape)) for one in found.outputs] == [
        ("predictions", "INT64", [-1])
    ]
    assert call(iris_pod, "ServerMetadata", message("ServerMetadataRequest")()).status == 200

    request = message("ModelInferRequest")(model_name="iris")
    for name, value in zip(COLUMNS, ROW, strict=True):
        request.inputs.add(name=name, datatype="FP64", shape=[1]).contents.fp64_contents.append(value)
    inferred = call(iris_pod, "ModelInfer", request)
    response = message("ModelInferResponse").FromString(inferred.body[5:])
    assert np.frombuffer(response.raw_output_contents[0], "<i8").tolist() == [0]

    request.inputs[0].name = "sepal"
    refused = call(iris_pod, "ModelInfer", request)
    assert (refused.status, refused.headers["grpc-status"], refused.body) == (200, "3", b"")
    assert "unexpected input 'sepal'" in refused.headers["grpc-message"]
    assert refused.headers["x-trimtab-fault"] == "caller"
    unknown = iris_pod.ask("POST", f"{GRPC}/RepositoryIndex", b"", "application/grpc")
    assert unknown.headers["grpc-status"] == "12"


def test_what_is_asked_this_way_is_counted(iris_pod: Any) -> None:
    infer(iris_pod, json.dumps({"inputs": INPUTS}).encode())
    page = iris_pod.ask("GET", "/metrics").body.decode()
    label = 'http_route="/v2/models/{model}/infer"'
    assert any(label in line and not line.endswith(" 0.0") for line in page.splitlines())


def test_until_it_is_ready_it_says_so(starter: Any, start_pod: Any, tmp_path: Any) -> None:
    gate = tmp_path / "gate"
    pod = start_pod(starter, TEST_START=f"waits:{gate}")
    try:
        until(lambda: pod.answers("/v2/health/live", 200), "live")
        ready = pod.ask("GET", "/v2/health/ready")
        assert (ready.status, ready.value) == (503, {"error": "The model is still loading."})
        refused = pod.ask("POST", f"{GRPC}/ServerReady", b"", "application/grpc")
        assert refused.headers["grpc-status"] == "14"
        assert infer(pod, b"{}").status == 503
    finally:
        gate.touch()
    pod.wait_ready()
    assert pod.ask("GET", "/v2/health/ready").value == {"ready": True}
