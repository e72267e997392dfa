"""Catch a breaking change of the control API: compare trimtab/v1 with the accepted proto/baseline.json.

python proto/breaking.py            exit status 1 if a client built against the baseline would break,
                                    or if the baseline lacks an addition
python proto/breaking.py --accept   records additions; refuses while anything breaks

What a client relies on: numbers, names (JSON and the command line show them), types, whether a
field repeats or tells unset from zero, the calls and what they take and give. There is no flag for
breaking it: a new shape is a new package (trimtab.v2). Reads the generated code, so check that that
is fresh first (`make proto-check` does both).
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys
from collections.abc import Iterable
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    MethodDescriptorProto,
)

import trimtab.v1

BASELINE = Path(__file__).resolve().parent / "baseline.json"

Api = dict[
    str, str
]  # what it is (`message trimtab.v1.Spec field 2`) → how it looks (`repeated Traffic traffic`)


def generated() -> list[FileDescriptorProto]:
    """What the generated modules of trimtab.v1 were made from."""
    files = []
    for module in pkgutil.iter_modules(trimtab.v1.__path__, "trimtab.v1."):
        if module.name.endswith("_pb2"):
            file = FileDescriptorProto()
            importlib.import_module(module.name).DESCRIPTOR.CopyToProto(file)
            files.append(file)
    return files


def api_of(files: Iterable[FileDescriptorProto]) -> Api:
    """Every promise of the files, one entry each."""
    api: Api = {}
    for file in files:
        for message in file.message_type:
            api |= _message(f"{file.package}.{message.name}", message)
        for enum in file.enum_type:
            api |= _enum(f"{file.package}.{enum.name}", enum)
        for service in file.service:
            for method in service.method:
                api[f"rpc {file.package}.{service.name}/{method.name}"] = _method(method)
    return dict(sorted(api.items()))


def broken(old: Api, new: Api) -> list[str]:
    """What was promised and is gone or different, in words."""
    found = []
    for what, look in old.items():
        if what not in new:
            found.append(f"{what} `{look}` was removed")
        elif new[what] != look:
            found.append(f"{what} was `{look}` and is `{new[what]}`")
    return found


def added(old: Api, new: Api) -> list[str]:
    """What is new and not promised yet, in words."""
    return [f"{what} `{look}`" for what, look in new.items() if what not in old]


def _message(name: str, message: DescriptorProto) -> Api:
    api: Api = {f"message {name}": "map entry" if message.options.map_entry else "message"}
    for field in message.field:
        api[f"message {name} field {field.number}"] = _field(field, message)
    for nested in message.nested_type:
        api |= _message(f"{name}.{nested.name}", nested)
    for enum in message.enum_type:
        api |= _enum(f"{name}.{enum.name}", enum)
    return api


def _field(field: FieldDescriptorProto, message: DescriptorProto) -> str:
    label = FieldDescriptorProto.Label.Name(field.label).removeprefix("LABEL_").lower()
    kind = (
        field.type_name.lstrip(".")
        or FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    )
    if field.proto3_optional:
        label = "optional, tells unset from zero,"
    elif label == "optional":
        label = "single"
    oneof = field.HasField("oneof_index") and not field.proto3_optional
    where = f" in oneof {message.oneof_decl[field.oneof_index].name}" if oneof else ""
    return f"{label} {kind} {field.name}{where}"


def _enum(name: str, enum: EnumDescriptorProto) -> Api:
    return {f"enum {name} value {value.number}": value.name for value in enum.value}


def _method(method: MethodDescriptorProto) -> str:
    takes = ("stream " if method.client_streaming else "") + method.input_type.lstrip(".")
    gives = ("stream " if method.server_streaming else "") + method.output_type.lstrip(".")
    return f"({takes}) returns ({gives})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--accept", action="store_true", help="record additions in the baseline")
    accept = parser.parse_args().accept
    old: Api = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    new = api_of(generated())
    breaks, additions = broken(old, new), added(old, new)
    for line in breaks:
        sys.stderr.write(f"error: {line}\n")
    if breaks:
        sys.stderr.write("hint: keep the old field and add another; a new shape is a new package\n")
        return 1
    if accept:
        BASELINE.write_text(json.dumps(new, indent=1) + "\n")
        sys.stdout.write(f"{len(additions)} additions recorded in {BASELINE.name}\n")
        return 0
    for line in additions:
        sys.stderr.write(f"error: {line} is not in the baseline\n")
    if additions:
        sys.stderr.write("hint: make proto-accept\n")
    return 1 if additions else 0


if __name__ == "__main__":
    sys.exit(main())
