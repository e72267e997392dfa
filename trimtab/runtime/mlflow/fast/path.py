"""The fast way as a whole: read a request, ask the model for one or several, write the answers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import isfinite
from typing import Any

import numpy as np
import pandas as pd
from mlflow.utils.proto_json_utils import NumpyEncoder, _get_jsonable_obj

from trimtab.runtime.mlflow.fast.columns import Columns
from trimtab.runtime.mlflow.fast.envelope import CONTENT_TYPES, Form, opened
from trimtab.runtime.mlflow.fast.estimator import Matrices
from trimtab.runtime.mlflow.fast.template import Templates
from trimtab.runtime.mlflow.fast.tensors import Tensors

_encode: Callable[[Any], str] = NumpyEncoder().encode  # json.dump's text, in a fraction of its time


@dataclass(slots=True)  # not frozen: that takes four times as long to make
class Question:
    """What one request asks. Those with the same `layout` and without params can be asked together."""

    data: Any  # rows of a table, an array, or arrays by name
    rows: int
    layout: Hashable  # the columns that there are, or the shape of a row
    params: Any = None


class NotRows(Exception):
    """What the model returned for several rows is not a list of as many predictions."""


class FastPath:
    """One loaded model, asked without MLflow's parsing."""

    def __init__(self, model: Any, shape: Columns | Tensors, matrices: Matrices | None = None) -> None:
        self.model = model
        self.shape = shape
        self.matrices = matrices
        self.forms = frozenset(Form)  # `proof` takes away those that MLflow reads otherwise
        self._asked = unchecked(model)
        self._templates = Templates(shape.exact)

    @classmethod
    def compiled(cls, model: Any) -> FastPath | None:
        """For an MLflow `PyFuncModel`; None if it has no signature, or one of another kind."""
        metadata = model.metadata
        schema = metadata.get_input_schema()
        if schema is None or _from_type_hint(metadata):
            return None
        if schema.is_tensor_spec():
            tensors = Tensors.compiled(schema)
            return None if tensors is None else cls(model, tensors)
        columns = Columns.compiled(schema)
        return None if columns is None else cls(model, columns, Matrices.of(model, columns))

    def read(self, body: bytes, content_type: str) -> Question | None:
        """What a request asks; None if that is for MLflow to say."""
        if content_type not in CONTENT_TYPES:
            return None
        try:
            filled = self._templates.filled(body)
            envelope = filled or opened(body, self.shape.exact)
            if envelope is None or envelope.form not in self.forms:
                return None
            found = self.shape.read(envelope.form, envelope.data)
        except (ValueError, TypeError, RecursionError, ArithmeticError):
            return None
        if found is None:
            return None
        if filled is None:
            self._templates.learn(body, envelope)
        layout, data = found
        return Question(data, self.shape.length(data), layout, envelope.params)

    def input(self, questions: Sequence[Question]) -> Any:
        """What MLflow would hand to the model for these together; they have one layout."""
        data = self.shape.joined([question.data for question in questions])
        return self.shape.built(questions[0].layout, data)

    def predict(self, questions: Sequence[Question]) -> Any:
        """What the model returns for these together. Raises anything."""
        params = questions[0].params
        if self.matrices is not None and params is None:
            return self.matrices(self.shape.joined([question.data for question in questions]))
        return self._asked.predict(self.input(questions), params=params)


def _from_type_hint(metadata: Any) -> bool:
    """Whether the signature is that of a type hint, of which MLflow makes other things than data."""
    names = ("_is_signature_from_type_hint", "_is_type_hint_from_example")  # since MLflow 2.20
    return any(getattr(metadata, name, bool)() for name in names)


def written(raw: Any) -> str:
    """MLflow's answer to one request. Raises what cannot be written as JSON."""
    return _text(_get_jsonable_obj(raw, pandas_orient="records"))


def _text(predictions: Any) -> str:
    """`_encode`'s text; of plain numbers, which most answers are, made in a third of its time."""
    if type(predictions) is list:
        types = set(map(type, predictions))
        if types == {int} or (types == {float} and all(map(isfinite, predictions))):
            return f'{{"predictions": [{", ".join(map(repr, predictions))}]}}'
    return _encode({"predictions": predictions})


def written_apart(raw: Any, rows: Sequence[int]) -> list[str]:
    """The answers to several requests of so many rows each, asked together.

    Raises NotRows, or what cannot be written as JSON.
    """
    found = _get_jsonable_obj(raw, pandas_orient="records")
    if type(found) is not list or len(found) != sum(rows):
        raise NotRows(f"{type(found).__name__} for {sum(rows)} rows")
    answers, begin = [], 0
    for count in rows:
        answers.append(_text(found[begin : begin + count]))
        begin += count
    return answers


def apart(raw: Any, rows: Sequence[int]) -> Iterator[Any]:
    """What the model returned for several requests of so many rows each, one by one. Raises NotRows."""
    sliced = getattr(raw, "iloc", raw)
    if not isinstance(raw, (list, np.ndarray, pd.DataFrame, pd.Series)) or len(raw) != sum(rows):
        raise NotRows(f"{type(raw).__name__} for {sum(rows)} rows")
    ends = accumulate(rows)
    return (sliced[end - count : end] for count, end in zip(rows, ends, strict=True))


def unchecked(model: Any) -> Any:
    """The same `PyFuncModel` without the enforcement of its inputs; that of params stays MLflow's."""
    other = copy.copy(model)
    other._model_meta = _WithoutInputs(model.metadata)
    return other


class _WithoutInputs:
    """A model's metadata, but for the schema of its inputs."""

    def __init__(self, metadata: Any) -> None:
        self._metadata = metadata

    def get_input_schema(self) -> None:
        """None: whatever comes is handed on."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._metadata, name)
