"""The hot route: one POST /invocations, in plain ASGI. Starlette would take longer than the prediction."""

from __future__ import annotations

import asyncio

from starlette.types import Message, Receive, Scope, Send

from trimtab.core.errors import Exhausted
from trimtab.runtime.mlflow.answer import FAULT_HEADER, JSON, TEXT, Answer, Fault, error
from trimtab.runtime.mlflow.dispatch import Dispatch, no_room
from trimtab.runtime.mlflow.job import Job, Waiter
from trimtab.runtime.mlflow.metrics import Meter
from trimtab.runtime.mlflow.routes import INVOCATIONS
from trimtab.runtime.mlflow.telemetry import REQUEST_ID, Telemetry, header, request_id

ROUTE = INVOCATIONS
BODY_BYTES_MAX = 16 << 20  # Envoy's bound too; a direct caller meets it here
RETRY_AFTER_S = 1

LOADING = error(503, "TEMPORARILY_UNAVAILABLE", "The model is still loading.", Fault.PLATFORM)
TOO_LARGE = error(
    413, "BAD_REQUEST", f"The request's body is larger than {BODY_BYTES_MAX >> 20} MiB.", Fault.CALLER
)
STOPPED = error(
    503, "TEMPORARILY_UNAVAILABLE", "The pod was stopped before the model answered.", Fault.PLATFORM
)
TIMED_OUT = Answer("Request processing time exceeded limit", 504, JSON, Fault.MODEL)

_MEDIA_TYPES = {JSON: JSON.encode(), TEXT: f"{TEXT}; charset=utf-8".encode()}
_FAULTS = {fault: (FAULT_HEADER.encode(), fault.value.encode()) for fault in Fault}
LEFT = 499  # nginx's word for a client that left before its answer


class Invocations:
    """Answers 503 until it is handed a dispatch. Other protocols override the three below."""

    route = ROUTE

    def job(self, scope: Scope, body: bytes, answered: Waiter) -> Job | Answer:
        """What the body asks, or why it cannot be asked."""
        return Job(body, _content_type(scope), answered)

    def worded(self, answer: Answer) -> Answer:
        """An answer in the protocol's words."""
        return answer

    def __init__(self, meter: Meter, telemetry: Telemetry) -> None:
        self._meter = meter
        self._telemetry = telemetry
        self.dispatch: Dispatch | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        began_s = self._meter.begin(self.route)
        status = LEFT
        answer: Answer | None = None
        job: Job | None = None
        given_id = request_id(header(scope["headers"], REQUEST_ID))
        try:
            answer, job = await self._answer(scope, receive)
            if answer is not None:
                worded = self.worded(answer)
                status = worded.status
                if answer.fault is not None:
                    self._meter.fault(answer.fault)
                body = worded.encoded()
                headers = head(worded, job, len(body), given_id)
                await send({"type": "http.response.start", "status": status, "headers": headers})
                await send({"type": "http.response.body", "body": body})
        finally:
            took_s = self._meter.end("POST", self.route, status, began_s)
            fault = answer.fault if answer is not None else None
            self._telemetry.ended(
                "POST", self.route, status, took_s, scope["headers"], given_id, answer, fault, job
            )

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[Answer | None, Job | None]:
        """The answer, None if the client has left; and the job, if there was one."""
        dispatch = self.dispatch
        if dispatch is None:
            return LOADING, None
        deadline = _Deadline(dispatch.timeout_s)
        job: Job | None = None
        try:
            body = await body_of(scope, receive)
            answered = deadline.loop.create_future()
            asked = TOO_LARGE if body is None else self.job(scope, body, answered)
            if isinstance(asked, Answer):
                return asked, None
            job = asked
            dispatch.submit(job)
            return await answered, job
        except ClientLeft:
            return None, None
        except Exhausted as full:
            return no_room(full), job
        except asyncio.CancelledError:
            if job is not None:
                job.leave_queue()
            return (TIMED_OUT if deadline.passed() else STOPPED), job
        finally:
            deadline.end()


class ClientLeft(Exception):
    """The client left before its request was complete."""


class _Deadline:
    """Cancels the current task after `seconds`. What else cancels it is the server's grace period."""

    __slots__ = ("_fired", "_handle", "_task", "loop")

    def __init__(self, seconds: float) -> None:
        self.loop = asyncio.get_running_loop()
        self._task = asyncio.current_task(self.loop)
        self._fired = False
        self._handle = self.loop.call_later(seconds, self._fire)

    def end(self) -> None:
        self._handle.cancel()

    def passed(self) -> bool:
        """Whether it was the deadline that cancelled."""
        uncancel = getattr(self._task, "uncancel", None)  # since Python 3.11
        if self._fired and uncancel is not None:
            uncancel()
        return self._fired

    def _fire(self) -> None:
        self._fired = True
        if self._task is not None:
            self._task.cancel()


async def body_of(scope: Scope, receive: Receive) -> bytes | None:
    """The request's body; None as soon as it is known to be too large. Raises ClientLeft."""
    if int(header(scope["headers"], b"content-length") or 0) > BODY_BYTES_MAX:
        return None
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        body: bytes = message.get("body", b"")
        return body if len(body) <= BODY_BYTES_MAX else None
    return await _parts(message, receive)


async def _parts(message: Message, receive: Receive) -> bytes | None:
    parts: list[bytes] = []
    length = 0
    while message["type"] == "http.request":
        part = message.get("body", b"")
        length += len(part)
        if length > BODY_BYTES_MAX:
            return None
        parts.append(part)
        if not message.get("more_body"):
            return b"".join(parts)
        message = await receive()
    raise ClientLeft


def _content_type(scope: Scope) -> str:
    return header(scope["headers"], b"content-type").decode("latin-1")


def head(answer: Answer, job: Job | None, length: int, given_id: bytes) -> list[tuple[bytes, bytes]]:
    """The headers of an answer of `length` bytes; `given_id` is the request's id."""
    headers = [
        (b"content-type", _MEDIA_TYPES.get(answer.media_type) or answer.media_type.encode()),
        (b"content-length", b"%d" % length),
        (REQUEST_ID, given_id),
        *answer.headers,
    ]
    if job is not None:
        spans = (1000 * job.queue_s, 1000 * job.batch_s, 1000 * job.predict_s)
        headers.append((b"server-timing", b"queue;dur=%.3f, batch;dur=%.3f, predict;dur=%.3f" % spans))
    if answer.fault is not None:
        headers.append(_FAULTS[answer.fault])
    if answer.status == 503 and answer is not STOPPED:  # that one the model may have seen
        headers.append((b"retry-after", b"%d" % RETRY_AFTER_S))
    return headers
