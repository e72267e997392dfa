from __future__ import annotations

import grpc
import pytest

from trimtab.control.wire_errors import (
    DETAILS_BYTES_MAX,
    DETAILS_KEY,
    MESSAGE_BYTES_MAX,
    code_of,
    from_rpc,
    message_of,
    to_details,
)
from trimtab.core import errors
from trimtab.core.errors import InvalidInput, Problem, TrimtabError

KINDS = (
    errors.InvalidInput,
    errors.Unreachable,
    errors.NotFound,
    errors.Conflict,
    errors.Unauthorised,
    errors.Exhausted,
    errors.Failed,
)


def sent(error: TrimtabError) -> TrimtabError:
    return from_rpc(code_of(error), message_of(error), ((DETAILS_KEY, to_details(error)),))


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_comes_back_as_itself(kind: type[TrimtabError]) -> None:
    back = sent(kind("what – was wrong", where="models[0].uri", hint="do this"))
    assert type(back) is kind
    assert (back.message, back.where, back.hint) == ("what – was wrong", "models[0].uri", "do this")


def test_every_problem_comes_back() -> None:
    problems = (Problem("a", "is wrong", "mend a"), Problem("b", "is too", "mend b"))
    back = sent(InvalidInput.of(problems))
    assert isinstance(back, InvalidInput)
    assert back.problems == problems
    assert str(back) == str(InvalidInput.of(problems))


def test_a_long_error_is_cut_rather_than_lost() -> None:
    problems = tuple(Problem(f"models[{i}]", "é" * 5_000, "x" * 5_000) for i in range(50))
    error = InvalidInput.of(problems)
    assert len(to_details(error)) <= DETAILS_BYTES_MAX
    assert len(message_of(error).encode()) <= MESSAGE_BYTES_MAX
    assert isinstance(sent(error), InvalidInput)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, errors.Unreachable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.Unreachable),
        (grpc.StatusCode.ALREADY_EXISTS, errors.Conflict),
        (grpc.StatusCode.UNAUTHENTICATED, errors.Unauthorised),
        (grpc.StatusCode.UNIMPLEMENTED, errors.Failed),
        (grpc.StatusCode.INTERNAL, errors.Failed),
    ],
)
def test_a_status_without_details_still_has_a_hint(code: grpc.StatusCode, kind: type[TrimtabError]) -> None:
    for metadata in (None, ((DETAILS_KEY, b"\xff\xff"),)):
        error = from_rpc(code, "", metadata)
        assert type(error) is kind
        assert error.message
        assert error.hint
