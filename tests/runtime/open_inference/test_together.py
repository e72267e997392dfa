"""Requests of both protocols wait in one queue, and are predicted together."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from tests.runtime.fast.subjects import quick, subjects
from tests.runtime.open_inference.asking import (
    Given,
    Subject,
    as_binary,
    as_message,
    grpc_outputs_of,
    outputs_of,
)
from trimtab.runtime.mlflow.batch_size import BatchSize
from trimtab.runtime.mlflow.batching import Batcher
from trimtab.runtime.mlflow.dispatch import Ways
from trimtab.runtime.mlflow.fast.path import Question
from trimtab.runtime.mlflow.job import Job
from trimtab.runtime.mlflow.open_inference.job import InferJob
from trimtab.runtime.mlflow.open_inference.messages import Refused
from trimtab.runtime.mlflow.open_inference.service import GrpcWire, RestWire
from trimtab.runtime.mlflow.quick import Quick

pytestmark = [pytest.mark.usefixtures("quiet"), pytest.mark.filterwarnings("ignore")]
WAIT_S = 30
GROWS = [(1, 0.001), (16, 0.002)]


class Held:
    """A fast path that waits for its gate, and notes how many it is asked together."""

    def __init__(self, quick: Quick) -> None:
        self._fast = quick.fast
        self.sizes: list[int] = []
        self.begun = threading.Event()
        self.open = threading.Event()

    def predict(self, questions: Sequence[Question]) -> Any:
        self.begun.set()
        assert self.open.wait(WAIT_S)
        self.sizes.append(len(questions))
        return self._fast.predict(questions)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fast, name)


async def test_both_protocols_share_a_batch() -> None:
    known, fast = subjects()["regression"], quick("regression")
    assert fast is not None
    subject = Subject.of(known.model, fast)
    assert not isinstance(subject.model.inputs, Refused)
    loop = asyncio.get_running_loop()

    def delivered(jobs: Sequence[Job]) -> None:
        for job in jobs:
            loop.call_soon_threadsafe(job.answered.set_result, job.answer)

    alone: list[Job] = []
    held = Held(fast)
    batcher = Batcher(
        held,  # type: ignore[arg-type]
        BatchSize(GROWS),
        Ways(fast.failed, alone.append, delivered, lambda _: None),
        100,
    )
    rows = [[float(row), 3.0, 1.0 + row, 0.2] for row in range(6)]

    def tensors(*of: list[float]) -> Given:
        return {
            name: ("FP64", (len(of),), [row[place] for row in of]) for place, name in enumerate(known.kinds)
        }

    def plain(row: list[float]) -> Job:
        body = {"dataframe_split": {"columns": list(known.kinds), "data": [row]}}
        return Job(json.dumps(body).encode(), "application/json", loop.create_future())

    def rest(given: Given) -> Job:
        body, headers = as_binary(given)
        scope = {"path": "/v2/models/m/infer", "headers": list(headers.items())}
        wire = RestWire(subject.model, scope, body)
        return InferJob(wire, subject.model.asked(), subject.model.outputs, loop.create_future())

    def grpc(given: Given) -> Job:
        wire = GrpcWire(subject.model, {"path": "/", "headers": []}, as_message(given, raw=True))
        return InferJob(wire, subject.model.asked(), subject.model.outputs, loop.create_future())

    jobs = [
        plain(rows[0]),
        plain(rows[1]),
        rest(tensors(rows[2], rows[3])),
        grpc(tensors(rows[4])),
        plain(rows[5]),
    ]
    batcher.submit(jobs[0])
    assert await asyncio.to_thread(held.begun.wait, WAIT_S)
    for job in jobs[1:]:
        batcher.submit(job)
    held.open.set()
    answers = [await asyncio.wait_for(job.answered, WAIT_S) for job in jobs]  # type: ignore[arg-type]
    assert (held.sizes, alone, batcher.doubt) == ([1, 4], [], None)
    wanted = known.model.predict(dict(zip(known.kinds, zip(*rows, strict=True), strict=True))).tolist()
    found = [json.loads(answers[at].body)["predictions"] for at in (0, 1)]
    found += [outputs_of(answers[2])["target"], grpc_outputs_of(answers[3])["target"]]
    found += [json.loads(answers[4].body)["predictions"]]
    assert [value for each in found for value in each] == wanted
