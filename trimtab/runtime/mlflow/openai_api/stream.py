"""A model's answer in parts: its `predict_stream`, in a thread of the pool for as long as it lasts.

What it yields waits in a short queue for the client: a slow one holds the model back, and one that leaves
ends it at its next part. A model without streams is asked for its whole answer, which is then the only part.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Generator
from typing import Any

from trimtab.runtime.mlflow.answer import Answer
from trimtab.runtime.mlflow.job import Waiter, now_s
from trimtab.runtime.mlflow.openai_api.calls import CHAT, RESPONSES
from trimtab.runtime.mlflow.openai_api.job import Asked, CallJob, completed
from trimtab.runtime.mlflow.scoring import Scorer, raised_by

PARTS_WAITING_MAX = 64
MOVES_EACH_S = 1.0


class StreamJob(CallJob):
    """`parts` gets each part as it comes. The answer comes behind the last and says whether all went well."""

    __slots__ = ("_left", "_loop", "_moves", "_room", "parts")

    def __init__(self, asked: Asked, answered: Waiter, moves: Callable[[], None]) -> None:
        """`moves` is called in the thread that predicts, for as long as the stream goes on."""
        super().__init__(asked, answered)
        self._moves = moves
        self.parts: asyncio.Queue[str | None] = asyncio.Queue()  # None: there is an answer
        self._loop = answered.get_loop()
        self._room = threading.Semaphore(PARTS_WAITING_MAX)
        self._left = threading.Event()

    def taken(self) -> None:
        """A part is on its way to the client: there is room for one more."""
        self._room.release()

    def leave(self) -> None:
        """Nobody wants any more of it."""
        self._left.set()
        self._room.release()
        self.leave_queue()

    def asked_of(self, scorer: Scorer) -> Answer:
        """The answer, once all parts were sent. Raises nothing."""
        began_s = now_s()
        try:
            answer = self._streamed(scorer)
        except BaseException as error:  # noqa: BLE001  the model's own code runs here
            answer = raised_by(error)
        self.predict_s = now_s() - began_s
        return answer

    def _streamed(self, scorer: Scorer) -> Answer:
        """Raises whatever the model does."""
        common = _common(self.asked)
        try:
            with contextlib.closing(_parts(scorer, self.asked.body)) as parts:
                for part in parts:
                    if not self._send({**common, **{k: v for k, v in part.items() if v is not None}}):
                        break
        except _NoStreams:
            return self._at_once(scorer)
        return Answer("", 200)

    def _at_once(self, scorer: Scorer) -> Answer:
        answer = super().asked_of(scorer)
        if answer.status == 200:
            self._send(_as_part(json.loads(answer.body), self.asked))
        return answer

    def _send(self, part: dict[str, Any]) -> bool:
        """Hand a part over, once there is room for it; whether anybody still wants one."""
        text = json.dumps(part)
        self._moves()
        while not self._room.acquire(timeout=MOVES_EACH_S):
            self._moves()  # the client is slow, not the model
        if self._left.is_set():
            return False
        with contextlib.suppress(RuntimeError):  # the loop has ended, and everybody with it
            self._loop.call_soon_threadsafe(self.parts.put_nowait, text)
        return True


class _NoStreams(Exception):
    """The model answers whole."""


def _parts(scorer: Scorer, body: dict[str, Any]) -> Generator[Any, None, None]:
    """What the model yields. Raises _NoStreams before the first one, or what the model raises."""
    predict = getattr(scorer.model, "predict_stream", None)  # since MLflow 2.12
    if predict is None or getattr(scorer.model, "_predict_stream_fn", predict) is None:
        raise _NoStreams
    yielded = False
    try:
        for part in predict(body):
            yield part
            yielded = True
    except NotImplementedError as error:
        if yielded:
            raise
        raise _NoStreams from error


def _common(asked: Asked) -> dict[str, Any]:
    """What all parts of one stream have in common, where the model does not say it. Events have nothing."""
    if asked.call is RESPONSES:
        return {}
    return completed({}, asked) or {}


def _as_part(told: dict[str, Any], asked: Asked) -> dict[str, Any]:
    """A whole answer as the one part of a stream."""
    if asked.call is RESPONSES:
        return {"type": asked.call.chunk, "response": told}
    choices = told.get("choices") or []
    if asked.call is CHAT:
        choices = [_delta(choice) for choice in choices]
    return {**told, "object": asked.call.chunk, "choices": choices}


def _delta(choice: dict[str, Any]) -> dict[str, Any]:
    return {("delta" if name == "message" else name): value for name, value in choice.items()}
