"""Names: what is accepted, how it is written, what is refused by which words."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.core.errors import InvalidInput, Problem
from trimtab.core.names import NAME_LENGTH_MAX, RESERVED_NAMES, EndpointName, name_problems

labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True).filter(
    lambda label: label not in RESERVED_NAMES
)


@given(labels, labels)
def test_what_is_written_is_read_back(namespace: str, name: str) -> None:
    endpoint = EndpointName(namespace, name)
    assert EndpointName.parse(str(endpoint)) == endpoint
    assert EndpointName.parse(endpoint.short) == endpoint
    assert EndpointName.parse(name, namespace) == endpoint


@given(st.text(max_size=80))
def test_any_text_is_a_name_or_refused_with_a_hint(text: str) -> None:
    try:
        written = str(EndpointName.parse(text))
        problems: tuple[Problem, ...] = ()
    except InvalidInput as error:
        written, problems = "", error.problems
    assert bool(written) != bool(problems)
    assert all(problem.where in ("name", "namespace") and problem.hint for problem in problems)
    assert not written or re.fullmatch(r"[a-z0-9-]{1,63}\.[a-z0-9-]{1,63}", written)


@pytest.mark.parametrize(
    ("text", "namespace", "expected"),
    [
        ("iris", "", EndpointName("default", "iris")),
        ("iris.team-a", "", EndpointName("team-a", "iris")),
        ("iris", "team-a", EndpointName("team-a", "iris")),
        ("iris.team-a", "team-a", EndpointName("team-a", "iris")),
        ("0", "", EndpointName("default", "0")),
        ("a" * NAME_LENGTH_MAX, "", EndpointName("default", "a" * NAME_LENGTH_MAX)),
        ("my-chat", "", EndpointName("default", "my-chat")),
    ],
)
def test_parse(text: str, namespace: str, expected: EndpointName) -> None:
    assert EndpointName.parse(text, namespace) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "iris.",
        ".team-a",
        "-iris",
        "iris-",
        "Iris",
        "iris_1",
        "iris/1",
        "iris\n",
        "íris",
        "iris.a.b",
        "a" * (NAME_LENGTH_MAX + 1),
        "iris." + "a" * (NAME_LENGTH_MAX + 1),
        "chat",
        "completions.team-a",
        "embeddings",
    ],
)
def test_malformed_or_reserved(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        EndpointName.parse(text)
    assert caught.value.hint
    assert caught.value.exit_status == 2


def test_two_namespaces_are_a_contradiction() -> None:
    with pytest.raises(InvalidInput, match="names the namespace `team-a`, but `team-b` was asked for"):
        EndpointName.parse("iris.team-a", "team-b")


def test_every_problem_is_told_at_once() -> None:
    problems = name_problems(EndpointName("Team", "-"))
    assert [problem.where for problem in problems] == ["name", "namespace"]
    with pytest.raises(InvalidInput) as caught:
        EndpointName.parse("-.Team")
    assert "2 problems" in str(caught.value)


def test_the_short_form_is_bare_only_in_the_default_namespace() -> None:
    assert EndpointName("default", "iris").short == "iris"
    assert EndpointName("team-a", "iris").short == "iris.team-a"


def test_names_sort_by_namespace_then_name() -> None:
    names = [EndpointName("b", "a"), EndpointName("a", "c"), EndpointName("a", "b")]
    assert [str(name) for name in sorted(names)] == ["b.a", "c.a", "a.b"]
