"""One request on its way to the model and back, and how long it took where."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol

from trimtab.runtime.mlflow.answer import Answer

if TYPE_CHECKING:
    from trimtab.runtime.mlflow.fast.path import FastPath, Question
    from trimtab.runtime.mlflow.scoring import Scorer

now_s: Callable[[], float] = time.perf_counter


class Waiter(Protocol):
    """Who waits for an answer, in the event loop: a future, or what does as one."""

    def done(self) -> bool: ...

    def set_result(self, result: Answer, /) -> None: ...

    def get_loop(self) -> asyncio.AbstractEventLoop: ...


class Job:
    """Made in the event loop, carried out in a thread, and answered in the event loop.

    This one is a request of MLflow's protocol; other protocols' override `read`, `asked_of` and `written`.

    The three spans, in seconds: `queue_s` until a thread took it, `batch_s` while it was read and put
    together with others, `predict_s` in the model and until its answer was written.
    """

    __slots__ = (
        "answer",
        "answered",
        "batch_s",
        "body",
        "content_type",
        "created_s",
        "handle",
        "predict_s",
        "question",
        "queue_s",
        "slow",
    )

    def __init__(self, body: bytes, content_type: str, answered: Waiter) -> None:
        self.body = body
        self.content_type = content_type
        self.answered = answered
        self.created_s = now_s()
        self.queue_s = self.batch_s = self.predict_s = 0.0
        self.question: Question | None = None
        self.slow = False  # only MLflow's own way is left
        self.answer: Answer | None = None
        self.handle: Future[Any] | None = None

    @property
    def given_up(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self.answered.done()

    def read(self, fast: FastPath) -> Question | None:
        """What is asked, for the fast path; None if that is for MLflow to say."""
        return fast.read(self.body, self.content_type)

    def asked_of(self, scorer: Scorer) -> Answer:
        """The answer by MLflow's own way. Raises nothing."""
        return scorer.answer(self.body, self.content_type)

    def written(self, raw: Any, plain: Callable[[Any], str]) -> Answer:
        """The answer of which the model returned `raw`; `plain` is MLflow's way to write it."""
        return Answer(plain(raw), 200)

    def leave_queue(self) -> None:
        """Nobody waits any more: give the place back, if it has not begun."""
        if self.handle is not None:
            self.handle.cancel()
