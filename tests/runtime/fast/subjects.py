"""Models in memory, as MLflow would load them, one for each kind of signature."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature, infer_signature
from mlflow.sklearn import _SklearnModelWrapper
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import AnyType, Array, Map, Object, Property
from sklearn.datasets import load_iris
from sklearn.ensemble import ExtraTreesRegressor, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from trimtab.runtime.mlflow.quick import Quick
from trimtab.runtime.mlflow.scoring import Scorer

RAISES, RAISES_MLFLOWS, UNWRITABLE, EXITS = 13, 14, 15, 16


class Tells:
    """Answers with all that it can see of its input: a difference that it does not show is none."""

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        if isinstance(data, pd.DataFrame):
            self._obey(data.iloc[0].tolist())
            kinds = f"{list(data.dtypes)} {data.columns!r} {data.index!r} {params}"
            return [f"{kinds} {[(type(value), value) for value in row]}" for row in data.to_numpy().tolist()]
        if isinstance(data, dict):
            return {name: [str(array.dtype), array.shape, array.tolist()] for name, array in data.items()}
        self._obey(data.reshape(-1).tolist())
        return [f"{data.dtype} {data.flags.c_contiguous} {row.tolist()}" for row in data]

    def _obey(self, told: list[Any]) -> None:
        values = [value for value in told if isinstance(value, int | float)]
        if RAISES in values:
            raise ValueError("thirteen")
        if RAISES_MLFLOWS in values:
            raise MlflowException("fourteen")
        if UNWRITABLE in values:
            raise KeyError(object)
        if EXITS in values:
            raise SystemExit(2)


@dataclass(frozen=True)
class Subject:
    """A model, and what the values of its inputs are."""

    name: str
    model: Any
    kinds: dict[str, str]  # of columns, or {"": dtype} for one tensor, or names and dtypes of several
    shapes: dict[str, tuple[int, ...]]  # of tensors
    optional: frozenset[str] = frozenset()

    @property
    def table(self) -> bool:
        return not self.shapes


def loaded(signature: ModelSignature, model: Any, flavour: str = "mlflow.pyfunc.model") -> Any:
    meta = Model(signature=signature)
    meta.add_flavor("python_function", loader_module=flavour, predict_fn="predict")
    return mlflow.pyfunc.PyFuncModel(meta, model)


def subject_of(name: str, model: Any) -> Subject:
    """A loaded model with a signature, and what that says of its inputs."""
    schema = model.metadata.get_input_schema()
    if schema.is_tensor_spec():
        kinds = {spec.name or "": str(spec.type) for spec in schema.inputs}
        return Subject(name, model, kinds, {spec.name or "": spec.shape for spec in schema.inputs})
    kinds = {column.name: _kind(column.type) for column in schema.inputs}
    return Subject(name, model, kinds, {}, frozenset(c.name for c in schema.inputs if not c.required))


def _kind(type_: Any) -> str:
    """`double`, …; `array`, `object`, `map` or `anytype`."""
    return type_.name if isinstance(type_, DataType) else type(type_).__name__.lower()


def _told(name: str, *columns: ColSpec, params: ParamSchema | None = None) -> Subject:
    model = loaded(ModelSignature(Schema(list(columns)), params=params), Tells())
    return subject_of(name, model)


def _tensor(dtype: str, shape: tuple[int, ...], name: str | None = None) -> TensorSpec:
    return TensorSpec(np.dtype(dtype), shape, name)


def _tensors(name: str, *tensors: TensorSpec) -> Subject:
    return subject_of(name, loaded(ModelSignature(Schema(list(tensors))), Tells()))


def fitted(estimator: Any, names: bool = True, width: Callable[[Any], Any] = lambda rows: rows) -> Any:
    rows, species = load_iris(return_X_y=True, as_frame=True)
    rows = width(rows)
    estimator.fit(rows if names else rows.to_numpy(), species)
    return loaded(infer_signature(rows, species), _SklearnModelWrapper(estimator), "mlflow.sklearn")


def _sklearn(name: str, estimator: Any, names: bool = True) -> Subject:
    rows, _ = load_iris(return_X_y=True, as_frame=True)
    return Subject(name, fitted(estimator, names), dict.fromkeys(rows.columns, "double"), {})


def _thing() -> Object:
    return Object([Property("n", DataType.long), Property("s", DataType.string, required=False)])


def _whole(rows: Any) -> Any:
    """The last column in whole numbers: a DataFrame of two types."""
    return rows.assign(**{rows.columns[-1]: rows.iloc[:, -1].astype("int64")})


def _mixed_forest() -> Subject:
    rows, _ = load_iris(return_X_y=True, as_frame=True)
    model = fitted(RandomForestClassifier(5, random_state=0), width=_whole)
    kinds = dict.fromkeys(rows.columns, "double") | {rows.columns[-1]: "long"}
    return Subject("two types of number", model, kinds, {})


@cache
def subjects() -> dict[str, Subject]:
    """All of them by name."""
    return {subject.name: subject for subject in _subjects()}


def _subjects() -> tuple[Subject, ...]:
    scale = ParamSchema([ParamSpec("scale", "double", 1.0), ParamSpec("top", "long", 3)])
    return (
        _sklearn("regression", LogisticRegression(max_iter=500)),
        _sklearn("no names", LinearRegression(), names=False),
        _sklearn("pipeline", make_pipeline(StandardScaler(), LinearRegression())),
        _sklearn("forest", RandomForestClassifier(7, random_state=0)),
        _sklearn("trees of numbers", ExtraTreesRegressor(5, random_state=0), names=False),
        _mixed_forest(),
        _told("numbers", *(ColSpec(kind, kind) for kind in ("double", "float", "long", "integer"))),
        _told("singles", ColSpec("float", "a"), ColSpec("float", "b"), params=scale),
        _told("words", ColSpec("string", "a"), ColSpec("string", "b", required=False)),
        _told("one word", ColSpec("string", "only")),
        _told("flags", ColSpec("boolean", "a"), ColSpec("long", "b", required=False)),
        _told("dates", ColSpec("datetime", "when"), ColSpec("double", "x")),
        _told("bytes", ColSpec("binary", "raw")),
        _told("lists", ColSpec(Array(DataType.double), "xs"), ColSpec("long", "n", required=False)),
        _told("things", ColSpec(_thing(), "thing"), ColSpec(Map(DataType.long), "counts", required=False)),
        _told("anything", ColSpec(AnyType(), "x", required=False), ColSpec("double", "y")),
        _tensors("doubles", _tensor("float64", (-1, 3))),
        _tensors("whole numbers", _tensor("int64", (-1, 2))),
        _tensors("picture", _tensor("uint8", (-1, 2, 2, 1))),
        _tensors("marks", _tensor("bool", (-1, 2))),
        _tensors("texts", _tensor("str", (-1, 2))),
        _tensors("named", _tensor("float32", (-1, 2), "x"), _tensor("int32", (-1,), "y")),
    )


@cache
def quick(name: str) -> Quick | None:
    """The fast path of one of them."""
    return Quick.of(Scorer(subjects()[name].model), None)
