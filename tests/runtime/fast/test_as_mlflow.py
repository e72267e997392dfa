"""The fast path against MLflow's own scoring function: the same answers and errors, byte for byte.

Both are asked in this process, with models of each kind of signature that the fast path knows (and one
that it does not), in all four forms, with values that fit and values that do not.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import scoring_server

from tests.runtime.fast.bodies import requests
from tests.runtime.fast.subjects import Subject, quick, subjects
from trimtab.runtime.mlflow.job import Job
from trimtab.runtime.mlflow.scoring import Scorer

MORE = os.environ.get("TRIMTAB_FAST_EXAMPLES")  # then they are drawn anew each time
EXAMPLES = int(MORE or 60)  # for each model
SETTINGS = settings(
    max_examples=EXAMPLES,
    derandomize=MORE is None,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
NOT_COMPILED = {"bytes", "lists", "things", "anything", "texts"}
NAMES = ["regression", "no names", "pipeline", "forest", "trees of numbers", "two types of number"]
NAMES += ["numbers", "singles", "words", "one word", "flags", "dates", "bytes", "lists", "things", "anything"]
NAMES += ["doubles", "whole numbers", "picture", "marks", "texts", "named"]

# In a pod a warning is a line in the log; as an error it would change MLflow's answers.
pytestmark = [pytest.mark.usefixtures("quiet"), pytest.mark.filterwarnings("ignore")]


def theirs(subject: Subject, body: bytes, content_type: str) -> tuple[str, int, str]:
    """MLflow's answer: its scoring function, and what its routes make of exceptions."""
    schema = subject.model.metadata.get_input_schema()
    try:
        return tuple(scoring_server.invocations(body, content_type, subject.model, schema))
    except MlflowException as error:
        return error.serialize_as_json(), error.get_http_status_code(), "application/json"
    except Exception:  # noqa: BLE001
        return "Internal Server Error", 500, "text/plain"


class Counted:
    """A scorer that counts how often it is asked."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self.asked = 0

    def carry_out(self, job: Job) -> None:
        self.asked += 1
        self._scorer.carry_out(job)


def test_no_subject_is_left_out() -> None:
    assert list(subjects()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_answers_and_errors_are_mlflows(name: str) -> None:
    subject, fast = subjects()[name], quick(name)
    assert (fast is None) == (name in NOT_COMPILED)
    counted = Counted(fast._scorer if fast else Scorer(subject.model))
    if fast is not None:
        fast._scorer = counted  # type: ignore[assignment]
    seen: Counter[Any] = Counter()

    @SETTINGS
    @given(request=requests(subject))
    def alike(request: tuple[bytes, str]) -> None:
        body, content_type = request
        job = Job(body, content_type, asyncio.Future(loop=LOOP))
        before = counted.asked
        (fast or counted).carry_out(job)
        assert job.answer is not None
        way = "fast" if counted.asked == before else "MLflow's"
        seen[way] += 1
        if "SystemExit" in job.answer.body:
            return  # it ends MLflow's own server
        ours = (job.answer.body, job.answer.status, job.answer.media_type)
        assert ours == theirs(subject, body, content_type)
        seen[way, job.answer.status] += 1

    try:
        alike()
    finally:
        if fast is not None:
            fast._scorer = counted._scorer
    assert fast is None or seen["fast"] >= EXAMPLES / 30, f"the fast path was hardly taken: {seen}"
    assert seen["MLflow's"] >= EXAMPLES / 20, f"nothing odd was asked: {seen}"
    assert seen["MLflow's", 200] + seen["fast", 200] >= EXAMPLES / 10, f"hardly anything was answered: {seen}"


LOOP = asyncio.new_event_loop()
LOOP.close()
