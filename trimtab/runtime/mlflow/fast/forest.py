"""Forests of scikit-learn's own: their trees asked one after the other, without a task for each.

joblib's tasks and the checks around each tree take ten times as long as the trees do for one row. The trees are
summed in scikit-learn's own order, so that not a bit differs; where it would sum them in several threads, in
no order, it does so. What is not finite in single precision is left to the estimator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Predict = Callable[[Any], Any]


def forest(estimator: Any, predicts: str) -> Predict | None:
    """What `estimator.predict` or `predict_proba` computes of a finite matrix; None if it is no plain forest."""
    try:
        from sklearn.ensemble import _forest  # noqa: PLC0415  private, so it may be elsewhere one day
        from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor  # noqa: PLC0415

        classifier, regressor, kind = _forest.ForestClassifier, _forest.ForestRegressor, type(estimator)
        if estimator.n_jobs not in (None, 1) or estimator.verbose or estimator.n_outputs_ != 1:
            return None
        if isinstance(estimator, classifier):
            if kind.predict is classifier.predict and kind.predict_proba is classifier.predict_proba:
                return _classifier(estimator, predicts, DecisionTreeClassifier)
        elif isinstance(estimator, regressor) and kind.predict is regressor.predict and predicts == "predict":
            return _regression(estimator, DecisionTreeRegressor)
    except (ImportError, AttributeError):
        pass
    return None


def _classifier(estimator: Any, predicts: str, kind: Any) -> Predict | None:
    classes = estimator.classes_
    trees = _trees(estimator, kind, "predict_proba")
    if trees is None or predicts == "predict_log_proba" or not isinstance(classes, np.ndarray):
        return None

    def probabilities(rows: Any) -> Any:
        summed = np.zeros((len(rows), len(classes)), dtype=np.float64)
        for predict in trees:
            summed += predict(rows)[:, : len(classes)]
        summed /= len(trees)
        return summed

    def predict(rows: Any) -> Any:
        singles = _singles(rows)
        if singles is None:
            return getattr(estimator, predicts)(rows)
        shares = probabilities(singles)
        return shares if predicts == "predict_proba" else classes.take(shares.argmax(axis=1), axis=0)

    return predict


def _regression(estimator: Any, kind: Any) -> Predict | None:
    trees = _trees(estimator, kind, "predict")
    if trees is None:
        return None

    def predict(rows: Any) -> Any:
        singles = _singles(rows)
        if singles is None:
            return estimator.predict(rows)
        summed = np.zeros(len(rows), dtype=np.float64)
        for tree in trees:
            summed += tree(singles)[:, 0]
        summed /= len(trees)
        return summed

    return predict


def _trees(estimator: Any, kind: Any, predicts: str) -> list[Predict] | None:
    """What each tree says of a matrix in single precision; None if one of them may say it otherwise."""
    own = getattr(kind, predicts)
    if any(getattr(type(tree), predicts) is not own for tree in estimator.estimators_):
        return None
    return [tree.tree_.predict for tree in estimator.estimators_]


def _singles(rows: Any) -> Any | None:
    with np.errstate(over="ignore"):
        singles = rows.astype(np.float32)
    return singles if np.isfinite(singles).all() else None
