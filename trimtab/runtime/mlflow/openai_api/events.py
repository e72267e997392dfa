"""A streamed call between its client and its job: server-sent events, as OpenAI has them."""

from __future__ import annotations

import asyncio

from starlette.types import Receive, Scope, Send

from trimtab.core.errors import Exhausted
from trimtab.runtime.mlflow import wording
from trimtab.runtime.mlflow.answer import Answer
from trimtab.runtime.mlflow.dispatch import Dispatch, no_room
from trimtab.runtime.mlflow.http import ABORT
from trimtab.runtime.mlflow.invocation import LEFT, STOPPED, TIMED_OUT, ClientLeft, head
from trimtab.runtime.mlflow.openai_api.calls import RESPONSES
from trimtab.runtime.mlflow.openai_api.job import Asked
from trimtab.runtime.mlflow.openai_api.stream import StreamJob
from trimtab.runtime.mlflow.telemetry import REQUEST_ID, header, request_id

EVENTS = "text/event-stream; charset=utf-8"
DONE = "[DONE]"
TAKEN_WITHIN_S = 300.0  # a client that takes nothing for longer has left; Envoy's bound is its timeout


class Stream:
    """One call. `status` and `answer`, which says whether all went well, are what became of it."""

    def __init__(self, asked: Asked, dispatch: Dispatch, scope: Scope, receive: Receive, send: Send) -> None:
        self.status = LEFT
        self.answer: Answer | None = None
        self.given_id = request_id(header(scope["headers"], REQUEST_ID))
        self._answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.job = job = StreamJob(asked, self._answered, dispatch.moves)
        self._answered.add_done_callback(lambda _: job.parts.put_nowait(None))  # whoever answers, and why
        self._dispatch = dispatch
        self._receive = receive
        self._send = send
        self._abort = scope.get(ABORT, lambda: None)

    async def run(self) -> None:
        """Ask, and send what comes. Each part must come within the model's time for a whole answer."""
        gone = asyncio.create_task(self._gone())
        try:
            self._dispatch.submit(self.job)
            await self._relay(gone, self._dispatch.timeout_s)
        except Exhausted as full:
            await self._end(no_room(full))
        except asyncio.CancelledError:  # the server's grace period is over
            await self._end(STOPPED)
        except ClientLeft:
            pass
        finally:
            gone.cancel()
            self._answered.cancel()
            self.job.leave()

    async def _relay(self, gone: asyncio.Task[None], timeout_s: float) -> None:
        part = await self._next(gone, timeout_s)
        while isinstance(part, str):
            if self.status == LEFT:
                await self._begin(Answer("", 200, EVENTS))
            await self._event(part, more=True)
            part = await self._next(gone, timeout_s)
        await self._end(part)

    async def _next(self, gone: asyncio.Task[None], timeout_s: float) -> str | Answer:
        """The next part, or the answer behind the last one. Raises ClientLeft."""
        coming = asyncio.ensure_future(self.job.parts.get())
        try:
            await asyncio.wait({coming, gone}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                raise ClientLeft
            if not coming.done():
                return TIMED_OUT
            part = coming.result()
        finally:
            coming.cancel()
        if part is None:
            return await self._answered
        self.job.taken()
        return part

    async def _end(self, answer: Answer) -> None:
        """Behind the last part. What went wrong is an event then, and has a status of its own before any."""
        self.answer = answer
        worded = wording.openai(answer)
        if answer.fault is None:
            if self.status == LEFT:
                await self._begin(Answer("", 200, EVENTS))
            await self._event(DONE if self.job.asked.call is not RESPONSES else None)
        elif self.status == LEFT:
            await self._begin(worded, len(worded.encoded()))
            await self._send({"type": "http.response.body", "body": worded.encoded()})
        else:
            await self._event(worded.body)

    async def _begin(self, answer: Answer, length: int | None = None) -> None:
        self.status = answer.status
        headers = head(answer, None, length or 0, self.given_id)
        if length is None:  # nobody knows it
            headers = [pair for pair in headers if pair[0] != b"content-length"]
        await self._send({"type": "http.response.start", "status": answer.status, "headers": headers})

    async def _event(self, data: str | None, *, more: bool = False) -> None:
        body = b"" if data is None else b"data: " + data.encode() + b"\n\n"
        message = {"type": "http.response.body", "body": body, "more_body": more}
        try:
            await asyncio.wait_for(self._send(message), TAKEN_WITHIN_S)
        except asyncio.TimeoutError:  # noqa: UP041  not the built-in one before Python 3.11
            self._abort()  # what it was sent is not waited for
            raise ClientLeft from None

    async def _gone(self) -> None:
        """Returns when the client has left."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
