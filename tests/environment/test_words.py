"""What people are told when uv fails, from the words that uv uses."""

from __future__ import annotations

import pytest

from trimtab.core.errors import Exhausted, Failed, TrimtabError, Unreachable
from trimtab.environment.recipe import Recipe
from trimtab.environment.words import explained

RECIPE = Recipe("3.11.7", ("mlflow==3.17.2", "scikit-learn==99.0", "nosuch-thing", "numpy<2"))
NO_VERSION = """error: No solution found when resolving dependencies
  cause: Because there is no version of scikit-learn==99.0 and you require scikit-learn==99.0, we can
         conclude that your requirements are unsatisfiable."""
TOGETHER = """error: No solution found when resolving dependencies
  cause: Because mlflow==3.17.2 depends on scikit-learn<2 and you require mlflow==3.17.2, we can conclude that
         you require scikit-learn<2. And because you require scikit-learn==99.0, we can conclude that …"""
NOT_FOUND = """error: No solution found when resolving dependencies
  cause: Because nosuch-thing was not found in the package registry and you require nosuch-thing, we can
         conclude that your requirements are unsatisfiable."""
OURS = """error: No solution found when resolving dependencies
  cause: Because mlflow==3.17.2 depends on gunicorn<20 and trimtab-runtime==0.1.0 depends on
         gunicorn>=20.1, we can conclude that they are incompatible. And because you require mlflow==3.17.2
         and trimtab-runtime, we can conclude that your requirements are unsatisfiable."""
BUILD = """error: Failed to build `numpy==1.19.0`
  cause: The build backend returned an error"""
AWAY = """error: Failed to fetch: `http://127.0.0.1:9/simple/mlflow/`
  cause: error sending request for url (http://127.0.0.1:9/simple/mlflow/)"""
FULL = "error: failed to write to file `/x`: No space left on device (os error 28)"


@pytest.mark.parametrize(
    ("output", "kind", "says"),
    [
        (NO_VERSION, Failed, "requirements cannot be had: scikit-learn==99.0"),
        (NOT_FOUND, Failed, "requirements cannot be had: nosuch-thing"),
        (TOGETHER, Failed, "requirements cannot be had: mlflow==3.17.2, scikit-learn==99.0"),
        (OURS, Failed, "do not go together with trimtab-runtime, which serves it (mlflow==3.17.2)"),
        (BUILD, Failed, "cannot be built here"),
        (AWAY, Unreachable, "index does not answer"),
        (FULL, Exhausted, "disk is full"),
        ("error: something new", Failed, "uv ended with status 2"),
    ],
)
def test_each_kind_of_failure_has_its_words(output: str, kind: type[TrimtabError], says: str) -> None:
    error = explained(output.splitlines(), RECIPE, 2)
    assert type(error) is kind
    assert says in str(error)
    assert error.hint
    if kind is not Exhausted:
        assert "--env-manager local" in error.hint
