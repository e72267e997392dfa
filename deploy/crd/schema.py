"""From a message of the control API to the structural schema of Kubernetes that says the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

Json = dict[str, Any]

_PLAIN: Mapping[int, Json] = {
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.TYPE_INT64: {"type": "integer", "format": "int64"},
    FieldDescriptor.TYPE_DOUBLE: {"type": "number"},
}


def schema_of(message: Descriptor, said: Mapping[str, str], more: Mapping[str, Json]) -> Json:
    """The schema of `message` with all below it.

    `said` is `comments.read_comments`. `more` adds to, or replaces keys of, the schema of a `Message`, a
    `Message.field`, or the entries of one, `Message.field[]`; what it says is None is left out.
    """
    properties = {}
    for field in message.fields:
        name = f"{message.name}.{field.name}"
        if name in more and more[name].get("left_out"):
            continue
        described = {"description": said[name]} if name in said else {}
        properties[field.json_name] = described | _field(field, said, more) | more.get(name, {})
    whole = {"type": "object", "properties": properties} | more.get(message.name, {})
    if message.name in said:
        whole = {"description": said[message.name]} | whole
    return _without_none(whole)


def _field(field: FieldDescriptor, said: Mapping[str, str], more: Mapping[str, Json]) -> Json:
    inner = field.message_type
    if inner is not None and inner.GetOptions().map_entry:
        return {"type": "object", "additionalProperties": _plain(inner.fields_by_name["value"])}
    one = schema_of(inner, said, more) if inner is not None else _plain(field)
    if not field.is_repeated:
        return one
    assert field.containing_type is not None, "extensions are not used"
    entry = more.get(f"{field.containing_type.name}.{field.name}[]", {})
    return {"type": "array", "items": one | entry}


def _plain(field: FieldDescriptor) -> Json:
    if field.enum_type is not None:
        return {"type": "string", "enum": [value.name for value in field.enum_type.values if value.number]}
    return dict(_PLAIN[field.type])


def _without_none(schema: Json) -> Json:
    properties = {
        name: {key: value for key, value in inner.items() if value is not None}
        for name, inner in schema["properties"].items()
    }
    return schema | {"properties": properties}
