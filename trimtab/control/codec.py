"""Between the control API's messages and our own types, for the wire and for the store alike.

The store keeps specs as the JSON of the API's messages: the check against breaking changes of
the API then also guards what is stored.
"""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache

from google.protobuf import json_format

from trimtab.core.errors import InvalidInput
from trimtab.core.names import EndpointName
from trimtab.core.spec import (
    ConcurrencyRange,
    Custom,
    EndpointSpec,
    ModelSpec,
    Placement,
    Resources,
    Source,
    Toleration,
    TrafficShare,
    with_defaults,
)
from trimtab.v1 import control_pb2 as v1

_UNITS = {
    "": 1,
    "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40,
}  # fmt: skip
_QUANTITY = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,9})?)(k|[MGT]|[KMGT]i)?")
_CPU = re.compile(r"([0-9]{1,30}(?:\.[0-9]{1,30})?(?:e[+-]?[0-9]{1,3})?)(m?)")  # with what `repr` writes
MEMORY_BYTES_MAX = 2**63 - 1
SPECS_KEPT = 4096  # as JSON, and read again: each write of an endpoint's status asks for those it had


def endpoint_name(ref: v1.EndpointRef) -> EndpointName:
    """Raises InvalidInput."""
    return EndpointName.parse(ref.name, ref.namespace)


def endpoint_ref(name: EndpointName) -> v1.EndpointRef:
    return v1.EndpointRef(namespace=name.namespace, name=name.name)


def spec_from_proto(endpoint: EndpointName, message: v1.Spec) -> EndpointSpec:
    """The spec with defaults filled in. Raises InvalidInput for quantities that cannot be read."""
    spec = EndpointSpec(
        models=tuple(_model(f"models[{i}]", model) for i, model in enumerate(message.models)),
        traffic=tuple(TrafficShare(share.model, share.percent) for share in message.traffic),
        max_pods=message.max_pods,
        request_timeout_s=message.request_timeout_s or EndpointSpec.request_timeout_s,
    )
    return with_defaults(endpoint.name, spec)


def spec_to_proto(spec: EndpointSpec) -> v1.Spec:
    return v1.Spec(
        models=[model_to_proto(model) for model in spec.models],
        traffic=[v1.Traffic(model=share.model, percent=share.percent) for share in spec.traffic],
        max_pods=spec.max_pods,
        request_timeout_s=spec.request_timeout_s,
    )


def model_to_proto(model: ModelSpec) -> v1.Model:
    source = model.source
    return v1.Model(
        name=model.name,
        uri=source.uri,
        runtime=model.runtime,
        resources=v1.Resources(
            cpu=repr(float(model.resources.cpu)).removesuffix(".0"),  # each digit: it is in the hash
            memory=str(model.resources.memory_bytes) if model.resources.memory_bytes else "",
            extended=dict(model.resources.extended),
        ),
        concurrency=v1.Concurrency(min=model.concurrency.min, max=model.concurrency.max),
        env=dict(model.env),
        env_manager=model.env_manager,
        start_timeout_s=model.start_timeout_s,
        custom=_custom_to_proto(model.custom),
        tracking_uri=model.tracking_uri,
        secret_ref=v1.SecretRef(name=model.secret) if model.secret else None,
        node_selector=dict(model.placement.node_selector),
        tolerations=[
            v1.Toleration(key=each.key, operator=each.operator, value=each.value, effect=each.effect)
            for each in model.placement.tolerations
        ],
        source=v1.Source(
            resolved_uri=source.resolved_uri,
            version=source.version,
            alias=source.alias,
            digest=source.digest,
            asked=source.asked,
            resolved_at_s=source.resolved_at_s,
        ),
    )


@lru_cache(maxsize=SPECS_KEPT)
def spec_to_json(spec: EndpointSpec) -> str:
    return str(json_format.MessageToJson(spec_to_proto(spec), preserving_proto_field_name=True, indent=None))


@lru_cache(maxsize=SPECS_KEPT)
def spec_from_json(endpoint: EndpointName, text: str) -> EndpointSpec:
    """Fields that a newer version wrote and this one does not know are passed over."""
    return spec_from_proto(endpoint, json_format.Parse(text, v1.Spec(), ignore_unknown_fields=True))


def model_to_json(model: ModelSpec) -> str:
    return str(
        json_format.MessageToJson(model_to_proto(model), preserving_proto_field_name=True, indent=None)
    )


def model_from_json(text: str) -> ModelSpec:
    return _model("model", json_format.Parse(text, v1.Model(), ignore_unknown_fields=True))


def _model(where: str, message: v1.Model) -> ModelSpec:
    source = message.source
    return ModelSpec(
        name=message.name,
        source=Source(
            uri=message.uri,
            resolved_uri=source.resolved_uri,
            version=source.version,
            alias=source.alias,
            digest=source.digest,
            asked=source.asked,
            resolved_at_s=source.resolved_at_s,
        ),
        runtime=message.runtime or ("custom" if message.HasField("custom") else ModelSpec.runtime),
        resources=Resources(
            cpu=parse_cpu(message.resources.cpu, f"{where}.resources.cpu"),
            memory_bytes=parse_bytes(message.resources.memory, f"{where}.resources.memory"),
            extended=tuple(sorted(message.resources.extended.items())),
        ),
        concurrency=_range(message.concurrency),
        env=tuple(sorted(message.env.items())),
        custom=_custom(message.custom),
        placement=_placement(message),
        env_manager=message.env_manager or ModelSpec.env_manager,
        start_timeout_s=message.start_timeout_s or ModelSpec.start_timeout_s,
        tracking_uri=message.tracking_uri,
        secret=message.secret_ref.name,
    )


def _placement(message: v1.Model) -> Placement:
    return Placement(
        node_selector=tuple(sorted(message.node_selector.items())),
        tolerations=tuple(
            Toleration(each.key, each.operator or Toleration.operator, each.value, each.effect)
            for each in message.tolerations
        ),
    )


def _custom(message: v1.Custom) -> Custom:
    return Custom(
        command=tuple(message.command),
        image=message.image,
        protocols=tuple(message.protocols) or Custom.protocols,
        ready_path=message.ready_path,
        port=message.port,
    )


def _custom_to_proto(custom: Custom) -> v1.Custom | None:
    if custom == Custom():
        return None
    return v1.Custom(
        command=custom.command,
        image=custom.image,
        protocols=custom.protocols,
        ready_path=custom.ready_path,
        port=custom.port,
    )


def _range(message: v1.Concurrency) -> ConcurrencyRange:
    default = ConcurrencyRange()
    low = message.min if message.HasField("min") else default.min
    high = message.max if message.HasField("max") else max(default.max, low)
    return ConcurrencyRange(low, high)


def parse_cpu(text: str, where: str) -> float:
    """Cores: `1`, `0.5`, `500m`; empty is the default, 1. Raises InvalidInput."""
    if not text:
        return Resources.cpu
    match = _CPU.fullmatch(text.strip())
    if match is None:
        raise InvalidInput(
            f"`{text}` is not a number of cores", where=where, hint="for example 1, 0.5 or 500m"
        )
    return float(match[1]) / (1000 if match[2] else 1)


def parse_bytes(text: str, where: str) -> int:
    """Bytes: `512Mi`, `2G`, `1073741824`; empty is 0, no limit. Raises InvalidInput."""
    if not text:
        return 0
    match = _QUANTITY.fullmatch(text.strip())
    found = int(Decimal(match[1]) * _UNITS[match[2] or ""]) if match else None
    if found is None or found > MEMORY_BYTES_MAX:
        raise InvalidInput(
            f"`{text}` is not an amount of memory", where=where, hint="for example 512Mi or 2G"
        )
    return found
