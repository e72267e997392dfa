"""What a request is answered with, and whose fault it is if it is not a prediction."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum

from starlette.responses import Response

FAULT_HEADER = "x-trimtab-fault"
JSON = "application/json"
TEXT = "text/plain"


class Fault(Enum):
    """Who has to act on an error. The status does not tell: MLflow answers a model's exception with 400."""

    CALLER = "caller"  # the request is off
    MODEL = "model"  # the model failed on a request that could be read
    PLATFORM = "platform"  # the pod could not take it; another one, or a later try, may


@dataclass(slots=True)  # nobody changes one; frozen, each took a microsecond to make
class Answer:
    """Body, status and media type as MLflow gives them; `fault` is None for a prediction.

    `raw` is the body where it is no text; `headers` are further ones.
    """

    body: str
    status: int
    media_type: str = JSON
    fault: Fault | None = None
    raw: bytes | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    cause: str = ""  # what the model raised, for the log

    def encoded(self) -> bytes:
        """The body in bytes."""
        return self.body.encode() if self.raw is None else self.raw

    def response(self) -> Response:
        """The same for Starlette."""
        headers = {FAULT_HEADER: self.fault.value} if self.fault else None
        return Response(self.body, self.status, headers, self.media_type)


def error(status: int, code: str, message: str, fault: Fault) -> Answer:
    """An error of our own in the form of MLflow's; `code` is one of its error codes."""
    return Answer(json.dumps({"error_code": code, "message": message}), status, JSON, fault)
