"""ServingEndpoint objects: what is read of one, and how a spec is written. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from google.protobuf import json_format

from trimtab.control import codec
from trimtab.core.errors import InvalidInput, Problem
from trimtab.core.names import EndpointName
from trimtab.core.spec import EndpointSpec, ModelSpec, Source
from trimtab.kube import Json, Resource
from trimtab.v1 import control_pb2 as v1

ENDPOINTS = Resource("serving.trimtab.dev/v1alpha1", "servingendpoints")
KIND = "ServingEndpoint"
FINALIZER = "serving.trimtab.dev/drain"
_WHOLE = ("requestTimeoutSeconds", "startTimeoutSeconds")  # whole seconds here


@dataclass(frozen=True)
class SeenEndpoint:
    """One object. `record` is what we wrote into its status to remember; `status` is all of that."""

    name: EndpointName
    uid: str
    version: int
    generation: int
    deleting: bool
    finalized: bool  # it does not go before we have let it
    changed_by: str
    spec: Any
    record: str
    conditions: tuple[Json, ...]
    status: Json = field(default_factory=dict)


def read_endpoint(body: Json) -> SeenEndpoint:
    metadata, status = body["metadata"], body.get("status") or {}
    return SeenEndpoint(
        name=EndpointName(metadata["namespace"], metadata["name"]),
        uid=metadata["uid"],
        version=int(metadata["resourceVersion"]),
        generation=metadata.get("generation", 0),
        deleting="deletionTimestamp" in metadata,
        finalized=FINALIZER in (metadata.get("finalizers") or ()),
        changed_by=_last_manager(metadata),
        spec=body.get("spec"),
        record=status.get("record", ""),
        conditions=tuple(status.get("conditions") or ()),
        status=status,
    )


def spec_of(seen: SeenEndpoint, tracking: str = "") -> EndpointSpec:
    """With `tracking`, the MLflow server that is asked where a spec names none.

    Raises InvalidInput for what cannot be read, though the API server took it.
    """
    if not isinstance(seen.spec, dict):
        raise InvalidInput("is not a mapping", where="spec", hint="write `spec:` and its keys below it")
    try:
        message = json_format.ParseDict(_with_text(seen.spec), v1.Spec(), ignore_unknown_fields=True)
    except (json_format.ParseError, ValueError, AttributeError, TypeError) as error:
        hint = "see docs/examples/iris.yaml; is the CustomResourceDefinition the one of this version?"
        raise InvalidInput(f"cannot be read: {error}", where="spec", hint=hint) from error
    spec = codec.spec_from_proto(seen.name, message)
    return replace(spec, models=tuple(_with_source(model, tracking) for model in spec.models))


def spec_body(spec: EndpointSpec) -> Json:
    """The spec as a user would write it. Raises InvalidInput for what cannot be said there."""
    message = codec.spec_to_proto(spec)
    for model in message.models:
        model.ClearField("source")
    body: Json = json_format.MessageToDict(message)
    problems: list[Problem] = []
    for where, inner in [("", body), *((f"models[{i}].", model) for i, model in enumerate(body["models"]))]:
        for key in _WHOLE:
            if key in inner and inner[key] != int(inner[key]):
                problems.append(
                    Problem(f"{where}{key}", f"is {inner[key]:g}", "whole seconds, on Kubernetes")
                )
            elif key in inner:
                inner[key] = int(inner[key])
    if problems:
        raise InvalidInput.of(tuple(problems))
    return body


def identity(name: EndpointName) -> Json:
    """What begins every object that we write of it."""
    return {
        "apiVersion": ENDPOINTS.version,
        "kind": KIND,
        "metadata": {"name": name.name, "namespace": name.namespace},
    }


def owner_reference(seen: SeenEndpoint) -> Json:
    """For what has to go with it."""
    return {"apiVersion": ENDPOINTS.version, "kind": KIND, "name": seen.name.name, "uid": seen.uid}


def path_of(name: EndpointName, subresource: str = "") -> str:
    return ENDPOINTS.path(name.namespace, name.name, subresource)


def _with_source(model: ModelSpec, tracking: str) -> ModelSpec:
    """A pod brings its model by the URI, which is all that is known of its files here."""
    uri = model.source.uri
    return replace(model, source=Source(uri, resolved_uri=uri, digest=f"uri:{uri}", asked=tracking))


def _with_text(spec: Json) -> Json:
    """Amounts that were written as numbers as text; the rest as it is."""
    models = [
        {**model, "resources": _texts(model.get("resources") or {})} for model in spec.get("models") or ()
    ]
    return {**spec, "models": models}


def _texts(amounts: Json) -> Json:
    """Where an amount may be written as a number here, the API's messages have text."""
    return {key: _texts(each) if isinstance(each, dict) else str(each) for key, each in amounts.items()}


def _last_manager(metadata: Json) -> str:
    """Who changed what is wanted last; the status is ours."""
    managers = [each for each in metadata.get("managedFields") or () if each.get("subresource") != "status"]
    asked = [each for each in managers if "f:spec" in (each.get("fieldsV1") or {})]
    latest: Json = max(asked, key=lambda each: each.get("time", ""), default={})
    return str(latest.get("manager", ""))
