"""Endpoints written as YAML: the same documents locally and on Kubernetes, and a short flat form."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from trimtab.core.errors import InvalidInput, NotFound, Problem
from trimtab.core.names import EndpointName
from trimtab.v1 import control_pb2 as pb

API_VERSION = "serving.trimtab.dev/v1alpha1"
KIND = "ServingEndpoint"
BYTES_MAX = 4 << 20
NO_LIST = ("is not a list", "begin each entry with `- `")
_OURS = frozenset({"source"})  # written by whoever resolves a model, never by hand
_SPEC_KEYS = tuple(field.name for field in pb.Spec.DESCRIPTOR.fields)
_FLAT_KEYS = ("name", "namespace", *_SPEC_KEYS)
_OBJECT_KEYS = ("apiVersion", "kind", "metadata", "spec", "status")
_METADATA_KEYS = ("name", "namespace", "labels", "annotations")


@dataclass(frozen=True)
class Manifest:
    """One endpoint as written; `where` is its file and line."""

    where: str
    name: EndpointName
    spec: pb.Spec


@dataclass(frozen=True)
class _Document:
    """One YAML document: its values, and at which line each path of it was written."""

    file: str
    body: dict[str, Any]
    lines: dict[str, int]

    def problem(self, path: str, message: str, hint: str = "") -> Problem:
        line = self.lines.get(path)
        return Problem(f"{self.file}:{line}: {path}" if line else f"{self.file}: {path}", message, hint)


def read_manifests(file: str, namespace: str) -> tuple[Manifest, ...]:
    """Every endpoint in a file (`-`: stdin). Raises NotFound, or InvalidInput with all problems found."""
    found = tuple(_manifest(document, namespace) for document in _documents(file, _text(file)))
    if not found:
        raise InvalidInput("holds no endpoint", where=file, hint=f"write `kind: {KIND}`, or name, models, …")
    names = [manifest.name for manifest in found]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise InvalidInput(f"names `{min(twice)}` more than once", where=file, hint="name each endpoint once")
    return found


def _text(file: str) -> str:
    try:
        if file == "-":
            text = sys.stdin.read(BYTES_MAX + 1)
        else:
            with Path(file).open(encoding="utf-8") as opened:
                text = opened.read(BYTES_MAX + 1)
    except FileNotFoundError:
        raise NotFound("there is no such file", where=file, hint="check the path; `-` reads stdin") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"cannot be read: {error}", where=file, hint="give a YAML file in UTF-8"
        ) from error
    if len(text) > BYTES_MAX:
        raise InvalidInput(f"is larger than {BYTES_MAX >> 20} MiB", where=file, hint="split it")
    return text


def _documents(file: str, text: str) -> Iterator[_Document]:
    try:
        nodes = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
        bodies = list(yaml.safe_load_all(text))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark else file
        problem = getattr(error, "problem", error)
        hint = "mend that line; docs/examples/iris.yaml in the repository is a whole one"
        raise InvalidInput(f"is not YAML: {problem}", where=where, hint=hint) from error
    for node, body in zip(nodes, bodies, strict=True):
        if body is None:
            continue  # an empty document between two `---`
        if not isinstance(body, dict):
            hint = f"write `kind: {KIND}`, or name, models, …"
            raise InvalidInput("is not an endpoint", where=f"{file}:{node.start_mark.line + 1}", hint=hint)
        yield _Document(file, body, dict(_lines(node, "")))


def _lines(node: yaml.Node, path: str) -> Iterator[tuple[str, int]]:
    """(path, line) of everything below a node: `models[0].uri`."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = f"{path}.{key.value}" if path else str(key.value)
            yield inner, key.start_mark.line + 1
            yield from _lines(value, inner)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield f"{path}[{index}]", value.start_mark.line + 1
            yield from _lines(value, f"{path}[{index}]")


def _manifest(document: _Document, namespace: str) -> Manifest:
    whole = document.body
    is_object = "apiVersion" in whole or "kind" in whole or "spec" in whole
    problems = list(_object_problems(document) if is_object else _unknown(document, "", whole, _FLAT_KEYS))
    named = _section(whole, "metadata") if is_object else whole
    written = _section(whole, "spec") if is_object else {k: v for k, v in whole.items() if k in _SPEC_KEYS}
    prefix = "spec" if is_object else ""
    spec = _filled(document, prefix, pb.Spec.DESCRIPTOR, written, problems)
    if problems:
        raise InvalidInput.of(tuple(problems))
    first_line = min(document.lines.values(), default=1)
    name = _name(document, "metadata.name" if is_object else "name", named, namespace)
    return Manifest(f"{document.file}:{first_line}", name, _parsed(document, prefix, spec))


def _name(document: _Document, path: str, named: Mapping[str, Any], namespace: str) -> EndpointName:
    given = str(named.get("namespace") or namespace)
    try:
        return EndpointName.parse(str(named.get("name") or ""), given)
    except InvalidInput as error:
        problem = document.problem(path, error.message, error.hint)
        raise InvalidInput.of((problem,)) from error


def _section(whole: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = whole.get(key)
    return found if isinstance(found, dict) else {}


def _object_problems(document: _Document) -> Iterator[Problem]:
    whole = document.body
    yield from _unknown(document, "", whole, _OBJECT_KEYS)
    for key, wanted in (("apiVersion", API_VERSION), ("kind", KIND)):
        if whole.get(key) != wanted:
            yield document.problem(key, f"is `{whole.get(key, '')}`", f"write {key}: {wanted}")
    for key in ("metadata", "spec"):
        if not isinstance(whole.get(key), dict):
            yield document.problem(
                key, "is missing or not a mapping", f"write `{key}:` and its keys below it"
            )
    yield from _unknown(document, "metadata", _section(whole, "metadata"), _METADATA_KEYS)


def _unknown(
    document: _Document, prefix: str, given: Mapping[str, Any], known: tuple[str, ...]
) -> Iterator[Problem]:
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            meant = f"did you mean `{near[0]}`? " if near else ""
            yield document.problem(_join(prefix, key), "unknown key", f"{meant}known: {', '.join(known)}")


def _filled(
    document: _Document, path: str, message: Descriptor, given: Mapping[str, Any], problems: list[Problem]
) -> dict[str, Any]:
    """`given` as protobuf's parser takes it: numbers where text is wanted become text. Adds to `problems`."""
    known = {field.name: field for field in message.fields if field.name not in _OURS}
    fields = known | {field.json_name: field for field in known.values()}  # as Kubernetes spells them
    unknown = {key: value for key, value in given.items() if key not in fields}
    problems += _unknown(document, path, unknown, tuple(known))
    return {
        key: _value(document, _join(path, key), fields[key], value, problems)
        for key, value in given.items()
        if key in fields and value is not None
    }


def _value(
    document: _Document, path: str, field: FieldDescriptor, value: Any, problems: list[Problem]
) -> Any:
    if field.message_type is None:
        return _plain(document, path, field, value, problems)
    if field.message_type.GetOptions().map_entry:
        if isinstance(value, dict):
            return {str(key): _as_text(inner) for key, inner in value.items()}
        problems.append(document.problem(path, "is not a mapping", "write NAME: VALUE lines below it"))
        return {}
    if not field.is_repeated:
        return _nested(document, path, field, value, problems)
    if not isinstance(value, list):
        problems.append(document.problem(path, *NO_LIST))
        return []
    return [_nested(document, f"{path}[{i}]", field, inner, problems) for i, inner in enumerate(value)]


def _plain(
    document: _Document, path: str, field: FieldDescriptor, value: Any, problems: list[Problem]
) -> Any:
    is_text = field.type == FieldDescriptor.TYPE_STRING
    if not field.is_repeated:
        return _as_text(value) if is_text else value
    if not isinstance(value, list):
        problems.append(document.problem(path, *NO_LIST))
        return []
    return [_as_text(entry) if is_text else entry for entry in value]


def _nested(
    document: _Document, path: str, field: FieldDescriptor, value: Any, problems: list[Problem]
) -> Any:
    message = field.message_type
    assert message is not None, "only called for fields that hold messages"
    if not isinstance(value, dict):
        known = ", ".join(inner.name for inner in message.fields if inner.name not in _OURS)
        problems.append(document.problem(path, "is not a mapping", f"its keys: {known}"))
        return {}
    return _filled(document, path, message, value, problems)


def _as_text(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, (int, float)) else value


def _parsed(document: _Document, prefix: str, spec: dict[str, Any]) -> pb.Spec:
    try:
        return json_format.ParseDict(spec, pb.Spec())
    except json_format.ParseError as error:
        where = f"{document.file}: {prefix}" if prefix else document.file
        raise InvalidInput(str(error), where=where, hint="check the type of that value") from error


def _join(prefix: str, key: str) -> str:
    return f"{prefix}.{key}" if prefix else str(key)
