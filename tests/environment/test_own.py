"""Whether trimtab's own environment holds what a model recorded."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import ClassVar

import pytest

from trimtab.environment.own import Here, lacking
from trimtab.environment.recipe import Recipe


class There:
    python = "3.11.7"
    versions: ClassVar = {
        "mlflow": "3.17.2",
        "numpy": "2.4.6",
        "scikit-learn": "1.9.1",
        "torch": "2.6.0+cpu",
        "x": "1.0",
    }
    asks: ClassVar = {
        "x": ["numpy>=3 ; extra == 'new'", "numpy ; extra == 'old'", "absent", "x[old] ; extra == 'all'"]
    }

    def version(self, name: str) -> str | None:
        return self.versions.get(name)

    def requires(self, name: str) -> Sequence[str]:
        return self.asks.get(name, ())


@pytest.mark.parametrize(
    "line",
    [
        "scikit-learn",
        "scikit_learn==1.9.1",
        "numpy<3,>=2",
        "torch==2.6.0",  # a local version label is the same release
        "absent ; python_version < '3'",
        "x[old]",
        "x[all]",
        "--extra-index-url https://example.org/simple",
    ],
)
def test_what_holds(line: str) -> None:
    assert lacking(Recipe("3.11.2", ("mlflow==3.17.2", line)), There()) == ""


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("scikit-learn==1.5.2", "scikit-learn==1.5.2 is wanted, trimtab's is 1.9.1"),
        ("absent>=1", "absent>=1 is wanted, trimtab's has no absent"),
        ("x[new]", "numpy>=3 is wanted, trimtab's is 2.4.6"),
        ("git+https://example.org/x.git", "`git+https://example.org/x.git` is wanted"),
        ("x @ https://example.org/x.whl", "`x @ https://example.org/x.whl` is wanted"),
        ("git+https://ann:s3cret@example.org/x.git", "`git+https://example.org/x.git` is wanted"),
        ("wheels/x-1.0.whl", "`wheels/x-1.0.whl` is wanted"),
        ("-e ./code", "`-e ./code` is wanted"),
    ],
)
def test_the_first_thing_that_does_not_hold_is_told(line: str, says: str) -> None:
    assert lacking(Recipe("3.11.7", ("mlflow", line)), There()) == says


def test_another_minor_version_of_python_does_not_do() -> None:
    assert lacking(Recipe("3.10.13", ()), There()) == "Python 3.10 is wanted, trimtab's is 3.11.7"


def test_a_constraint_counts_for_what_is_there() -> None:
    assert lacking(Recipe("3.11.7", (), ("absent<1",)), There()) == ""
    assert "numpy<2 is wanted" in lacking(Recipe("3.11.7", (), ("numpy<2",)), There())


def test_here_is_what_python_says_itself() -> None:
    here = Here()
    assert here.python == platform.python_version()
    assert here.version("mlflow")
    assert here.version("no-such-distribution") is None
    assert any(line.startswith("mlflow-skinny") for line in here.requires("mlflow"))
