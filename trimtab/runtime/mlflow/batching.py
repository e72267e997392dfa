"""Requests that wait while a prediction runs are predicted together.

    submit ──▶ waiting ──▶ one thread: read, join, predict, part, answer

A lone request is taken at once. What came meanwhile is the next batch, up to what `batch_size` finds
worth its wait. Nothing is configured: `independence` has shown at load time that it is allowed and pays,
and it ends for good at the first doubt. Then, and for whatever the fast path is not sure of, `alone` is
where requests go.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

from trimtab.core.errors import Exhausted
from trimtab.runtime.mlflow.answer import Answer
from trimtab.runtime.mlflow.batch_size import BatchSize
from trimtab.runtime.mlflow.dispatch import Ways
from trimtab.runtime.mlflow.failure import said
from trimtab.runtime.mlflow.fast.path import FastPath, NotRows, apart, written, written_apart
from trimtab.runtime.mlflow.job import Job, now_s
from trimtab.runtime.mlflow.log import report, say

STUCK_S = 2.0  # twenty times what a batch may take


class Batcher:
    """The one thread that predicts in batches, and those who wait for it."""

    def __init__(self, fast: FastPath, size: BatchSize, ways: Ways, held_max: int) -> None:
        self._fast = fast
        self._size = size
        self._ways = ways
        self._held_max = held_max
        self._waiting: deque[Job] = deque()
        self._lock = threading.Lock()
        self._wake = threading.Lock()  # held, but for the moment in which it wakes the thread
        self._wake.acquire()
        self._awake = False
        self._batch_s: float | None = None  # when the one that runs began
        self.running = 0
        self.doubt: str | None = None  # why it ended
        threading.Thread(target=self._run, name="batch", daemon=True).start()

    @property
    def queued(self) -> int:
        """Requests that wait for the next batch."""
        return len(self._waiting)

    @property
    def longest_s(self) -> float:
        """For how long the batch that runs has done so; 0 if none does."""
        began_s = self._batch_s
        return 0.0 if began_s is None else now_s() - began_s

    @property
    def slowest_s(self) -> float:
        """0: a batch that takes STUCK_S is the last one."""
        return 0.0

    def submit(self, job: Job) -> None:
        """Take a job. Raises Exhausted if too many are held already."""
        with self._lock:
            held = len(self._waiting) + self.running
            if held >= self._held_max:
                raise Exhausted(f"this pod holds {held} requests already", hint="try again in a second")
            self._waiting.append(job)
            if self._awake:
                return
            self._awake = True
        self._wake.release()

    def relieve(self) -> bool:
        """Whether a batch runs far too long: then those who wait go elsewhere, and it was the last one."""
        longest_s = self.longest_s
        if longest_s < STUCK_S:
            return False
        self._end(f"a batch of {self.running} has run for {longest_s:.1f} s")
        self._clear()
        return True

    def _run(self) -> None:
        while True:
            self._wake.acquire()
            while batch := self._next():
                try:
                    self._predict(batch)
                except BaseException as error:  # noqa: BLE001  whoever waits must not wait for a dead thread
                    self._broken(batch, error)
                self.running = 0

    def _next(self) -> list[Job]:
        """The next batch; [] if nobody waits."""
        taken_s = self._batch_s = now_s()
        batch: list[Job] = []
        rows = 0
        while job := self._first(asleep=not batch):
            if self.doubt is not None or not self._read(job):
                job.slow = self.doubt is None
                self._ways.alone(job)
                continue
            assert job.question is not None
            if batch and not self._fits(job, batch[0], rows):
                with self._lock:
                    self._waiting.appendleft(job)
                break
            batch.append(job)
            rows += job.question.rows
            self.running = len(batch)
        for job in batch:
            job.queue_s = taken_s - job.created_s
        if not batch:
            self._batch_s = None
        return batch

    def _first(self, asleep: bool) -> Job | None:
        """Whoever has waited longest and still does; None if nobody: if `asleep`, the next wakes us."""
        with self._lock:
            while self._waiting:
                job = self._waiting.popleft()
                if not job.given_up:
                    return job
            if asleep:
                self._awake = False
            return None

    def _read(self, job: Job) -> bool:
        if job.question is None:
            try:  # noqa: SIM105  `suppress` takes as long as a quarter of the rest
                job.question = job.read(self._fast)
            except Exception:  # noqa: BLE001,S110  then MLflow's own way says what is off
                pass
        return job.question is not None

    def _fits(self, job: Job, first: Job, rows: int) -> bool:
        ours, theirs = job.question, first.question
        assert ours is not None
        assert theirs is not None
        if ours.params is not None or theirs.params is not None or ours.layout != theirs.layout:
            return False
        return rows + ours.rows <= self._size.rows_max

    def _predict(self, batch: list[Job]) -> None:
        began_s = now_s()
        for job in batch:
            job.batch_s = began_s - job.created_s - job.queue_s
        questions = [job.question for job in batch if job.question is not None]
        counts = [question.rows for question in questions]
        try:
            raw = self._fast.predict(questions)
            answers = _answers(batch, raw, counts)
        except NotRows as error:
            self._end(f"asked for {len(batch)} requests together it answered with a {error}")
            self._one_by_one(batch)
        except BaseException as error:  # noqa: BLE001  the model's own code runs here
            self._failed(batch, error)
        else:
            took_s = now_s() - began_s
            self._done(batch, answers, took_s)
            self._ways.batched(len(batch))
            self._size.note(sum(counts), took_s)
            if not self._size.pays:
                self._end("rows take as long together as one by one")

    def _done(self, batch: Sequence[Job], answers: Sequence[Answer], took_s: float) -> None:
        for job, answer in zip(batch, answers, strict=True):
            job.predict_s = took_s
            job.answer = answer
        self._ways.answered(batch)

    def _failed(self, batch: list[Job], error: BaseException) -> None:
        """One of them may be poison to the others: if none is, it was batching that failed."""
        if len(batch) == 1:
            self._refused(batch[0], error)
        elif self._one_by_one(batch) == 0:
            self._end(f"{len(batch)} requests that pass alone raised {said(error)} together")

    def _one_by_one(self, batch: list[Job]) -> int:
        """Ask each by itself; how many failed. Those go to `alone`, which has MLflow's words for it."""
        failed = 0
        for job in batch:
            assert job.question is not None
            began_s = now_s()
            try:
                answer = job.written(self._fast.predict([job.question]), written)
            except BaseException as error:  # noqa: BLE001
                failed += 1
                self._refused(job, error)
            else:
                self._done([job], [answer], now_s() - began_s)
        return failed

    def _refused(self, job: Job, error: BaseException) -> None:
        """The model failed on this one alone: in MLflow's words, which may mean to ask it once more."""
        job.answer = self._ways.failure(error)
        if job.answer is None:
            job.slow = True
            self._ways.alone(job)
        else:
            self._ways.answered([job])

    def _broken(self, batch: Sequence[Job], error: BaseException) -> None:
        """It was neither the model nor a request: batching itself failed."""
        report(error)
        self._end(f"it failed itself: {said(error)}")
        for job in batch:
            if job.answer is None:
                self._ways.alone(job)
            else:
                self._ways.answered([job])

    def _end(self, doubt: str) -> None:
        if self.doubt is None:
            self.doubt = doubt
            say(f"batching ends: {doubt}")

    def _clear(self) -> None:
        while job := self._first(asleep=False):
            self._ways.alone(job)


def _answers(batch: Sequence[Job], raw: Any, counts: Sequence[int]) -> list[Answer]:
    """To each job its rows' answer. Raises NotRows, or what cannot be written."""
    if len(batch) == 1:
        return [batch[0].written(raw, written)]
    if all(type(job) is Job for job in batch):
        return [Answer(text, 200) for text in written_apart(raw, counts)]
    return [job.written(part, written) for job, part in zip(batch, apart(raw, counts), strict=True)]
