"""Which way a request goes to the model: together with others, alone on the fast path, or MLflow's own.

submit ─▶ batching, if it is allowed, pays and has not ended ─▶ ┐
       ─▶ a thread of the pool: fast if sure, else MLflow's way ─▶ answered, in the event loop
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from trimtab.core.errors import Exhausted
from trimtab.runtime.mlflow.answer import Answer, Fault, error
from trimtab.runtime.mlflow.job import Job, now_s
from trimtab.runtime.mlflow.liveness import Working
from trimtab.runtime.mlflow.log import report
from trimtab.runtime.mlflow.pool import Pool

if TYPE_CHECKING:
    from trimtab.runtime.mlflow.batching import Batcher

WATCH_EACH_S = 0.5  # while requests wait for a batch
BROKEN = error(500, "INTERNAL_ERROR", "The pod failed to ask the model; see its log.", Fault.PLATFORM)


class Answering(Protocol):
    """A loaded model (`scoring.Scorer`, `quick.Quick`)."""

    version: str
    timeout_s: float

    def carry_out(self, job: Job) -> None:
        """Give the job its answer, in the thread that calls. Raises nothing."""
        ...


@dataclass(frozen=True)
class Ways:
    """Where a batch's jobs go. None of these raises.

    `failure` is MLflow's answer to what the model raised, if known; `alone` takes a job elsewhere;
    `answered` takes those that have their answer; `batched` is told how many went together.
    """

    failure: Callable[[BaseException], Answer | None]
    alone: Callable[[Job], None]
    answered: Callable[[Sequence[Job]], None]
    batched: Callable[[float], None]


class Dispatch:
    """Gets each job an answer. `submit` is called in the event loop, the rest from anywhere."""

    def __init__(
        self,
        model: Answering,
        pool: Pool,
        observe: Callable[[float], None],
        observe_whole: Callable[[float], None] = lambda _: None,
    ) -> None:
        """`observe` is told how many seconds each job held a thread, `observe_whole` how many it was here."""
        self.version = model.version
        self.timeout_s = model.timeout_s
        self.working: list[Working] = [pool]
        self._model = model
        self._pool = pool
        self._observe = observe
        self._observe_whole = observe_whole
        self._batcher: Batcher | None = None
        self._watched = False
        self._process = os.getpid()

    def batch(self, batcher: Batcher) -> None:
        """Predict requests together from now on."""
        self._batcher = batcher
        self.working.append(batcher)

    def moves(self) -> None:
        """Called by a job in its thread: it is long, and goes on."""
        self._pool.moves()

    def submit(self, job: Job) -> None:
        """Begin with a job. Raises Exhausted at once if there is no room for it."""
        batcher = self._batcher
        if batcher is None or batcher.doubt is not None:
            job.handle = self._pool.submit(functools.partial(self._carry_out, job))
            return
        batcher.submit(job)
        if not self._watched:
            self._watch(batcher)

    def alone(self, job: Job) -> None:
        """Carry out a job in a thread of the pool; answer that there is no room if so."""
        try:
            job.handle = self._pool.submit(functools.partial(self._carry_out, job))
        except Exhausted as full:
            job.answer = no_room(full)
            self.answered([job])

    def answered(self, jobs: Sequence[Job]) -> None:
        """Hand answers over to the event loop. Those whose loop has ended need none."""
        if os.getpid() != self._process:
            os._exit(1)  # the model forked, and its child came back here: it would hold all connections open
        with contextlib.suppress(RuntimeError):
            jobs[0].answered.get_loop().call_soon_threadsafe(self._deliver, jobs)

    def _carry_out(self, job: Job) -> None:
        job.queue_s = now_s() - job.created_s
        try:
            self._model.carry_out(job)
        except BaseException as error:  # noqa: BLE001  our own mistake; without an answer it would wait for ever
            report(error)
        if job.answer is None:
            job.answer = BROKEN
        self.answered([job])

    def _deliver(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            self._observe(job.batch_s + job.predict_s)
            self._observe_whole(now_s() - job.created_s)
            if not job.answered.done():
                assert job.answer is not None
                job.answered.set_result(job.answer)

    def _watch(self, batcher: Batcher) -> None:
        """Look again and again whether the batch that others wait for ends."""
        self._watched = bool(batcher.queued) and not batcher.relieve()
        if self._watched:
            asyncio.get_running_loop().call_later(WATCH_EACH_S, self._watch, batcher)


def no_room(full: Exhausted) -> Answer:
    """The answer to a request that the pod does not take."""
    message = f"{full.message}; {full.hint}"
    return error(503, "TEMPORARILY_UNAVAILABLE", message, Fault.PLATFORM)
