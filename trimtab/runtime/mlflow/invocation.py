"""The hot route: one POST /invocations, in plain ASGI. Starlette would take longer than the prediction."""

from __future__ import annotations

import asyncio
import secrets

from starlette.types import Message, Receive, Scope, Send

from trimtab.core.errors import Exhausted
from trimtab.runtime.mlflow.answer import FAULT_HEADER, JSON, TEXT, Answer, Fault, error
from trimtab.runtime.mlflow.dispatch import Dispatch, no_room
from trimtab.runtime.mlflow.job import Job
from trimtab.runtime.mlflow.metrics import Meter

ROUTE = "/invocations"
BODY_BYTES_MAX = 16 << 20  # Envoy's bound too; a direct caller meets it here
RETRY_AFTER_S = 1
REQUEST_ID_MAX = 128  # characters of a caller's own

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
    """Answers 503 until `open` hands it a model."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self.dispatch: Dispatch | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, as ASGI has it."""
        began_s = self._meter.begin(ROUTE)
        status = LEFT
        try:
            answer, job = await self._answer(scope, receive)
            if answer is not None:
                status = answer.status
                if answer.fault is not None:
                    self._meter.fault(answer.fault)
                body = answer.body.encode()
                headers = head(answer, job, len(body), _header(scope, b"x-request-id") or b"")
                await send({"type": "http.response.start", "status": status, "headers": headers})
                await send({"type": "http.response.body", "body": body})
        finally:
            self._meter.end("POST", ROUTE, status, began_s)

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[Answer | None, Job | None]:
        """The answer, None if the client has left; and the job, if there was one."""
        dispatch = self.dispatch
        if dispatch is None:
            return LOADING, None
        deadline = _Deadline(dispatch.timeout_s)
        job: Job | None = None
        try:
            body = await _body(scope, receive)
            if body is None:
                return TOO_LARGE, None
            answered = deadline.loop.create_future()
            job = Job(body, _content_type(scope), answered)
            dispatch.submit(job)
            return await answered, job
        except _Left:
            return None, None
        except Exhausted as full:
            return no_room(full), job
        except asyncio.CancelledError:
            if job is not None:
                job.leave_queue()
            return (TIMED_OUT if deadline.passed() else STOPPED), None
        finally:
            deadline.end()


class _Left(Exception):
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


async def _body(scope: Scope, receive: Receive) -> bytes | None:
    """The request's body; None as soon as it is known to be too large. Raises _Left."""
    if int(_header(scope, b"content-length") or 0) > BODY_BYTES_MAX:
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
    raise _Left


def _content_type(scope: Scope) -> str:
    return (_header(scope, b"content-type") or b"").decode("latin-1")


def _header(scope: Scope, wanted: bytes) -> bytes | None:
    for name, value in scope["headers"]:
        if name == wanted:
            found: bytes = value
            return found
    return None


def head(answer: Answer, job: Job | None, length: int, given_id: bytes) -> list[tuple[bytes, bytes]]:
    """The headers of an answer of `length` bytes; `given_id` is the caller's own request id, or nothing."""
    headers = [
        (b"content-type", _MEDIA_TYPES[answer.media_type]),
        (b"content-length", b"%d" % length),
        (b"x-request-id", request_id(given_id)),
    ]
    if job is not None:
        spans = (1000 * job.queue_s, 1000 * job.batch_s, 1000 * job.predict_s)
        headers.append((b"server-timing", b"queue;dur=%.3f, batch;dur=%.3f, predict;dur=%.3f" % spans))
    if answer.fault is not None:
        headers.append(_FAULTS[answer.fault])
    if answer.status == 503 and answer is not STOPPED:  # that one the model may have seen
        headers.append((b"retry-after", b"%d" % RETRY_AFTER_S))
    return headers


def request_id(given: bytes) -> bytes:
    """The caller's, or a new one if there is none that could be sent back."""
    if given and len(given) <= REQUEST_ID_MAX and given.isascii() and given.decode().isprintable():
        return given
    return secrets.token_hex(16).encode()
