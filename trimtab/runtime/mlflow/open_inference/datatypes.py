"""The protocol's types of elements: what they are in NumPy, in JSON and in bytes."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from trimtab.runtime.mlflow.open_inference.messages import Array, Refused

BYTES = "BYTES"
FIXED: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
NAMES = {dtype: name for name, dtype in FIXED.items()}
RANK_MAX = 32  # NumPy's, before its version 2
_JSON_KINDS = {"b": "b", "i": "iu", "u": "iu", "f": "iuf"}  # of NumPy: what JSON may say for it
_LENGTH = struct.Struct("<I")


def check(datatype: str, where: str) -> None:
    """Raises Refused if there is no such type, or no array for it."""
    if datatype == "BF16":
        raise Refused(f"{where}: BF16 is not supported, since NumPy has no such type; send FP32")
    if datatype not in FIXED and datatype != BYTES:
        raise Refused(f"{where}: unknown datatype {datatype!r}; there are {', '.join((*FIXED, BYTES))}")


def count(shape: Sequence[int]) -> int:
    """How many elements."""
    return math.prod(shape)


def shaped(array: Array, shape: Sequence[int], where: str) -> Array:
    """The elements in their shape. Raises Refused if they are not as many, or no array has that shape."""
    if len(shape) > RANK_MAX:
        raise Refused(f"{where}: a shape of {len(shape)} dimensions; at most {RANK_MAX} can be")
    if any(length < 0 for length in shape):
        raise Refused(f"{where}: the shape {list(shape)} has a negative length")
    if count(shape) != array.size:
        raise Refused(f"{where}: the shape {list(shape)} is of {count(shape)} elements, not {array.size}")
    try:
        return array.reshape(tuple(shape))
    except (ValueError, OverflowError) as error:  # a length of 0 beside one that no machine could hold
        raise Refused(f"{where}: no array can have the shape {list(shape)}") from error


def from_bytes(datatype: str, raw: memoryview | bytes, where: str) -> Array:
    """The elements of a tensor's bytes, little-endian, in one dimension. They are a copy."""
    if datatype == BYTES:
        return _objects(list(_texts(memoryview(raw), where)))
    dtype = FIXED[datatype]
    if len(raw) % dtype.itemsize:
        raise Refused(f"{where}: {len(raw)} bytes are no whole number of {datatype}s")
    if datatype == "BOOL":  # any byte but 0 is true
        return np.frombuffer(raw, np.uint8).astype(np.bool_)
    return np.frombuffer(raw, dtype).astype(dtype.newbyteorder("="))


def to_bytes(array: Array, datatype: str) -> bytes:
    """A tensor's bytes."""
    if datatype != BYTES:
        return array.astype(FIXED[datatype], order="C", copy=False).tobytes()
    parts: list[bytes] = []
    for element in array.reshape(-1).tolist():
        encoded = element.encode() if isinstance(element, str) else bytes(element)
        parts += (_LENGTH.pack(len(encoded)), encoded)
    return b"".join(parts)


def from_json(datatype: str, data: Any, where: str) -> Array:
    """The elements of JSON's list, nested or flat, in one dimension."""
    if not isinstance(data, list):
        raise Refused(f"{where}: `data` must be a list")
    if datatype == BYTES:
        elements = list(_flat(data))
        if not all(isinstance(element, str) for element in elements):
            raise Refused(f"{where}: of BYTES, `data` must be strings")
        try:
            return _objects([element.encode() for element in elements])
        except UnicodeEncodeError as error:
            raise Refused(f"{where}: `data` is no Unicode: {error}") from error
    dtype = FIXED[datatype].newbyteorder("=")
    try:
        array = np.array(data)
    except (ValueError, TypeError, OverflowError) as error:
        raise Refused(f"{where}: `data` is no array: {error}") from error
    if array.size == 0:
        return np.empty(0, dtype)
    if array.dtype.kind not in _JSON_KINDS[dtype.kind]:
        raise Refused(f"{where}: `data` has other elements than {datatype}s")
    return _narrowed(array.reshape(-1), dtype, f"{where}: `data` has elements beyond {datatype}")


def to_json(array: Array, where: str) -> list[Any]:
    """The elements as JSON has them, flat. Raises Refused for bytes that are no text."""
    flat: list[Any] = array.reshape(-1).tolist()
    if array.dtype.kind != "O":
        return flat
    return [text_of(element, f"{where}: ask for it in binary, since an element") for element in flat]


def text_of(element: Any, where: str) -> str:
    """An element of BYTES as text."""
    try:
        return element if isinstance(element, str) else bytes(element).decode()
    except UnicodeDecodeError as error:
        raise Refused(f"{where} is no UTF-8") from error


def datatype_of(dtype: np.dtype[Any]) -> str | None:
    """The protocol's name; None if it has none. NumPy's text is BYTES, and its objects may be."""
    if dtype.kind in "USO":
        return BYTES
    return NAMES.get(dtype.newbyteorder("<") if dtype.itemsize > 1 else dtype)


def _narrowed(array: Array, dtype: np.dtype[Any], words: str) -> Array:
    if dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        if int(array.min()) < bounds.min or int(array.max()) > bounds.max:
            raise Refused(words)
    with np.errstate(over="ignore"):  # 1e300 is an infinite FP32, as it is to /invocations
        return array.astype(dtype)


def _objects(elements: list[Any]) -> Array:
    array: Array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array


def _texts(raw: memoryview, where: str) -> Iterator[bytes]:
    at = 0
    while at < len(raw):
        if len(raw) - at < _LENGTH.size:
            raise Refused(f"{where}: the last {len(raw) - at} bytes are no length of an element")
        (length,) = _LENGTH.unpack_from(raw, at)
        at += _LENGTH.size
        if len(raw) - at < length:
            raise Refused(f"{where}: an element of {length} bytes, of which there are {len(raw) - at}")
        yield bytes(raw[at : at + length])
        at += length


def _flat(data: list[Any]) -> Iterator[Any]:
    """The elements of nested lists. Raises RecursionError where they are too deep."""
    for element in data:
        if isinstance(element, list):
            yield from _flat(element)
        else:
            yield element
