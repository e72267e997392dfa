"""From a request's tensors to what the model takes: what `/invocations` would hand to it for the same values.

| the model's signature | tensors |
| --- | --- |
| tensors | those, by name; one without a name by any name |
| columns with names | one per column, of shape [n] or [n, 1] |
| columns without names, of one type | one of shape [n, columns] |
| none | one, as an array; or several, as arrays by name |

A type that is narrower than the signature's, and loses nothing by it, becomes the signature's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from trimtab.runtime.mlflow.fast.columns import Columns
from trimtab.runtime.mlflow.fast.envelope import Form
from trimtab.runtime.mlflow.fast.path import FastPath, Question
from trimtab.runtime.mlflow.fast.tensors import Tensors
from trimtab.runtime.mlflow.open_inference.datatypes import BYTES, FIXED, datatype_of, text_of
from trimtab.runtime.mlflow.open_inference.messages import Array, Refused, Tensor, untranslatable

INPUT, OUTPUT = "inputs", "predictions"  # names where the signature has none: the keys of /invocations
_COLUMNS = {
    "boolean": "BOOL",
    "integer": "INT32",
    "long": "INT64",
    "float": "FP32",
    "double": "FP64",
    "string": BYTES,
    "binary": BYTES,
    "datetime": BYTES,  # as text, as in JSON
}


@dataclass(frozen=True)
class Spec:
    """One input or output of a model; `kind` is MLflow's name of a column's type. -1 is any length."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    required: bool = True
    kind: str = ""
    dtype: np.dtype[Any] | None = None  # of a tensor


def output_specs(metadata: Any) -> tuple[Spec, ...]:
    """What the signature says of a model's outputs; () if it says nothing, or not in these words."""
    schema = metadata.get_output_schema()
    try:
        return () if schema is None else _specs(schema, OUTPUT)
    except Refused:
        return ()


class Inputs:
    """A model's inputs. `specs` is what its metadata tells: () without a signature."""

    def __init__(self, specs: tuple[Spec, ...], build: Callable[[Sequence[Tensor]], Any]) -> None:
        self.specs = specs
        self._build = build

    @classmethod
    def of(cls, metadata: Any) -> Inputs:
        """Of an MLflow model's metadata. Raises Refused if its signature has no sound translation."""
        schema = metadata.get_input_schema()
        if schema is None:
            return cls((), _without_signature)
        hints = ("_is_signature_from_type_hint", "_is_type_hint_from_example")  # since MLflow 2.20
        if any(getattr(metadata, name, bool)() for name in hints):
            raise untranslatable("the model's signature is a type hint, which is no signature of tensors")
        specs = _specs(schema, INPUT)
        if schema.is_tensor_spec():
            named = schema.has_input_names()
            return cls(specs, lambda tensors: _by_tensor(specs, tensors, named=named))
        if not schema.has_input_names():
            return cls(specs, lambda tensors: _matrix(specs[0], tensors))
        return cls(specs, lambda tensors: _table(specs, tensors))

    def read(self, tensors: Sequence[Tensor]) -> Any:
        """What the model takes: a Table, an array, or arrays by name. Raises Refused."""
        names = [tensor.name for tensor in tensors]
        for name in names:
            if names.count(name) > 1:
                raise Refused(f"the input {name!r} is there twice")
        return self._build(tensors)


class Table:
    """Columns that fit the signature. Only MLflow's own way needs a DataFrame of them."""

    def __init__(self, columns: Mapping[Spec, Tensor]) -> None:
        self._columns = columns

    def split(self) -> Any:
        """As the JSON of `dataframe_split` says it: what the fast path reads."""
        columns = [_elements(spec, tensor) for spec, tensor in self._columns.items()]
        return {
            "columns": [spec.name for spec in self._columns],
            "data": list(map(list, zip(*columns, strict=True))),
        }

    def frame(self) -> pd.DataFrame:
        """What MLflow would make of it. Raises Refused."""
        return pd.DataFrame({spec.name: _column(spec, tensor) for spec, tensor in self._columns.items()})


def given(data: Any) -> Any:
    """What `read` found, as MLflow takes it. Raises Refused."""
    return data.frame() if isinstance(data, Table) else data


def question(fast: FastPath, data: Any, params: Any) -> Question | None:
    """The same for the fast path; None if that is not sure of it. Raises Refused."""
    shape = fast.shape
    if (Form.SPLIT if isinstance(shape, Columns) else Form.INPUTS) not in fast.forms:
        return None
    found = shape.read(Form.SPLIT, data.split()) if isinstance(shape, Columns) else _arrays(shape, data)
    if found is None:
        return None
    layout, own = found
    return Question(own, shape.length(own), layout, params)


def _arrays(shape: Tensors, data: Any) -> tuple[Any, Any] | None:
    """As `Tensors.read` has it, of arrays that are what the signature says."""
    arrays = list(data.values()) if isinstance(data, dict) else [data]
    if not all(array.ndim and len(array) for array in arrays) or len({len(array) for array in arrays}) != 1:
        return None
    rests = tuple(array.shape[1:] for array in arrays)
    return (rests if shape.names != (None,) else rests[0]), data


def _specs(schema: Any, name: str) -> tuple[Spec, ...]:
    if schema.is_tensor_spec():
        return tuple(_tensor_spec(spec, name) for spec in schema.inputs)
    specs = tuple(_column_spec(spec) for spec in schema.inputs)
    if schema.has_input_names() or not specs:
        return specs
    if len({spec.datatype for spec in specs}) > 1:
        raise untranslatable("the model's columns have no names and are of several types")
    shape = (-1, len(specs)) if name == INPUT or len(specs) > 1 else (-1,)
    return (Spec(name, specs[0].datatype, shape, kind=specs[0].kind),)


def _tensor_spec(spec: Any, name: str) -> Spec:
    dtype = np.dtype(spec.type)
    datatype = datatype_of(dtype)
    if datatype is None:
        raise untranslatable(
            f"the tensor {spec.name or name!r} is of {dtype}, for which there is no datatype"
        )
    return Spec(spec.name or name, datatype, tuple(spec.shape), dtype=dtype)


def _column_spec(spec: Any) -> Spec:
    kind = getattr(spec.type, "name", "")
    if kind not in _COLUMNS:
        raise untranslatable(f"the column {spec.name!r} is of type {spec.type}, which is no tensor")
    required = spec.required if hasattr(spec, "required") else not spec.optional  # before MLflow 2.10
    return Spec(str(spec.name or ""), _COLUMNS[kind], (-1,), bool(required), kind)


def _without_signature(tensors: Sequence[Tensor]) -> Any:
    arrays = {tensor.name: _texts(tensor) if tensor.datatype == BYTES else tensor.array for tensor in tensors}
    return next(iter(arrays.values())) if len(arrays) == 1 else arrays


def _texts(tensor: Tensor) -> Array:
    """Text as NumPy has it: that is what `/invocations` makes of JSON's."""
    where = f"input {tensor.name!r}: an element"
    texts = [text_of(element, where) for element in tensor.array.reshape(-1).tolist()]
    return np.array(texts, dtype=str).reshape(tensor.array.shape)


def _by_tensor(specs: tuple[Spec, ...], tensors: Sequence[Tensor], *, named: bool) -> Any:
    if not named:
        if len(tensors) != 1:
            raise Refused(f"the model takes 1 input, not {len(tensors)}")
        return _array(specs[0], tensors[0])
    arrays = _named(specs, tensors)
    return {spec.name: _array(spec, arrays[spec.name]) for spec in specs}


def _array(spec: Spec, tensor: Tensor) -> Array:
    shape = tensor.array.shape
    fits = len(shape) == len(spec.shape) and all(
        wanted in (-1, found) for wanted, found in zip(spec.shape, shape, strict=True)
    )
    if not fits:
        raise Refused(f"input {tensor.name!r}: its shape is {list(shape)}, the model's {list(spec.shape)}")
    assert spec.dtype is not None
    array = _cast(spec, tensor).array
    if spec.datatype != BYTES:
        return array.astype(spec.dtype, copy=False)
    if spec.dtype.kind == "S":
        return array.astype(bytes)
    texts = _texts(tensor)
    return texts if spec.dtype.kind == "U" else texts.astype(object)


def _matrix(spec: Spec, tensors: Sequence[Tensor]) -> pd.DataFrame:
    if len(tensors) != 1:
        raise Refused(f"the model takes 1 input of shape {list(spec.shape)}, not {len(tensors)}")
    tensor = _cast(spec, tensors[0])
    if tensor.array.ndim != 2 or tensor.array.shape[1] != spec.shape[1]:
        raise Refused(
            f"input {tensor.name!r}: its shape is {list(tensor.array.shape)}, the model's {list(spec.shape)}"
        )
    if spec.datatype != BYTES:
        return pd.DataFrame(tensor.array)
    columns = (Tensor(tensor.name, BYTES, column) for column in tensor.array.T)
    return pd.DataFrame({place: _column(spec, column) for place, column in enumerate(columns)})


def _table(specs: tuple[Spec, ...], tensors: Sequence[Tensor]) -> Table:
    named = _named(specs, tensors)
    lengths = {}
    for tensor in tensors:
        shape = tensor.array.shape
        if len(shape) not in (1, 2) or shape[1:] not in ((), (1,)):
            raise Refused(f"input {tensor.name!r}: its shape is {list(shape)}; a column's is [n] or [n, 1]")
        lengths[tensor.name] = shape[0]
    if len(set(lengths.values())) > 1:
        raise Refused(f"the inputs are not of one length: {lengths}")
    return Table({spec: _cast(spec, named[spec.name]) for spec in specs if spec.name in named})


def _named(specs: tuple[Spec, ...], tensors: Sequence[Tensor]) -> Mapping[str, Tensor]:
    found = {tensor.name: tensor for tensor in tensors}
    names = [spec.name for spec in specs]
    for name in found:
        if name not in names:
            raise Refused(f"unexpected input {name!r}; the model's are {', '.join(names)}")
    for spec in specs:
        if spec.required and spec.name not in found:
            raise Refused(f"the input {spec.name!r} is missing")
    return found


def _elements(spec: Spec, tensor: Tensor) -> list[Any]:
    """A column as Python has it: text where the signature has text. Raises Refused."""
    elements: list[Any] = tensor.array.reshape(-1).tolist()
    if spec.datatype != BYTES or spec.kind == "binary":
        return elements
    return [text_of(element, f"input {tensor.name!r}: an element") for element in elements]


def _column(spec: Spec, tensor: Tensor) -> Any:
    """A column as pandas has it. Raises Refused."""
    if spec.datatype != BYTES:
        return tensor.array.reshape(-1)
    elements = _elements(spec, tensor)
    if spec.kind == "binary":
        return elements
    if spec.kind != "datetime":
        return pd.Series(elements, dtype=None if elements else object)
    try:
        return pd.to_datetime(pd.Series(elements, dtype=object)).astype("datetime64[ns]")
    except (ValueError, TypeError, OverflowError) as error:
        raise Refused(f"input {tensor.name!r}: an element is no date: {error}") from error


def _cast(spec: Spec, tensor: Tensor) -> Tensor:
    """In the signature's own type. Raises Refused if something could be lost."""
    if tensor.datatype == spec.datatype:
        return tensor
    found, wanted = FIXED.get(tensor.datatype), FIXED.get(spec.datatype)
    wide = found and wanted and found.kind in "iu" and found.itemsize == 8 and wanted.kind == "f"
    if found is None or wanted is None or wide or not np.can_cast(found, wanted, "safe"):
        words = f"its datatype is {tensor.datatype}, the model's {spec.datatype}"
        raise Refused(f"input {tensor.name!r}: {words}")
    return Tensor(tensor.name, spec.datatype, tensor.array.astype(wanted.newbyteorder("=")))
