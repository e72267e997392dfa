"""scikit-learn models that may be given a matrix: a DataFrame costs them four times the prediction.

MLflow hands a DataFrame to `estimator.predict`, which checks its column names and makes a matrix of it.
An estimator of scikit-learn's own does nothing else with the names, so a copy without them predicts the
same from the matrix. Where inner estimators may know names too (columns, votes, searches), or where
somebody else's code runs, the DataFrame stays.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from trimtab.runtime.mlflow.fast.columns import Columns
from trimtab.runtime.mlflow.fast.forest import forest
from trimtab.runtime.mlflow.fast.linear import linear

PLAIN = frozenset(
    f"sklearn.{name}"
    for name in (
        "cluster",
        "decomposition",
        "discriminant_analysis",
        "dummy",
        "ensemble._forest",
        "ensemble._gb",
        "ensemble._hist_gradient_boosting",
        "ensemble._iforest",
        "gaussian_process",
        "kernel_ridge",
        "linear_model",
        "mixture",
        "naive_bayes",
        "neighbors",
        "neural_network",
        "preprocessing._data",
        "preprocessing._polynomial",
        "svm",
        "tree",
    )
)
PREDICTS = frozenset({"predict", "predict_proba", "predict_log_proba"})


class Matrices:
    """Asks a scikit-learn model with a matrix."""

    def __init__(self, predict: Callable[[Any], Any], dtype: np.dtype[Any]) -> None:
        self._predict = predict
        self._dtype = dtype

    @classmethod
    def of(cls, model: Any, columns: Columns) -> Matrices | None:
        """For a `PyFuncModel` of the sklearn flavour; None if it must have its DataFrame."""
        flavour = model.metadata.flavors.get("python_function", {})
        predicts = flavour.get("predict_fn", "predict")
        if flavour.get("loader_module") != "mlflow.sklearn" or predicts not in PREDICTS:
            return None
        raw_model = getattr(model, "get_raw_model", None)  # since MLflow 2.16
        if raw_model is None:
            return None
        dtype = _common(columns)
        bare = nameless(raw_model(), [column.name for column in columns.columns])
        if bare is None or dtype is None:
            return None
        shorter = linear(bare, predicts) or forest(bare, predicts)
        return cls(shorter or getattr(bare, predicts), dtype)

    def __call__(self, rows: list[Any]) -> Any:
        """The predictions for some rows. Raises what the estimator raises."""
        return self._predict(np.array(rows, dtype=self._dtype, order="F"))  # as a DataFrame's matrix is


def nameless(estimator: Any, names: list[str]) -> Any | None:
    """A shallow copy that knows no column names; None if that may change what it does."""
    known = getattr(estimator, "feature_names_in_", None)
    if known is not None and list(known) != names:
        return None  # it will complain, and shall
    return _bare(estimator)


def _bare(estimator: Any) -> Any | None:
    kind = type(estimator)
    if kind.__module__ == "sklearn.pipeline" and kind.__name__ == "Pipeline":
        return _pipeline(estimator)
    plain = any(kind.__module__ == name or kind.__module__.startswith(name + ".") for name in PLAIN)
    if not plain or "_sklearn_output_config" in vars(estimator):
        return None
    bare = copy.copy(estimator)
    vars(bare).pop("feature_names_in_", None)
    return bare


def _pipeline(pipeline: Any) -> Any | None:
    if "_sklearn_output_config" in vars(pipeline):
        return None
    steps = [(name, step if step in (None, "passthrough") else _bare(step)) for name, step in pipeline.steps]
    kept = [step is None for _, step in pipeline.steps]
    if [bare is None for _, bare in steps] != kept:
        return None
    bare = copy.copy(pipeline)
    bare.steps = steps
    return bare


def _common(columns: Columns) -> np.dtype[Any] | None:
    """The type of the matrix of a DataFrame with all of these columns; None if it has no plain numbers."""
    dtypes = [column.kind.dtype for column in columns.columns if column.required]
    numbers = [dtype for dtype in dtypes if dtype is not None and dtype.kind in "if"]
    return np.result_type(*numbers) if len(numbers) == len(columns.columns) else None
