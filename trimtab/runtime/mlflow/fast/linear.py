"""Linear models of scikit-learn's own: a product and a sum, without the checks around them.

For one row the checks take ten times as long as the product. They are about the input's type, shape and
finiteness; the first two are known here, and what is not finite is left to the estimator, which refuses
it. `proof` compares both ways to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Predict = Callable[[Any], Any]


def linear(estimator: Any, predicts: str) -> Predict | None:
    """What `estimator.predict` computes of a finite matrix; None if it is no plain linear model."""
    if predicts != "predict":
        return None
    try:
        from sklearn.linear_model import _base  # noqa: PLC0415  private, so it may be elsewhere one day

        classifier, model = _base.LinearClassifierMixin, _base.LinearModel
        kind = type(estimator)
        if kind.predict is classifier.predict and kind.decision_function is classifier.decision_function:
            return _classifier(estimator)
        if kind.predict is model.predict and kind._decision_function is model._decision_function:
            return _regression(estimator)
    except (ImportError, AttributeError):
        pass
    return None


def _classifier(estimator: Any) -> Predict | None:
    weights, intercept, classes = estimator.coef_.T, estimator.intercept_, estimator.classes_
    if not _plain(estimator.coef_, intercept) or not isinstance(classes, np.ndarray):
        return None
    two = weights.shape[1] == 1

    def predict(rows: Any) -> Any:
        if not np.isfinite(rows).all():
            return estimator.predict(rows)
        scores = rows @ weights + intercept
        best = (scores.reshape(-1) > 0).astype(np.int64) if two else scores.argmax(axis=1)
        return classes.take(best, axis=0)

    return predict


def _regression(estimator: Any) -> Predict | None:
    coefficients, intercept = estimator.coef_, estimator.intercept_
    if not _plain(coefficients, intercept):
        return None
    weights = coefficients if coefficients.ndim == 1 else coefficients.T

    def predict(rows: Any) -> Any:
        return rows @ weights + intercept if np.isfinite(rows).all() else estimator.predict(rows)

    return predict


def _plain(coefficients: Any, intercept: Any) -> bool:
    return isinstance(coefficients, np.ndarray) and isinstance(intercept, (np.ndarray, float))
