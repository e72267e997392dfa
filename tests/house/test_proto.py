"""The generated code is what proto/ gives, and a change that would break a client is caught."""

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto

ROOT = Path(__file__).parents[2]


def tool(name: str) -> ModuleType:
    """A script of proto/, which is no package."""
    spec = importlib.util.spec_from_file_location(f"proto_{name}", ROOT / "proto" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


generate = tool("generate")
breaking = tool("breaking")


def test_generated_code_is_fresh() -> None:
    assert generate.stale(ROOT / "proto", ROOT) == []


def test_a_changed_proto_makes_generated_code_stale(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "proto" / "trimtab", tmp_path / "trimtab")
    path = tmp_path / "trimtab" / "v1" / "control.proto"
    path.write_text(
        path.read_text().replace("message PruneResponse {", "message PruneResponse {\n  bool x = 9;")
    )
    assert generate.stale(tmp_path, ROOT) == ["trimtab/v1/control_pb2.py", "trimtab/v1/control_pb2.pyi"]


def test_a_missing_and_a_left_over_module_are_stale(tmp_path: Path) -> None:
    package = tmp_path / "trimtab" / "v1"
    package.mkdir(parents=True)
    (package / "gone_pb2.py").write_text("")
    names = generate.stale(ROOT / "proto", tmp_path)
    assert "trimtab/v1/gone_pb2.py" in names
    assert "trimtab/v1/control_pb2_grpc.py" in names


def test_the_baseline_holds_the_whole_api_and_nothing_broke() -> None:
    old = json.loads((ROOT / "proto" / "baseline.json").read_text())
    new = breaking.api_of(breaking.generated())
    assert breaking.broken(old, new) == []
    assert breaking.added(old, new) == [], "run `make proto-accept`"


@pytest.fixture
def file() -> FileDescriptorProto:
    (control,) = (each for each in breaking.generated() if each.name.endswith("/control.proto"))
    return control


def message(file: FileDescriptorProto, name: str):
    return next(message for message in file.message_type if message.name == name)


def remove_field(file: FileDescriptorProto) -> None:
    del message(file, "Pod").field[0]


def renumber_field(file: FileDescriptorProto) -> None:
    message(file, "Pod").field[0].number = 99


def rename_field(file: FileDescriptorProto) -> None:
    message(file, "Pod").field[0].name = "pod_id"


def retype_field(file: FileDescriptorProto) -> None:
    message(file, "Spec").field[2].type = FieldDescriptorProto.TYPE_STRING


def retype_message_field(file: FileDescriptorProto) -> None:
    message(file, "Endpoint").field[0].type_name = ".trimtab.v1.Spec"


def repeat_field(file: FileDescriptorProto) -> None:
    message(file, "Pod").field[0].label = FieldDescriptorProto.LABEL_REPEATED


def lose_presence(file: FileDescriptorProto) -> None:
    message(file, "Concurrency").field[0].proto3_optional = False
    message(file, "Concurrency").field[0].ClearField("oneof_index")


def remove_message(file: FileDescriptorProto) -> None:
    file.message_type.remove(message(file, "LogLine"))


def remove_enum_value(file: FileDescriptorProto) -> None:
    del file.enum_type[0].value[2]


def rename_enum_value(file: FileDescriptorProto) -> None:
    file.enum_type[0].value[2].name = "SERVING"


def remove_rpc(file: FileDescriptorProto) -> None:
    del file.service[0].method[0]


def retype_rpc(file: FileDescriptorProto) -> None:
    file.service[0].method[0].output_type = ".trimtab.v1.Status"


def stream_rpc(file: FileDescriptorProto) -> None:
    file.service[0].method[0].server_streaming = True


CHANGES = [
    remove_field,
    renumber_field,
    rename_field,
    retype_field,
    retype_message_field,
    repeat_field,
    lose_presence,
    remove_message,
    remove_enum_value,
    rename_enum_value,
    remove_rpc,
    retype_rpc,
    stream_rpc,
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_breaking_change_is_caught(
    file: FileDescriptorProto, change: Callable[[FileDescriptorProto], None]
) -> None:
    old = breaking.api_of([file])
    change(file)
    assert breaking.broken(old, breaking.api_of([file]))


def test_an_addition_breaks_nothing_and_waits_to_be_accepted(file: FileDescriptorProto) -> None:
    old = breaking.api_of([file])
    field = message(file, "Pod").field.add(name="zone", number=99, type=FieldDescriptorProto.TYPE_STRING)
    field.label = FieldDescriptorProto.LABEL_OPTIONAL
    new = breaking.api_of([file])
    assert breaking.broken(old, new) == []
    assert breaking.added(old, new) == ["message trimtab.v1.Pod field 99 `single string zone`"]
