"""Requests that wait are predicted together; what goes wrong for one does not for the others."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from trimtab.core.errors import Exhausted
from trimtab.runtime.mlflow import batching, dispatch
from trimtab.runtime.mlflow.answer import Answer
from trimtab.runtime.mlflow.batch_size import BatchSize
from trimtab.runtime.mlflow.batching import Batcher
from trimtab.runtime.mlflow.dispatch import Ways
from trimtab.runtime.mlflow.fast.path import Question
from trimtab.runtime.mlflow.job import Job
from trimtab.runtime.mlflow.pool import Pool

WAIT_S = 30
GROWS = [(1, 0.001), (16, 0.002)]  # what the check at load time saw


class Model:
    """Stands for a fast path: a body is `word` or `word*rows`; the answer to a row is its word."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.open = threading.Event()
        self.open.set()
        self.answers: Callable[[list[str]], Any] = lambda words: words

    def read(self, body: bytes, content_type: str) -> Question | None:
        word, _, rows = body.decode().partition("*")
        if word == "unsure":
            return None
        return Question([word] * int(rows or 1), int(rows or 1), content_type)

    def predict(self, questions: Sequence[Question]) -> Any:
        words = [word for question in questions for word in question.data]
        self.asked.append(words)
        assert self.open.wait(WAIT_S)
        if "poison" in words:
            raise ValueError("poison")
        return self.answers(words)


class Pod:
    """A batcher, and what it does with jobs."""

    def __init__(self, model: Model, seen: list[tuple[int, float]] = GROWS, held_max: int = 100) -> None:
        self.model = model
        self.alone: list[bytes] = []
        self.sizes: list[float] = []
        self.size = BatchSize(seen)
        ways = Ways(self._failure, self._alone, self._answered, self.sizes.append)
        self.batcher = Batcher(model, self.size, ways, held_max)  # type: ignore[arg-type]
        self._lock = threading.Condition()
        self._done = 0

    def submit(self, *bodies: str, layout: str = "") -> list[Job]:
        jobs = [Job(body.encode(), layout, asyncio.Future(loop=LOOP)) for body in bodies]
        for job in jobs:
            self.batcher.submit(job)
        return jobs

    def held(self, first: str, *others: str) -> list[Job]:
        """`others` come while the model works on `first`."""
        self.model.open.clear()
        jobs = self.submit(first)
        until(lambda: self.model.asked[-1:] == [[first]])
        return jobs + self.submit(*others)

    def wait(self, jobs: int) -> None:
        self.model.open.set()
        with self._lock:
            assert self._lock.wait_for(lambda: self._done >= jobs, WAIT_S)

    def _failure(self, error: BaseException) -> Answer | None:
        return Answer(f"failed: {error}", 400)

    def _alone(self, job: Job) -> None:
        self.alone.append(job.body)
        job.answer = Answer("MLflow's own", 200)
        self._answered([job])

    def _answered(self, jobs: Sequence[Job]) -> None:
        with self._lock:
            self._done += len(jobs)
            self._lock.notify_all()


LOOP = asyncio.new_event_loop()
LOOP.close()


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.001)


def bodies(jobs: list[Job]) -> list[str]:
    return [job.answer.body if job.answer else "" for job in jobs]


@pytest.fixture
def model() -> Iterator[Model]:
    model = Model()
    yield model
    model.open.set()


def test_a_lone_request_is_asked_at_once(model: Model) -> None:
    pod = Pod(model)
    for count in range(3):
        jobs = pod.submit("a")
        pod.wait(count + 1)
        assert bodies(jobs) == ['{"predictions": ["a"]}']
    assert model.asked == [["a"], ["a"], ["a"]]


def test_those_that_wait_are_asked_together_and_each_gets_its_own(model: Model) -> None:
    pod = Pod(model)
    jobs = pod.held("a", "b", "c*3", "d")
    assert (pod.batcher.running, pod.batcher.queued) == (1, 3)
    pod.wait(4)
    assert model.asked == [["a"], ["b", "c", "c", "c", "d"]]
    assert bodies(jobs) == [
        '{"predictions": ["a"]}',
        '{"predictions": ["b"]}',
        '{"predictions": ["c", "c", "c"]}',
        '{"predictions": ["d"]}',
    ]
    assert pod.sizes == [1, 3]
    assert jobs[3].queue_s > 0
    assert jobs[3].predict_s > 0


def test_what_is_not_sure_goes_elsewhere_and_the_others_together(model: Model) -> None:
    pod = Pod(model)
    jobs = pod.held("a", "b", "unsure", "c")
    pod.wait(4)
    assert model.asked == [["a"], ["b", "c"]]
    assert bodies(jobs)[2] == "MLflow's own"
    assert jobs[2].slow


def test_other_layouts_are_other_batches_in_the_order_of_arrival(model: Model) -> None:
    pod = Pod(model)
    pod.held("a")
    for body, layout in (("b", ""), ("c", "other"), ("d", "other"), ("e", "")):
        pod.submit(body, layout=layout)
    pod.wait(5)
    assert model.asked == [["a"], ["b"], ["c", "d"], ["e"]]


def test_one_poison_request_fails_alone(model: Model) -> None:
    pod = Pod(model)
    jobs = pod.held("a", "b", "poison", "c")
    pod.wait(4)
    assert bodies(jobs)[1:] == ['{"predictions": ["b"]}', "failed: poison", '{"predictions": ["c"]}']
    assert pod.batcher.doubt is None


def test_a_model_that_fails_only_together_is_not_batched_again(model: Model) -> None:
    def answers(words: list[str]) -> list[str]:
        if len(words) > 1:
            raise ValueError("one at a time")
        return words

    model.answers = answers
    pod = Pod(model)
    jobs = pod.held("a", "b", "c")
    pod.wait(3)
    assert bodies(jobs) == [f'{{"predictions": ["{word}"]}}' for word in "abc"]
    assert pod.batcher.doubt is not None
    assert "ValueError: one at a time" in pod.batcher.doubt


@pytest.mark.parametrize("found", [lambda words: words[:1], lambda words: {"all": words}, lambda _: None])
def test_an_answer_of_another_length_ends_it(found: Callable[[list[str]], Any], model: Model) -> None:
    model.answers = lambda words: words if len(words) == 1 else found(words)
    pod = Pod(model)
    jobs = pod.held("a", "b", "c")
    pod.wait(3)
    assert bodies(jobs) == [f'{{"predictions": ["{word}"]}}' for word in "abc"]
    assert pod.batcher.doubt is not None
    assert "asked for 2 requests together" in pod.batcher.doubt


def test_after_its_end_those_that_wait_go_elsewhere_and_may_be_fast_there(model: Model) -> None:
    model.answers = lambda words: words if len(words) == 1 else None
    pod = Pod(model)
    pod.held("a", "b", "c")
    jobs = pod.submit("d", "e", layout="other")
    pod.wait(5)
    assert pod.alone == [b"d", b"e"]
    assert not any(job.slow for job in jobs)


def test_a_batch_that_hangs_does_not_hold_the_others(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    pod = Pod(model)
    jobs = pod.held("a", "b", "c")
    assert not pod.batcher.relieve()
    monkeypatch.setattr(batching, "STUCK_S", 0.0)
    assert pod.batcher.relieve()
    assert bodies(jobs) == ["", "MLflow's own", "MLflow's own"]
    assert pod.batcher.doubt is not None
    pod.wait(3)
    assert bodies(jobs)[0] == '{"predictions": ["a"]}'


@pytest.mark.parametrize("where", ["size", "read"])
def test_a_mistake_of_its_own_leaves_nobody_without_an_answer(
    model: Model, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """A thread that died of it would take every later request along."""

    def broken(*_: object) -> None:
        raise RuntimeError("ours")

    pod = Pod(model)
    monkeypatch.setattr(*((pod.size, "note") if where == "size" else (model, "read")), broken)
    jobs = pod.held("a", "b") if where == "size" else pod.submit("a", "b")
    model.open.set()
    until(lambda: all(bodies(jobs)))
    later = pod.submit("c")
    until(lambda: all(bodies(later)))
    assert bodies(later) == ["MLflow's own"]
    assert (pod.batcher.doubt is None) == (where == "read"), "MLflow's own way can tell what is off"


class Own:
    """Stands for MLflow's own way, in the threads of a pool."""

    version = "0"
    timeout_s = float(WAIT_S)

    def carry_out(self, job: Job) -> None:
        job.answer = Answer("MLflow's own", 200)


async def test_who_waits_behind_a_hanging_batch_is_noticed(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "STUCK_S", 0.2)
    monkeypatch.setattr(dispatch, "WATCH_EACH_S", 0.05)
    way = dispatch.Dispatch(Own(), Pool(2, 0), lambda _: None)
    ways = Ways(lambda _: None, way.alone, way.answered, lambda _: None)
    way.batch(Batcher(model, BatchSize(GROWS), ways, 10))  # type: ignore[arg-type]
    model.open.clear()
    waiting = [asyncio.get_running_loop().create_future() for _ in "ab"]
    for waiter in waiting:
        way.submit(Job(b"a", "", waiter))
        await asyncio.to_thread(until, lambda: model.asked == [["a"]])
    assert (await asyncio.wait_for(waiting[1], WAIT_S)).body == "MLflow's own"
    model.open.set()
    assert (await asyncio.wait_for(waiting[0], WAIT_S)).body == '{"predictions": ["a"]}'


def test_no_more_are_held_than_said(model: Model) -> None:
    pod = Pod(model, held_max=3)
    pod.held("a", "b", "c")
    with pytest.raises(Exhausted, match="holds 3 requests"):
        pod.submit("d")


async def test_a_request_given_up_is_not_asked(model: Model) -> None:
    pod = Pod(model)
    pod.held("a")
    waiting = [asyncio.get_running_loop().create_future() for _ in "bc"]
    jobs = [Job(body, "", waiter) for body, waiter in zip((b"b", b"c"), waiting, strict=True)]
    for job in jobs:
        pod.batcher.submit(job)
    waiting[0].cancel()
    pod.wait(2)
    assert model.asked == [["a"], ["c"]]
