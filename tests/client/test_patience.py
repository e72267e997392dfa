"""When a request is sent again, and what people are told when it is not."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.client.answers import Reply, ServingError, may_be_asked_again, predictions_of, refused, value_of
from trimtab.client.patience import Patience, Tries, retry_after_s
from trimtab.core.clock import ManualClock
from trimtab.core.errors import Unreachable

CHANCE = st.floats(0, 1)


def tries(patience: Patience, clock: ManualClock | None = None) -> Tries:
    return Tries("iris", "http://x", patience, (clock or ManualClock()).now_s)


@given(st.integers(1, 20), st.floats(0, 100), st.none() | st.floats(0, 100), CHANCE)
def test_waits_are_bounded_and_never_shorter_than_asked(
    attempts: int, passed_s: float, asked_s: float | None, chance: float
) -> None:
    patience = Patience(attempts_max=6, wait_max_s=30.0)
    wait_s = patience.wait_s(attempts, passed_s, asked_s, chance)
    if wait_s is None:
        least_s = max(asked_s or 0.0, 0.05)
        assert attempts >= 6 or passed_s + max(least_s, 3.0) > 30.0
    else:
        assert attempts < 6
        assert wait_s >= max(asked_s or 0.0, 0.05)
        assert passed_s + wait_s <= 30.0


@pytest.mark.parametrize(
    ("status", "fault", "more", "again", "if_idempotent"),
    [
        (429, "platform", {"retry-after": "1", "x-trimtab-sent": "0"}, True, True),
        (429, "platform", {"retry-after": "1", "x-trimtab-sent": "312"}, False, True),
        (429, "", {}, True, True),
        (429, "model", {"retry-after": "1"}, False, False),
        (503, "platform", {"retry-after": "1", "x-trimtab-sent": "0"}, True, True),
        (503, "platform", {"retry-after": "1", "x-trimtab-sent": "312"}, False, True),
        (503, "platform", {"retry-after": "1"}, True, True),  # a pod's own
        (503, "platform", {}, False, True),  # a pod that was stopped
        (503, "", {}, False, True),
        (503, "model", {"retry-after": "1"}, False, False),
        (500, "", {}, False, False),
        (504, "platform", {"retry-after": "1"}, False, False),
    ],
)
def test_only_what_no_model_saw_is_asked_again(
    status: int, fault: str, more: dict[str, str], again: bool, if_idempotent: bool
) -> None:
    headers = more | ({"x-trimtab-fault": fault} if fault else {})
    assert may_be_asked_again(Reply(status, headers, b"")) is again
    assert may_be_asked_again(Reply(status, headers, b""), idempotent=True) is if_idempotent


def test_how_long_to_wait_comes_in_two_forms() -> None:
    assert retry_after_s({"retry-after": "2"}, 0.0) == 2.0
    assert retry_after_s({"retry-after": formatdate(1_000_005, usegmt=True)}, 1_000_000.0) == 5.0
    assert retry_after_s({"retry-after": formatdate(0, usegmt=True)}, 1_000_000.0) == 0.0
    assert retry_after_s({"retry-after": "soon"}, 0.0) is None
    assert retry_after_s({}, 0.0) is None


def test_a_wait_longer_than_we_have_patience_for_is_an_error_at_once() -> None:
    busy = Reply(503, {"retry-after": "60", "x-trimtab-fault": "platform"}, b'{"message": "loading"}')
    with pytest.raises(ServingError) as error:
        tries(Patience(wait_max_s=30.0)).after(busy, 0.5, 0.0)
    assert (error.value.status, error.value.fault) == (503, "platform")
    assert str(error.value) == "iris: answered 503 (platform's fault): loading"
    assert "trimtab status iris" in error.value.hint


def test_what_was_not_sent_is_tried_as_often_as_may_be() -> None:
    some = tries(Patience(attempts_max=3))
    waits = [some.not_sent(OSError("refused"), 0.5) for _ in range(2)]
    assert waits == [0.1, 0.2]
    with pytest.raises(Unreachable, match=r"cannot be reached \(3 tries\): refused"):
        some.not_sent(OSError("refused"), 0.5)


def test_tries_take_patience_too() -> None:
    """Five of them that each wait out a timeout of 310 s would keep a caller for half an hour."""
    clock = ManualClock()
    some = tries(Patience(idempotent=True, wait_max_s=30.0), clock)
    clock.advance(12.0)
    assert some.broken(OSError("gone"), 0.5) == 0.1
    clock.advance(20.0)
    with pytest.raises(Unreachable, match="no answer came"):
        some.broken(OSError("gone"), 0.5)


@pytest.mark.parametrize(
    ("body", "says", "code"),
    [
        (b'{"error_code": "BAD_REQUEST", "message": "no"}', "no", "BAD_REQUEST"),
        (b'{"detail": "Not Found"}', "Not Found", ""),
        (b"upstream gone", "upstream gone", ""),
        (b"[1]", "[1]", ""),
        (b"", "an empty body", ""),
    ],
)
def test_each_form_of_an_error_is_understood(body: bytes, says: str, code: str) -> None:
    error = refused(Reply(400, {"x-trimtab-fault": "model", "x-request-id": "r1"}, body), "iris")
    assert error.message == f"answered 400 (model's fault): {says}"
    assert (error.error_code, error.request_id) == (code, "r1")
    assert "trimtab logs iris" in error.hint


def test_a_key_that_is_missing_and_an_endpoint_that_is_not_there_have_hints() -> None:
    assert "TRIMTAB_API_KEY" in refused(Reply(401, {}, b""), "iris").hint
    assert "trimtab status" in refused(Reply(404, {}, b""), "iris").hint


def test_answers() -> None:
    assert predictions_of(value_of(Reply(200, {}, b'{"predictions": [1]}'), "iris")) == [1]
    assert predictions_of([1]) == [1]
    with pytest.raises(ServingError, match="not JSON: <html>"):
        value_of(Reply(200, {}, b"<html>"), "iris")
