"""MLflow's answer to a request that failed, in the words of the other protocols."""

from __future__ import annotations

import json
from dataclasses import replace
from urllib.parse import quote

from trimtab.runtime.mlflow.answer import JSON, Answer, Fault

GRPC_TYPE = "application/grpc"
MESSAGE_CHARACTERS_MAX = 1024  # of gRPC's: it travels in a header
_GRPC = {  # https://grpc.github.io/grpc/core/md_doc_statuscodes.html, by HTTP's status
    400: 3,  # INVALID_ARGUMENT
    404: 5,  # NOT_FOUND
    413: 8,  # RESOURCE_EXHAUSTED
    415: 12,
    500: 13,  # INTERNAL
    501: 12,  # UNIMPLEMENTED
    503: 14,  # UNAVAILABLE
    504: 4,  # DEADLINE_EXCEEDED
}
_UNKNOWN = 2
_OPENAI_TYPES = {
    Fault.CALLER: "invalid_request_error",
    Fault.MODEL: "server_error",
    Fault.PLATFORM: "server_error",
}


def message_of(answer: Answer) -> str:
    """What an error says; of a model that raised, what it raised."""
    try:
        told = json.loads(answer.body)
    except ValueError:
        return answer.body
    if not isinstance(told, dict):
        return answer.body
    trace = str(told.get("stack_trace") or "").strip()
    return trace.rpartition("\n")[2] if trace else str(told.get("message", answer.body))


def status_of(answer: Answer) -> int:
    """HTTP's status: a model that failed is a 500 everywhere but with MLflow."""
    return 500 if answer.fault is Fault.MODEL and answer.status < 500 else answer.status


def open_inference(answer: Answer) -> Answer:
    """`{"error": …}`."""
    if answer.fault is None:
        return answer
    text = json.dumps({"error": message_of(answer)})
    return replace(answer, body=text, status=status_of(answer), media_type=JSON)


def grpc(answer: Answer) -> Answer:
    """An answer without a body, whose headers tell gRPC's status: to gRPC that is Trailers-Only."""
    if answer.fault is None:
        return answer
    status = _GRPC.get(status_of(answer), _UNKNOWN)
    words = quote(
        message_of(answer)[:MESSAGE_CHARACTERS_MAX],
        safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~",
        errors="replace",
    )
    headers = ((b"grpc-status", b"%d" % status), (b"grpc-message", words.encode()))
    return Answer("", 200, GRPC_TYPE, answer.fault, headers=headers)


def openai(answer: Answer) -> Answer:
    """`{"error": {"message": …, "type": …, "param": null, "code": …}}`."""
    if answer.fault is None:
        return answer
    status = status_of(answer)
    told = {
        "message": message_of(answer),
        "type": _OPENAI_TYPES[answer.fault],
        "param": None,
        "code": "model_not_found" if status == 404 else None,
    }
    return replace(answer, body=json.dumps({"error": told}), status=status, media_type=JSON)
