"""uvicorn's HTTP protocol with a lane of its own for predictions.

A prediction of a small model takes less than what ASGI spends around it: a task, an event, a scope, two
messages and two system calls to write. So a plain POST /invocations is taken from the parser to the
dispatch and back in callbacks, and its answer leaves in one write. Whatever is not plain (a body of
unknown length, a request behind another one, `Expect`, a model that still loads) goes the ASGI way,
with the same answers.

The ASGI way hands on a body in parts of 64 KiB, and stops reading until each is taken. All that is asked of a
pod needs its body whole: one of a known length that may be taken is given over as one.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from trimtab.core.errors import Exhausted
from trimtab.runtime.catalog.base import KEEP_ALIVE_S
from trimtab.runtime.mlflow.answer import Answer
from trimtab.runtime.mlflow.dispatch import no_room
from trimtab.runtime.mlflow.invocation import (
    BODY_BYTES_MAX,
    LEFT,
    ROUTE,
    STOPPED,
    TIMED_OUT,
    head,
)
from trimtab.runtime.mlflow.job import Job
from trimtab.runtime.mlflow.service import Service
from trimtab.runtime.mlflow.telemetry import REQUEST_ID, header, request_id

CONTINUE = b"HTTP/1.1 100 "
ABORT = "trimtab.abort"  # in a scope: ends the connection at once, whatever is left to send
HEAD_WITHIN_S = KEEP_ALIVE_S  # and at most twice that; Envoy closes what it does not use before
LEAVES = object()  # no head
_ROUTE = ROUTE.encode()


class PodProtocol(HttpToolsProtocol):
    """What the pod's server speaks."""

    _in_head = True  # what comes is a request's head, or nothing yet
    _head: Any = None  # the one that was coming at the last look
    _parts: list[bytes] | None = None  # of a body of known length that comes, but for the lane's
    _look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Uvicorn waits for ever for a head that comes slowly, or never: see to it that it does not."""
        super().connection_made(transport)
        self._look = self.loop.call_later(HEAD_WITHIN_S, self._end_if_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any more."""
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)

    def _end_if_late(self) -> None:
        """Close if the head that was coming at the last look still is; each request has a list of its own."""
        if self._in_head and self.headers is self._head:
            self.transport.close()
            return
        self._head = self.headers if self._in_head else LEAVES
        self._look = self.loop.call_later(HEAD_WITHIN_S, self._end_if_late)

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Take the lane if this is a plain prediction."""
        self._in_head = False
        length = self._length()
        self._parts = None if length is None else []
        if not self._is_plain(length):
            super().on_headers_complete()
            return
        service: Any = self.app
        self.cycle = Lane(self, service)  # type: ignore[assignment]

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        cycle: Any = self.cycle
        if type(cycle) is Lane:
            cycle.parts.append(body)
        elif self._parts is not None:
            self._parts.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete."""
        cycle: Any = self.cycle
        if type(cycle) is Lane:
            cycle.submit()
            return
        if self._parts:
            super().on_body(b"".join(self._parts))
        self._parts = None
        super().on_message_complete()

    def _is_plain(self, length: int | None) -> bool:
        """Whether this is a plain prediction; `length` is that of its body, if known."""
        if self.url != _ROUTE or self.parser.get_method() != b"POST" or not isinstance(self.app, Service):
            return False
        if self.app.dispatch is None or self.expect_100_continue or self.parser.should_upgrade():
            return False
        return length is not None and (self.cycle is None or self.cycle.response_complete)

    def _length(self) -> int | None:
        """The body's length; None if that is unknown, or more than is taken."""
        names = [name for name, _ in self.headers]
        if names.count(b"content-length") != 1 or b"transfer-encoding" in names:
            return None
        length = int(self.headers[names.index(b"content-length")][1])
        return length if length <= BODY_BYTES_MAX else None

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """Private to uvicorn; a version that does not call it writes twice, and is right all the same."""
        cycle.transport = joined = Joined(cycle.transport)
        cycle.on_response = functools.partial(joined.complete, cycle.on_response)
        cycle.scope[ABORT] = joined.abort
        super()._start_asgi_task(cycle, app)


class Lane:
    """One plain prediction. To uvicorn it is the request's cycle, and one of the tasks it waits for.

    To the job it is the future of its answer.
    """

    def __init__(self, protocol: PodProtocol, service: Service) -> None:
        dispatch, meter = service.dispatch, service.meter
        assert dispatch is not None, "only a pod with a model has the lane"
        self.parts: list[bytes] = []
        self.response_complete = False
        self.disconnected = False
        self.keep_alive = protocol.parser.should_keep_alive() and protocol.parser.get_http_version() == "1.1"
        self._protocol = protocol
        self._dispatch = dispatch
        self._meter = meter
        self._telemetry = service.telemetry
        self._headers = protocol.headers
        self._job: Job | None = None
        self._began_s = meter.begin(ROUTE)
        self._deadline = protocol.loop.call_later(dispatch.timeout_s, self._give_up, TIMED_OUT)
        protocol.tasks.add(self)  # type: ignore[arg-type]

    def submit(self) -> None:
        """The body is complete."""
        if self.response_complete:
            return
        body = self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)
        content_type = header(self._headers, b"content-type").decode("latin-1")
        self._job = job = Job(body, content_type, self)
        try:
            self._dispatch.submit(job)
        except Exhausted as full:
            self.set_result(no_room(full))

    # What a job asks of its future.

    def done(self) -> bool:
        """Whether it was answered, or nobody waits."""
        return self.response_complete

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._protocol.loop

    def set_result(self, answer: Answer) -> None:
        """Write the answer."""
        protocol = self._protocol
        body = answer.body.encode()
        parts = [STATUS_LINE[answer.status]]
        given_id = request_id(header(self._headers, REQUEST_ID))
        own = head(answer, self._job, len(body), given_id)
        for name, value in (*protocol.server_state.default_headers, *own):
            parts += (name, b": ", value, b"\r\n")
        parts.append(b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n")
        parts.append(body)
        protocol.transport.write(b"".join(parts))
        if answer.fault is not None:
            self._meter.fault(answer.fault)
        self._end(answer.status, given_id, answer)
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()

    # What uvicorn asks of a cycle and of a task.

    @property
    def message_event(self) -> Lane:
        """Set when the connection is lost; uvicorn's own cycle waits for it."""
        return self

    def set(self) -> None:
        """Something happened: if the client left, nobody waits any more."""
        if self.disconnected and not self.response_complete:
            self._leave_queue()
            self._end(LEFT, request_id(header(self._headers, REQUEST_ID)))

    def cancel(self, msg: str | None = None) -> None:  # noqa: ARG002  as a task has it
        """The grace period is over."""
        self._protocol.loop.call_soon(self._give_up, STOPPED)

    def _give_up(self, answer: Answer) -> None:
        if not self.response_complete:
            self._leave_queue()
            self.set_result(answer)

    def _leave_queue(self) -> None:
        if self._job is not None:
            self._job.leave_queue()

    def _end(self, status: int, given_id: bytes, answer: Answer | None = None) -> None:
        self.response_complete = True
        self._deadline.cancel()
        took_s = self._meter.end("POST", ROUTE, status, self._began_s)
        fault = answer.fault if answer is not None else None
        self._telemetry.ended(
            "POST", ROUTE, status, took_s, self._headers, given_id, answer, fault, self._job
        )
        self._job = None  # it knows us too: each of a million requests would wait for the garbage collector
        self._protocol.tasks.discard(self)


class Joined:
    """A transport for one answer: holds back its first write, the head, until the second."""

    __slots__ = ("_held", "_transport")

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._held: bytes | None = b""  # None: the head is out

    def write(self, data: bytes) -> None:
        """Write to the client, unless it is the head alone."""
        if self._held is None or data.startswith(CONTINUE):
            self._transport.write(data)
        elif self._held:
            self._transport.write(self._held + data)
            self._held = None
        else:
            self._held = data

    def complete(self, then: Callable[[], None]) -> None:
        """The answer is complete: one without a body goes out now."""
        self._flush()
        then()

    def close(self) -> None:
        """Close the connection behind what was written."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._held:
            self._transport.write(self._held)
        self._held = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
