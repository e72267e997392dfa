"""What is told of each request once it has ended: a line in the log, and spans. Nothing, for most of them."""

from __future__ import annotations

import os
import random
import re
import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING

from trimtab.runtime.mlflow.answer import Answer, Fault
from trimtab.runtime.mlflow.job import Job
from trimtab.runtime.mlflow.request_log import Ended, RequestLog

if TYPE_CHECKING:
    from trimtab.runtime.mlflow.spans import Spans

# Of ids. They must differ, and may be guessed: from the system's source each took a fifteenth of a request.
_random = random.Random(secrets.randbits(256))  # noqa: S311
os.register_at_fork(after_in_child=lambda: _random.seed(secrets.randbits(256)))

REQUEST_ID = b"x-request-id"
REQUEST_ID_MAX = 128  # characters of a caller's own
TRACE_PARENT = b"traceparent"

Headers = Iterable[tuple[bytes, bytes]]

# https://www.w3.org/TR/trace-context/#traceparent-header: version ff and ids of zeros are no valid ones
_TRACE_PARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?P<trace>(?!0{32})[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
)


class Telemetry:
    """Told of each request, in the event loop."""

    def __init__(self, log: RequestLog) -> None:
        self._log = log
        self.spans: Spans | None = None  # where there is a place to send them to

    def ended(
        self,
        method: str,
        route: str,
        status: int,
        took_s: float,
        headers: Headers,
        given_id: bytes,
        answer: Answer | None = None,
        fault: Fault | None = None,
        job: Job | None = None,
    ) -> None:
        """`given_id` is the request id of the answer."""
        wanted = self._log.wants(fault, took_s)
        if not wanted and self.spans is None:
            return
        parent = header(headers, TRACE_PARENT).decode("latin-1")
        found = _TRACE_PARENT.fullmatch(parent)
        trace_id = found["trace"] if found else ""
        request = Ended(
            method, route, status, took_s, given_id.decode("latin-1"), trace_id, answer, fault, job
        )
        if wanted:
            self._log.note(request)
        if self.spans is not None:
            self.spans.add(request, parent if found else "")


def header(headers: Headers, wanted: bytes) -> bytes:
    """The first header of this name, or nothing."""
    for name, value in headers:
        if name == wanted:
            return value
    return b""


def request_id(given: bytes) -> bytes:
    """The caller's, or a new one if there is none that could be sent back."""
    if given and len(given) <= REQUEST_ID_MAX and given.isascii() and given.decode().isprintable():
        return given
    return b"%032x" % _random.getrandbits(128)
