"""Signatures of tensors: from a request's data to the arrays that the model takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trimtab.runtime.mlflow.fast.columns import EXACT
from trimtab.runtime.mlflow.fast.envelope import Form

Array = np.ndarray[Any, np.dtype[Any]]
NUMERIC = frozenset("biuf")
_PLAIN = frozenset({int, float})


@dataclass(frozen=True)
class Tensor:
    """One input: its name (None where it is the only one), element type and shape; -1 is any length."""

    name: str | None
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def array(self, data: Any) -> Array | None:
        """MLflow's array of nested lists; None if it is not of this shape. Raises what NumPy raises."""
        if type(data) is not list or not data:
            return None
        if type(data[0]) is dict:  # MLflow looks whether each item is one
            return None
        return self._fitting(np.array(data, dtype=self.dtype))

    def table(self, rows: list[Any]) -> Array | None:
        """Of the rows of a DataFrame with as many columns as the shape says; None if not sure."""
        if len(self.shape) != 2 or self.shape[0] != -1 or self.shape[1] < 2:
            return None
        if set(map(type, rows)) != {list} or set(map(len, rows)) != {self.shape[1]}:
            return None
        types = {type(value) for row in rows for value in row}
        if self.dtype.kind != "f" or not types <= _PLAIN:
            return None
        array = np.array(rows, dtype=np.float64, order="F")  # as that of a DataFrame is
        if int in types and not bool((np.abs(array) <= EXACT).all()):
            return None
        return array.astype(self.dtype, order="F", copy=False)

    def _fitting(self, array: Array) -> Array | None:
        if len(array.shape) != len(self.shape):
            return None
        fits = all(wanted in (-1, found) for wanted, found in zip(self.shape, array.shape, strict=True))
        return array if fits and array.shape[0] > 0 else None


class Tensors:
    """A compiled signature of one tensor without a name, or of several with names."""

    def __init__(self, tensors: tuple[Tensor, ...]) -> None:
        self.tensors = tensors
        self.names = tuple(tensor.name for tensor in tensors)
        self.exact = any(tensor.dtype.kind != "f" for tensor in tensors)

    @classmethod
    def compiled(cls, schema: Any) -> Tensors | None:
        """Of an MLflow `Schema` of tensors; None if one holds other things than numbers, or has no shape."""
        tensors = tuple(Tensor(spec.name, np.dtype(spec.type), tuple(spec.shape)) for spec in schema.inputs)
        plain = all(tensor.dtype.kind in NUMERIC and tensor.shape for tensor in tensors)
        names = {tensor.name for tensor in tensors}
        if not plain or len(names) != len(tensors) or (None in names and len(tensors) > 1):
            return None
        return cls(tensors)

    def read(self, form: Form, data: Any) -> tuple[Any, Any] | None:
        """What requests must have in common to be joined, and the arrays; None if not sure."""
        if self.names == (None,):
            return self._unnamed(form, data)
        if form not in (Form.INPUTS, Form.INSTANCES) or type(data) is not dict:
            return None
        if data.keys() != set(self.names):
            return None
        arrays: dict[str, Array] = {}
        for tensor in self.tensors:
            array = tensor.array(data[tensor.name])
            if array is None:
                return None
            arrays[str(tensor.name)] = array
        if len({len(array) for array in arrays.values()}) != 1:
            return None
        return tuple((array.shape[1:]) for array in arrays.values()), arrays

    def _unnamed(self, form: Form, data: Any) -> tuple[Any, Array] | None:
        (tensor,) = self.tensors
        if form in (Form.INPUTS, Form.INSTANCES):
            array = tensor.array(data)
        else:
            rows = _rows(form, data)
            array = None if rows is None else tensor.table(rows)
        return None if array is None else (array.shape[1:], array)

    @staticmethod
    def length(arrays: Any) -> int:
        """How many rows."""
        first = next(iter(arrays.values())) if type(arrays) is dict else arrays
        return len(first)

    @staticmethod
    def joined(several: Sequence[Any]) -> Any:
        """The arrays of several requests as one."""
        if len(several) == 1:
            return several[0]
        if type(several[0]) is dict:
            return {name: np.concatenate([arrays[name] for arrays in several]) for name in several[0]}
        return np.concatenate(several)

    @staticmethod
    def built(_layout: Any, arrays: Any) -> Any:
        """What MLflow would hand to the model: the arrays themselves."""
        return arrays


def _rows(form: Form, data: Any) -> list[Any] | None:
    if form is not Form.SPLIT or type(data) is not dict or not data.keys() <= {"columns", "data"}:
        return None
    rows, columns = data.get("data"), data.get("columns")
    if type(rows) is not list or not rows:
        return None
    if columns is None:
        return rows if "columns" not in data else None
    if type(columns) is not list or set(map(type, columns)) != {str} or len(set(columns)) != len(columns):
        return None
    same = type(rows[0]) is list and len(columns) == len(rows[0])
    return rows if same else None
