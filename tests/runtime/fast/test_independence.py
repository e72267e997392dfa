"""Which models may be asked for several requests at once, as the check at load time judges."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec
from sklearn.ensemble import RandomForestClassifier

from tests.runtime.fast.subjects import fitted, loaded
from trimtab.runtime.mlflow import independence
from trimtab.runtime.mlflow.fast.path import FastPath
from trimtab.runtime.mlflow.independence import Verdict, judged

pytestmark = pytest.mark.filterwarnings("ignore")

EXAMPLE = {"inputs": [[1.0, 2.0, 3.0], [-4.0, 5.0, 0.5]]}
count = itertools.count()


class Made:
    """A model of one function."""

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self._answer = answer

    def predict(self, data: Any) -> Any:
        return self._answer(data)


def work(takes_s: float = 0.002) -> None:
    """What each call costs, however many rows."""
    until_s = time.thread_time() + takes_s
    while time.thread_time() < until_s:
        pass


def judge(answer: Callable[[Any], Any], example: Any = EXAMPLE) -> Verdict:
    model = loaded(ModelSignature(Schema([TensorSpec(np.dtype("float64"), (-1, 3))])), Made(answer))
    fast = FastPath.compiled(model)
    assert fast is not None
    return judged(fast, fast.read(json.dumps(example).encode(), "application/json") if example else None)


def summed(rows: Any) -> Any:
    work()
    return rows.sum(axis=1)


def test_independent_rows_are_batched() -> None:
    verdict = judge(summed)
    assert verdict.batch, verdict.why
    assert [rows for rows, _ in verdict.seen] == [1, independence.ROWS]


@pytest.mark.skipif(not independence.SCHEDULED.exists(), reason="this system does not tell who was held up")
def test_a_busy_machine_is_not_taken_for_a_model_that_waits() -> None:
    """A pod that starts beside others must not go without batching for as long as it lives."""
    mine = os.sched_getaffinity(0)
    processor = min(mine)
    spin = f"import os; os.sched_setaffinity(0, {{{processor}}}); print(flush=True)\nwhile True: pass"
    others = [subprocess.Popen([sys.executable, "-c", spin], stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for other in others:
            assert other.stdout is not None
            assert other.stdout.readline()
        os.sched_setaffinity(0, {processor})
        verdict = judge(lambda rows: [work(0.008), rows.sum(axis=1)][1])
    finally:
        os.sched_setaffinity(0, mine)
        for other in others:
            other.kill()
            other.communicate()
    assert verdict.batch, verdict.why


def test_one_row_of_an_example_is_varied() -> None:
    assert judge(summed, {"inputs": [[1.0, 2.0, 3.0]]}).batch


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda rows: (rows - rows.mean(axis=0) / 2).sum(axis=1), "depends on the rows beside it"),
        (lambda rows: np.sort(rows.sum(axis=1)), "depends on the rows beside it"),
        (lambda rows: rows.sum(axis=1) + np.arange(len(rows)), "depends on the rows beside it"),
        (lambda rows: np.array([next(count) for _ in rows]), "two different answers"),
        (lambda rows: {"sums": rows.sum(axis=1).tolist()}, "answers several rows with a dict"),
        (lambda rows: rows.sum(axis=1)[:1], "answers several rows with a list"),
        (lambda rows: np.zeros(len(rows)), "got one answer"),
        (lambda rows: [float(row.sum()) for row in rows if work() is None], "rows together take"),
        (lambda rows: [time.sleep(0.005), rows.sum(axis=1)][1], "waits more than it computes"),
    ],
    ids=[
        "mean of all",
        "sorted",
        "numbered",
        "counts",
        "dict",
        "too few",
        "always the same",
        "row by row",
        "waits",
    ],
)
def test_others_are_not(answer: Callable[[Any], Any], why: str) -> None:
    verdict = judge(answer)
    assert not verdict.batch
    assert why in verdict.why


def test_without_an_example_nothing_is_shown() -> None:
    assert "no input example" in judge(summed, None).why


def test_a_slow_model_does_not_hold_up_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(independence, "BUDGET_S", 0.02)
    began_s = time.monotonic()
    verdict = judge(lambda rows: [time.sleep(0.015), rows.sum(axis=1)][1])
    assert not verdict.batch
    assert "took more than 0.02 s" in verdict.why
    assert time.monotonic() - began_s < 5


def test_a_model_that_raises_for_every_variation() -> None:
    def picky(rows: Any) -> Any:
        raise KeyError("no")

    verdict = judge(picky)
    assert not verdict.batch


def test_a_forest_is_batched() -> None:
    fast = FastPath.compiled(fitted(RandomForestClassifier(20, random_state=0)))
    assert fast is not None
    names = [column.name for column in fast.shape.columns]  # type: ignore[union-attr]
    body = {"dataframe_split": {"columns": names, "data": [[5.1, 3.5, 1.4, 0.2]]}}
    verdict = judged(fast, fast.read(json.dumps(body).encode(), "application/json"))
    assert verdict.batch, verdict.why


def test_words_are_not_varied() -> None:
    """One row of words is all there is: nothing shows whether the order matters."""
    model = loaded(ModelSignature(Schema([ColSpec("string", "a")])), Made(lambda data: data["a"].tolist()))
    fast = FastPath.compiled(model)
    assert fast is not None
    question = fast.read(b'{"inputs": [{"a": "x"}]}', "application/json")
    assert "got one answer" in judged(fast, question).why
    question = fast.read(b'{"inputs": [{"a": "x"}, {"a": "y"}]}', "application/json")
    assert judged(fast, question).seen, "two rows of words are"
