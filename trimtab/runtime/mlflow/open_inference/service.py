"""The calls of the protocol: health, metadata and inference, over REST and over gRPC."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from starlette.types import Scope

from trimtab.runtime.mlflow import routes, wording
from trimtab.runtime.mlflow.answer import Answer
from trimtab.runtime.mlflow.dispatch import Dispatch
from trimtab.runtime.mlflow.invocation import BODY_BYTES_MAX, Invocations
from trimtab.runtime.mlflow.job import Job, Waiter
from trimtab.runtime.mlflow.metrics import Meter
from trimtab.runtime.mlflow.open_inference import grpc, rest
from trimtab.runtime.mlflow.open_inference.compression import inflated
from trimtab.runtime.mlflow.open_inference.job import InferJob, refusal
from trimtab.runtime.mlflow.open_inference.messages import Refused, Request, Tensor, Wanted
from trimtab.runtime.mlflow.open_inference.schema import message
from trimtab.runtime.mlflow.open_inference.signature import Inputs, Spec, output_specs
from trimtab.runtime.mlflow.telemetry import Telemetry, header

VERSION = "1"  # of the model, to its callers: a pod has one
SERVER = "trimtab"
PLATFORM = "mlflow"
EXTENSIONS = ("binary_tensor_data", "parameters")
_MODEL = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(/ready|/infer)?")


@dataclass(frozen=True)
class Model:
    """The pod's model, as callers see it. `called`: its names; () is any."""

    called: tuple[str, ...]
    inputs: Inputs | Refused
    outputs: tuple[Spec, ...]
    mlflow: str  # MLflow's version

    @classmethod
    def of(cls, metadata: Any, called: tuple[str, ...], mlflow: str) -> Model:
        """Of an MLflow model's metadata."""
        try:
            inputs: Inputs | Refused = Inputs.of(metadata)
        except Refused as refused:
            inputs = refused
        return cls(called, inputs, output_specs(metadata), mlflow)

    def check(self, name: str, version: str | None) -> None:
        """Raises Refused if this is not what a caller names."""
        if self.called and name not in self.called:
            raise Refused(f"unknown model {name!r}; here is {self.called[0]!r}", 404)
        if version and version != VERSION:
            raise Refused(f"unknown version {version!r} of model {name!r}; there is {VERSION!r}", 404)

    def asked(self) -> Inputs:
        """Its inputs. Raises Refused if they are none of this protocol."""
        if isinstance(self.inputs, Refused):
            raise self.inputs
        return self.inputs

    def metadata(self, name: str) -> dict[str, Any]:
        """In both protocols' words. Raises Refused."""
        return {
            "name": name,
            "versions": [VERSION],
            "platform": PLATFORM,
            "inputs": [_told(spec) for spec in self.asked().specs],
            "outputs": [_told(spec) for spec in self.outputs],
        }

    def server(self) -> dict[str, Any]:
        """Of the server."""
        return {"name": SERVER, "version": self.mlflow, "extensions": list(EXTENSIONS)}


def _told(spec: Spec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


class _Wire:
    """One request, and the model that it asks."""

    def __init__(self, model: Model, scope: Scope, body: bytes) -> None:
        self._model = model
        self._scope = scope
        self._body = body
        self._name = ""


class RestWire(_Wire):
    """One request over REST."""

    def read(self) -> Request:
        """Raises Refused."""
        found = _MODEL.fullmatch(self._scope["path"])
        assert found is not None
        self._name = found[1]
        self._model.check(self._name, found[2])
        self._model.asked()
        encoding = (header(self._scope["headers"], b"content-encoding") or b"identity").strip().lower()
        body = self._body
        if encoding != b"identity":
            body = inflated(body, encoding, BODY_BYTES_MAX)
        return rest.read(body, header(self._scope["headers"], rest.LENGTH_HEADER))

    def written(self, request: Request, outputs: list[tuple[Tensor, Wanted]]) -> Answer:
        """Raises Refused."""
        head = {"model_name": self._name, "model_version": VERSION}
        if request.id:
            head["id"] = request.id
        body, length = rest.written(head, [(tensor, wanted.binary) for tensor, wanted in outputs])
        if length is None:
            return Answer("", 200, raw=body)
        return Answer("", 200, rest.BINARY, raw=body, headers=((rest.LENGTH_HEADER, b"%d" % length),))


class GrpcWire(_Wire):
    """One request over gRPC."""

    def read(self) -> Request:
        """Raises Refused."""
        encoding = header(self._scope["headers"], b"grpc-encoding")
        told = grpc.opened("ModelInferRequest", self._body, encoding, BODY_BYTES_MAX)
        self._name = told.model_name
        self._model.check(told.model_name, told.model_version)
        self._model.asked()
        return grpc.read(told)

    def written(self, request: Request, outputs: list[tuple[Tensor, Wanted]]) -> Answer:
        """Raises nothing of its own."""
        head = {"model_name": self._name, "model_version": VERSION, "id": request.id}
        return grpc.written(head, [tensor for tensor, _ in outputs])


class Infer(Invocations):
    """`POST /v2/models/{model}/infer`."""

    route = routes.INFER
    wire: type[RestWire] | type[GrpcWire] = RestWire

    def __init__(self, meter: Meter, telemetry: Telemetry, dispatch: Dispatch, model: Model) -> None:
        super().__init__(meter, telemetry)
        self.dispatch = dispatch
        self._model = model

    def job(self, scope: Scope, body: bytes, answered: Waiter) -> Job:
        """The job, which reads the body in its own time."""
        inputs = self._model.inputs
        known = Inputs((), tuple) if isinstance(inputs, Refused) else inputs  # then `read` refuses
        return InferJob(self.wire(self._model, scope, body), known, self._model.outputs, answered)

    def worded(self, answer: Answer) -> Answer:
        """`{"error": …}`."""
        return wording.open_inference(answer)


class GrpcInfer(Infer):
    """`ModelInfer`."""

    route = routes.GRPC_INFER
    wire = GrpcWire

    def worded(self, answer: Answer) -> Answer:
        """gRPC's status."""
        return wording.grpc(answer)


class OpenInference:
    """The ASGI application of all that is below `/v2` and `/inference.GRPCInferenceService/`."""

    def __init__(self, meter: Meter, telemetry: Telemetry, dispatch: Dispatch, model: Model) -> None:
        self._model = model
        self._infer = Infer(meter, telemetry, dispatch, model)
        self._grpc_infer = GrpcInfer(meter, telemetry, dispatch, model)

    def predicts(self, scope: Scope) -> Invocations | None:
        """What takes this request, if it is one for a prediction."""
        if scope["method"] != "POST":
            return None
        if scope["path"] == routes.GRPC_INFER:
            return self._grpc_infer
        found = _MODEL.fullmatch(scope["path"])
        return self._infer if found and found[3] == "/infer" else None

    def told(self, scope: Scope, body: bytes) -> Answer:
        """The answer to any other request."""
        path = scope["path"]
        if path.startswith(routes.GRPC):
            try:
                return self._grpc(path.removeprefix(routes.GRPC), scope, body)
            except Refused as refused:
                return wording.grpc(refusal(refused))
        try:
            return Answer(json.dumps(self._rest(path, scope["method"])), 200)
        except Refused as refused:
            return wording.open_inference(refusal(refused))

    def _rest(self, path: str, method: str) -> dict[str, Any]:
        found = _MODEL.fullmatch(path)
        known = found or path in ("/v2", "/v2/health/live", "/v2/health/ready")
        if not known:
            raise Refused(f"there is no {path}", 404)
        wanted = "POST" if found and found[3] == "/infer" else "GET"
        if method != wanted:
            raise Refused(f"use {wanted} for {path}", 405)
        if found:
            self._model.check(found[1], found[2])
            return {"name": found[1], "ready": True} if found[3] else self._model.metadata(found[1])
        name = path.rpartition("/")[2]
        return self._model.server() if name == "v2" else {name: True}

    def _grpc(self, method: str, scope: Scope, body: bytes) -> Answer:
        if method not in _GRPC_ANSWERS:
            raise Refused(f"there is no method {method!r} here", 501)
        encoding = header(scope["headers"], b"grpc-encoding")
        asked = grpc.opened(f"{method}Request", body, encoding, BODY_BYTES_MAX)
        if method.startswith("Model"):
            self._model.check(asked.name, asked.version)
        return grpc.framed(message(f"{method}Response")(**_GRPC_ANSWERS[method](self._model, asked)))


_GRPC_ANSWERS: dict[str, Any] = {
    "ServerLive": lambda _model, _asked: {"live": True},
    "ServerReady": lambda _model, _asked: {"ready": True},
    "ModelReady": lambda _model, _asked: {"ready": True},
    "ServerMetadata": lambda model, _asked: model.server(),
    "ModelMetadata": lambda model, asked: model.metadata(asked.name),
}
