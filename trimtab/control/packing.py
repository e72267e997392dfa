"""Frozen values to bytes and back, exactly: what the autoscaler was given, kept for a replay.

A dataclass or a named tuple is the list of its fields, in JSON (whose floats come back bit by bit),
compressed. The bytes do not say what they are: whoever unpacks names the type, and `layout` tells
whether that type still has the fields that it had when the bytes were written.
"""

from __future__ import annotations

import json
import types
import zlib
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")

_JSONS_OWN = frozenset({int, float, str, bool, type(None)})


class Unreadable(ValueError):
    """The bytes are not of this type: another version wrote them, or they are damaged."""


def pack(value: Any) -> bytes:
    """The bytes of a dataclass, a named tuple, or plain values and tuples of these."""
    return zlib.compress(json.dumps(_plain(value), separators=(",", ":")).encode())


def unpack(kind: type[T], packed: bytes) -> T:
    """The value of type `kind` that was packed. Raises Unreadable."""
    try:
        found: T = _reader(cast(Any, kind))(json.loads(zlib.decompress(packed)))
    except (ValueError, TypeError, KeyError, zlib.error) as error:
        raise Unreadable(f"not a {kind.__name__}: {error!r}") from error
    return found


@cache
def layout(*kinds: type) -> str:
    """Eight hex digits that change when a field of these types, or of a type within them, does."""
    told = json.dumps([_described(kind) for kind in kinds])
    return f"{zlib.crc32(told.encode()):08x}"


def _plain(value: Any) -> Any:
    if type(value) in _JSONS_OWN:
        return value
    getter = _getter(cast(Any, type(value)))
    if getter is not None:
        value = getter(value)
    if isinstance(value, tuple | list):
        return [inner if type(inner) in _JSONS_OWN else _plain(inner) for inner in value]
    raise TypeError(f"cannot be packed: {value!r}")


@cache
def _getter(kind: type) -> Callable[[Any], tuple[Any, ...]] | None:
    """All fields of a dataclass as a tuple; None for any other type."""
    if not is_dataclass(kind):
        return None
    names = [field.name for field in fields(kind)]
    if len(names) == 1:
        return lambda value: (getattr(value, names[0]),)
    return attrgetter(*names) if names else lambda _: ()


@cache
def _reader(kind: Any) -> Callable[[Any], Any]:
    """What makes a value of type `kind` from JSON's."""
    if kind in (int, float, str, bool):
        return lambda found: found  # an int in place of a float stays one: 0 and 0.0 print apart
    inner = _members(kind)
    if inner is not None:
        return _record(kind, [_reader(each) for each in inner.values()])
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _optional(arguments)
    if origin is tuple:
        return _tuple(arguments)
    raise TypeError(f"cannot be unpacked: {kind!r}")


def _record(kind: Any, readers: list[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    return lambda found: kind(*[read(each) for read, each in zip(readers, found, strict=True)])


def _optional(arguments: tuple[Any, ...]) -> Callable[[Any], Any]:
    """`X | None`, and unions of numbers, which JSON tells apart itself."""
    others = [each for each in arguments if each is not type(None)]
    readers = [_reader(each) for each in others]
    if len(readers) > 1 and not set(others) <= {int, float, str, bool}:
        raise TypeError(f"cannot be told apart: {others}")
    read = readers[0]
    return lambda found: None if found is None else read(found)


def _tuple(arguments: tuple[Any, ...]) -> Callable[[Any], Any]:
    if len(arguments) == 2 and arguments[1] is ...:
        each = _reader(arguments[0])
        return lambda found: tuple([each(inner) for inner in found])
    return _record(lambda *values: values, [_reader(each) for each in arguments])


def _members(kind: Any) -> dict[str, Any] | None:
    """The fields of a dataclass or a named tuple with their types, in order; None for any other type."""
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return {field.name: hints[field.name] for field in fields(kind)}
    if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields"):
        hints = get_type_hints(kind)
        return {name: hints[name] for name in kind._fields}
    return None


def _described(kind: Any) -> Any:
    inner = _members(kind)
    if inner is not None:
        return [kind.__name__, {name: _described(each) for name, each in inner.items()}]
    arguments = [_described(each) for each in get_args(kind)]
    return [str(get_origin(kind)), arguments] if arguments else str(kind)
