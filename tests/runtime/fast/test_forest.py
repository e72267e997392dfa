"""Forests summed tree by tree: to the last bit what scikit-learn says, and only where it would sum so itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)

from trimtab.runtime.mlflow.fast.forest import forest

ROWS, SPECIES = load_iris(return_X_y=True)
FORESTS = (RandomForestClassifier, ExtraTreesClassifier, RandomForestRegressor, ExtraTreesRegressor)


def fitted(kind: Any, **arguments: Any) -> Any:
    return kind(n_estimators=7, random_state=0, **arguments).fit(ROWS, SPECIES)


def asked(estimator: Any, predicts: str) -> list[Any]:
    """What the estimator itself is asked from now on."""
    seen: list[Any] = []
    own = getattr(estimator, predicts)
    setattr(estimator, predicts, lambda rows: seen.append(rows) or own(rows))
    return seen


@pytest.mark.parametrize("kind", FORESTS)
@pytest.mark.parametrize("predicts", ["predict", "predict_proba"])
def test_the_sum_is_scikit_learns_to_the_last_bit(kind: Any, predicts: str) -> None:
    estimator = fitted(kind)
    if not hasattr(estimator, predicts):
        assert forest(estimator, predicts) is None
        return
    rows = np.random.default_rng(3).normal(3, 3, (400, 4))
    theirs = getattr(estimator, predicts)(rows)
    summed, seen = forest(estimator, predicts), asked(estimator, predicts)
    assert summed is not None
    for order in ("C", "F"):
        ours = summed(np.array(rows, order=order))  # type: ignore[call-overload]
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs)
    assert not seen


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("odd", [np.nan, np.inf, 1e300])
def test_what_is_not_finite_in_single_precision_is_the_estimators_to_refuse(odd: float) -> None:
    estimator = fitted(RandomForestClassifier)
    summed, seen = forest(estimator, "predict"), asked(estimator, "predict")
    assert summed is not None
    if np.isnan(odd):
        summed(np.array([[odd, 1, 1, 1]]))  # these trees know missing values
    else:
        with pytest.raises(ValueError, match="too large|infinity"):
            summed(np.array([[odd, 1, 1, 1]]))
    assert len(seen) == 1


def test_a_forest_that_sums_otherwise_is_left_alone() -> None:
    class Own(RandomForestClassifier):  # type: ignore[misc]
        def predict(self, rows: Any) -> Any:
            return 1 + super().predict(rows)

    two_answers = RandomForestRegressor(3).fit(ROWS, ROWS[:, :2])
    others = [fitted(IsolationForest), fitted(RandomForestClassifier, n_jobs=2), fitted(Own), two_answers]
    assert [forest(each, "predict") for each in others] == [None] * 4
