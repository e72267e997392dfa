"""gRPC's messages, built at run time in a pool of their own.

Generated code would need the protobuf that it was generated for, and the model's environment has the one
that the model was logged with. Descriptors are the same in all of them; in a pool of their own they are in
nobody's way who has the protocol's generated classes too, as Triton's client does.
https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/open_inference_grpc.proto
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "inference"
_FILE = "trimtab/open_inference.proto"
_Field = descriptor_pb2.FieldDescriptorProto

# Fields in the order of their numbers, but where a number is given. A map is `NAME{} TYPE`: by string.
_MESSAGES = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "bool live",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "bool ready",
    "ModelReadyRequest": "string name, string version",
    "ModelReadyResponse": "bool ready",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "string name, string version, string[] extensions",
    "ModelMetadataRequest": "string name, string version",
    "ModelMetadataResponse": "string name, string[] versions, string platform, TensorMetadata[] inputs, "
    "TensorMetadata[] outputs",
    "TensorMetadata": "string name, string datatype, int64[] shape",
    "InferParameter": "bool? bool_param, int64? int64_param, string? string_param, double? double_param, "
    "uint64? uint64_param",
    "InferTensorContents": "bool[] bool_contents, int32[] int_contents, int64[] int64_contents, "
    "uint32[] uint_contents, uint64[] uint64_contents, float[] fp32_contents, double[] fp64_contents, "
    "bytes[] bytes_contents",
    "InferTensor": "string name, string datatype, int64[] shape, InferParameter{} parameters, "
    "InferTensorContents contents",
    "InferRequestedOutput": "string name, InferParameter{} parameters",
    "ModelInferRequest": "string model_name, string model_version, string id, InferParameter{} parameters, "
    "InferTensor[] inputs, InferRequestedOutput[] outputs, bytes[] raw_input_contents",
    "ModelInferResponse": "string model_name, string model_version, string id, InferParameter{} parameters, "
    "InferTensor[] outputs, bytes[] raw_output_contents",
}


@cache
def message(name: str) -> Any:
    """The class of a message."""
    found = _pool().FindMessageTypeByName(f"{PACKAGE}.{name}")
    factory: Any = message_factory
    get = getattr(factory, "GetMessageClass", None)  # since protobuf 4.22
    return get(found) if get else factory.MessageFactory(_pool()).GetPrototype(found)


@cache
def _pool() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name=_FILE, package=PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        made = file.message_type.add(name=name)
        for number, field in enumerate(filter(None, fields.split(", ")), start=1):
            _add(made, number, *field.split(" "))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file) if hasattr(pool, "Add") else pool.AddSerializedFile(file.SerializeToString())
    return pool


def _add(made: Any, number: int, kind: str, name: str) -> None:
    field = made.field.add(name=name, number=number)
    field.label = _Field.LABEL_REPEATED if kind.endswith(("[]", "{}")) else _Field.LABEL_OPTIONAL
    if kind.endswith("?"):
        if not made.oneof_decl:
            made.oneof_decl.add(name="parameter_choice")
        field.oneof_index = 0
    if kind.endswith("{}"):
        entry = made.nested_type.add(name=f"{name.title()}Entry")
        entry.options.map_entry = True
        _add(entry, 1, "string", "key")
        _add(entry, 2, kind.removesuffix("{}"), "value")
        _typed(field, f"{made.name}.{entry.name}")
    else:
        _typed(field, kind.rstrip("[]?"))


def _typed(field: Any, kind: str) -> None:
    scalar = getattr(_Field, f"TYPE_{kind.upper()}", None)
    if scalar is not None:
        field.type = scalar
    else:
        field.type = _Field.TYPE_MESSAGE
        field.type_name = f".{PACKAGE}.{kind}"
