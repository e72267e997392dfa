"""One request on its way to the model and back, and how long it took where."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol

from trimtab.runtime.mlflow.answer import Answer

if TYPE_CHECKING:
    from trimtab.runtime.mlflow.fast.path import Question

now_s: Callable[[], float] = time.perf_counter


class Waiter(Protocol):
    """Who waits for an answer, in the event loop: a future, or what does as one."""

    def done(self) -> bool: ...

    def set_result(self, result: Answer, /) -> None: ...

    def get_loop(self) -> asyncio.AbstractEventLoop: ...


class Job:
    """Made in the event loop, carried out in a thread, and answered in the event loop.

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

    def leave_queue(self) -> None:
        """Nobody waits any more: give the place back, if it has not begun."""
        if self.handle is not None:
            self.handle.cancel()
