"""What the comments in proto/ say of each message and field."""

from __future__ import annotations

import tempfile
from pathlib import Path

import grpc_tools
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

PROTO = Path(__file__).resolve().parents[2] / "proto"
FILE = "trimtab/v1/control.proto"
WELL_KNOWN = Path(grpc_tools.__file__).parent / "_proto"

# Numbers in the paths of a descriptor's source information: google/protobuf/descriptor.proto.
_MESSAGES = FileDescriptorProto.MESSAGE_TYPE_FIELD_NUMBER
_FIELDS = 2


def read_comments() -> dict[str, str]:
    """`Model.uri` → its comment in one line; `Model` → that of the message. Raises RuntimeError."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "descriptors"
        arguments = [f"-I{PROTO}", f"-I{WELL_KNOWN}", "--include_source_info", f"--descriptor_set_out={out}"]
        status = protoc.main(["protoc", *arguments, FILE])
        if status != 0:
            raise RuntimeError(f"protoc ended with status {status} over {PROTO / FILE}")
        (file,) = FileDescriptorSet.FromString(out.read_bytes()).file
    found = {}
    for location in file.source_code_info.location:
        said = " ".join((location.leading_comments or location.trailing_comments).split())
        name = _named(file, tuple(location.path))
        if said and name:
            found[name] = said
    return found


def _named(file: FileDescriptorProto, path: tuple[int, ...]) -> str:
    match path:
        case (kind, message) if kind == _MESSAGES:
            return file.message_type[message].name
        case (kind, message, inner, field) if kind == _MESSAGES and inner == _FIELDS:
            found = file.message_type[message]
            return f"{found.name}.{found.field[field].name}"
        case _:
            return ""
