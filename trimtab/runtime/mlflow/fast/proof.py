"""At load time: is what is made of a request here what MLflow makes of it?

The same bodies go both ways: through MLflow's own scoring function with a model that keeps what it is
given, and through the fast path. They are the model's input example and rows made up from its
signature, in each of the four forms, one row and three. A form that comes out otherwise, as in another
version of MLflow, is left to MLflow. The model itself is asked only if it is scikit-learn's.
"""

from __future__ import annotations

import copy
import inspect
import json
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import scoring_server

from trimtab.runtime.mlflow.answer import JSON
from trimtab.runtime.mlflow.fast.columns import Columns
from trimtab.runtime.mlflow.fast.envelope import Form
from trimtab.runtime.mlflow.fast.path import FastPath, Question
from trimtab.runtime.mlflow.fast.tensors import Tensors

MADE_UP: dict[str, list[Any]] = {
    "double": [0.5, -1.25, 3],
    "float": [0.1, 16777217.0, -2],
    "long": [1, 0, (1 << 53) + 1],
    "integer": [1, 0, -7],
    "boolean": [True, False, True],
    "string": ["a", "", "é long"],
    "datetime": ["2026-01-02", "2026-01-02", "1999-12-31"],
}
LENGTH_UNKNOWN = 2  # of a dimension of a tensor that may have any
ELEMENTS_MAX = 1 << 16  # of a row that is made up


class _Taken(Exception):
    """Ends MLflow's scoring once it has handed over the data."""


def proven(fast: FastPath, example: bytes | None) -> FastPath | None:
    """The fast path with those forms alone that MLflow reads alike; None if that is none.

    Raises nothing: what fails is not proven.
    """
    try:
        fast.forms = frozenset(form for form in Form if _alike(fast, form, example))
    except Exception:  # noqa: BLE001  a version of MLflow that has other insides
        return None
    if fast.matrices is not None and not _predicts_alike(fast):
        fast.matrices = None
    return fast if fast.forms else None


def some_body(fast: FastPath) -> bytes:
    """A request with one made-up row. Raises ValueError if the signature gives none."""
    for form in Form:
        body = made_up(fast.shape, form, 1) if form in fast.forms else None
        if body is not None:
            return body
    raise ValueError("no form has a row")


def made_up(shape: Columns | Tensors, form: Form, rows: int) -> bytes | None:
    """A request with so many rows (at most three) that the signature allows; None if there is none."""
    if isinstance(shape, Columns):
        kinds = {column.name: MADE_UP[column.kind.name][:rows] for column in shape.columns}
        data = _table(form, kinds)
    elif shape.names == (None,) or form in (Form.INPUTS, Form.INSTANCES):
        data = _arrays(shape, form, rows)
    else:
        return None
    return json.dumps({form.value: data}).encode()


def _table(form: Form, columns: dict[str, list[Any]]) -> Any:
    rows = list(zip(*columns.values(), strict=True))
    if form is Form.SPLIT:
        return {"columns": list(columns), "data": rows}
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _arrays(tensors: Tensors, form: Form, rows: int) -> Any:
    made = {}
    for tensor in tensors.tensors:
        shape = [LENGTH_UNKNOWN if length == -1 else length for length in tensor.shape]
        shape[0] = rows if tensor.shape[0] == -1 else shape[0]
        if np.prod(shape) > ELEMENTS_MAX * rows:
            raise ValueError(f"a row of {tensor.name} is too large to be made up")
        whole = np.arange(np.prod(shape)).reshape(shape) % 7
        made[tensor.name] = (whole / 4 if tensor.dtype.kind == "f" else whole).tolist()
    if tensors.names != (None,):
        return made
    return {"data": made[None]} if form is Form.SPLIT else made[None]


def _alike(fast: FastPath, form: Form, example: bytes | None) -> bool:
    """Whether each body of this form that is read here is read alike by MLflow, and one at least is."""
    bodies = [made_up(fast.shape, form, rows) for rows in (1, 3)]
    bodies.append(example)
    seen = 0
    for body in bodies:
        question = fast.read(body, JSON) if body else None
        if body is None or question is None:
            continue
        if not same(fast.input([question]), taken(fast.model, body)):
            return False
        seen += 1
    return seen > 0


def taken(model: Any, body: bytes) -> Any:
    """What MLflow's own server would hand to the model for this body. Raises MlflowException."""
    kept: list[Any] = []

    def keep(data: Any, **_params: Any) -> Any:
        kept.append(data)
        raise _Taken

    keep.__signature__ = inspect.signature(model._predict_fn)  # type: ignore[attr-defined]
    keeper = copy.copy(model)
    keeper._predict_fn = keep
    try:
        scoring_server.invocations(body, JSON, keeper, model.metadata.get_input_schema())
    except MlflowException:
        if not kept:
            raise
    return kept[0]


def same(ours: Any, theirs: Any) -> bool:
    """Whether two inputs are one to a model: types, order and layout as well as values."""
    if type(ours) is not type(theirs):
        return False
    if isinstance(ours, dict):
        return list(ours) == list(theirs) and all(same(ours[name], theirs[name]) for name in ours)
    if isinstance(ours, np.ndarray):
        return _same_array(ours, theirs)
    return isinstance(ours, pd.DataFrame) and _same_frame(ours, theirs)


def _same_frame(ours: Any, theirs: Any) -> bool:
    axes = ours.columns.equals(theirs.columns) and ours.index.equals(theirs.index)
    types = list(ours.dtypes) == list(theirs.dtypes) and type(ours.index) is type(theirs.index)
    if not axes or not types or ours.columns.dtype != theirs.columns.dtype:
        return False
    if not ours.equals(theirs) or not _same_objects(ours, theirs):
        return False
    return _same_order(ours.to_numpy(), theirs.to_numpy())


def _same_objects(ours: Any, theirs: Any) -> bool:
    """Before pandas 3 text is a column of objects, of Python's or of NumPy's."""
    objects = [place for place, dtype in enumerate(ours.dtypes) if dtype.kind == "O"]
    frames = (ours.iloc[:, objects], theirs.iloc[:, objects])
    types = [[type(value) for value in frame.to_numpy().ravel()] for frame in frames]
    return types[0] == types[1]


def _same_array(ours: Any, theirs: Any) -> bool:
    if ours.dtype != theirs.dtype or ours.shape != theirs.shape or not _same_order(ours, theirs):
        return False
    return bool(np.array_equal(ours, theirs, equal_nan=ours.dtype.kind == "f"))


def _same_order(ours: Any, theirs: Any) -> bool:
    names = ("C_CONTIGUOUS", "F_CONTIGUOUS")
    return [ours.flags[name] for name in names] == [theirs.flags[name] for name in names]


def _predicts_alike(fast: FastPath) -> bool:
    """Whether the estimator says of a matrix what it says of its DataFrame, to the last bit."""
    for rows in (1, 3):
        questions = [fast.read(made_up(fast.shape, form, rows) or b"", JSON) for form in fast.forms]
        for question in questions:
            if question is not None and not _one_prediction(fast, question):
                return False
    return True


def _one_prediction(fast: FastPath, question: Question) -> bool:
    assert fast.matrices is not None
    try:
        ours, theirs = fast.matrices(question.data), fast.model._predict_fn(fast.input([question]))
    except Exception:  # noqa: BLE001  whatever is wrong with it, this is no proof
        return False
    return type(ours) is type(theirs) and isinstance(ours, np.ndarray) and _same_array(ours, theirs)
