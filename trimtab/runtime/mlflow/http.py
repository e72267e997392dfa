"""uvicorn's HTTP protocol, with an answer's head and body in one write.

Each write is a system call, which takes as long as a small prediction: two of them were a third of all the
time of a pod that answers 9,000 requests a second.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

CONTINUE = b"HTTP/1.1 100 "


class PodProtocol(HttpToolsProtocol):
    """What the pod's server speaks."""

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """Private to uvicorn; a version that does not call it writes twice, and is right all the same."""
        cycle.transport = joined = Joined(cycle.transport)
        cycle.on_response = functools.partial(joined.complete, cycle.on_response)
        super()._start_asgi_task(cycle, app)


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
