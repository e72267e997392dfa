"""Errors: one class per exit status, each with a place and a remedy."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.core import errors
from trimtab.core.errors import InvalidInput, Problem, TrimtabError


def every_class() -> list[type[TrimtabError]]:
    """Those that end a command; a client's own (`ServingError`) ends none."""
    return [kind for kind in TrimtabError.__subclasses__() if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", every_class(), ids=lambda kind: kind.__name__)
def test_each_names_its_place_and_its_remedy(kind: type[TrimtabError]) -> None:
    error = kind("does not answer", where="localhost:5000", hint="start it")
    assert str(error) == "localhost:5000: does not answer"
    assert (error.message, error.where, error.hint) == ("does not answer", "localhost:5000", "start it")
    assert str(kind("does not answer")) == "does not answer"


def test_exit_statuses_are_stable() -> None:
    assert {kind.__name__: kind.exit_status for kind in every_class()} == {
        "InvalidInput": 2,
        "Unreachable": 3,
        "NotFound": 4,
        "Conflict": 5,
        "Unauthorised": 6,
        "Exhausted": 7,
        "Failed": 1,
    }


def test_the_docstring_lists_every_class_with_its_status() -> None:
    assert errors.__doc__ is not None
    for kind in every_class():
        line = next(line for line in errors.__doc__.splitlines() if f" {kind.__name__} " in line)
        assert f"exit {kind.exit_status}" in line


def test_an_input_error_always_has_a_problem() -> None:
    error = InvalidInput("is empty", where="name", hint="give one")
    assert error.problems == (Problem("name", "is empty", "give one"),)


def test_one_problem_is_told_as_it_is() -> None:
    error = InvalidInput.of((Problem("name", "is empty", "give one"),))
    assert (str(error), error.hint) == ("name: is empty", "give one")


@given(
    st.lists(
        st.builds(Problem, st.just("a"), st.text(max_size=9), st.sampled_from(["", "x", "y"])), min_size=2
    )
)
def test_several_problems_are_all_told_and_each_hint_once(problems: list[Problem]) -> None:
    error = InvalidInput.of(tuple(problems))
    assert error.problems == tuple(problems)
    assert all(str(problem) in str(error) for problem in problems)
    assert error.hint.split("; ") == list(dict.fromkeys(p.hint for p in problems if p.hint)) or not error.hint


@pytest.mark.parametrize("kind", every_class(), ids=lambda kind: kind.__name__)
def test_an_error_survives_pickling(kind: type[TrimtabError]) -> None:
    error = pickle.loads(pickle.dumps(kind("was refused", where="here", hint="do this")))
    assert (type(error), str(error), error.hint) == (kind, "here: was refused", "do this")
