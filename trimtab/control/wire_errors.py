"""Errors over the wire: a TrimtabError becomes a gRPC status with an ErrorInfo, and comes back as itself.

The ErrorInfo travels in the trailing metadata under `DETAILS_KEY`. gRPC refuses metadata beyond
8 KiB, so that texts and problems are cut to a bound rather than the whole error being lost.
"""

from __future__ import annotations

from collections.abc import Iterable

import grpc
from google.protobuf.message import DecodeError

from trimtab.core import errors
from trimtab.core.errors import InvalidInput, Problem, TrimtabError
from trimtab.v1 import control_pb2 as pb

DETAILS_KEY = "trimtab-error-bin"
MESSAGE_BYTES_MAX = 1_200  # percent-encoded on the wire: up to three times as long
DETAILS_BYTES_MAX = 3_000  # in base64 a third longer
TEXT_BYTES_MAX = 600

_CODES: tuple[tuple[type[TrimtabError], grpc.StatusCode], ...] = (
    (errors.InvalidInput, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.Unreachable, grpc.StatusCode.UNAVAILABLE),
    (errors.NotFound, grpc.StatusCode.NOT_FOUND),
    (errors.Conflict, grpc.StatusCode.ABORTED),
    (errors.Unauthorised, grpc.StatusCode.PERMISSION_DENIED),
    (errors.Exhausted, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.Failed, grpc.StatusCode.FAILED_PRECONDITION),
)
_KINDS: dict[grpc.StatusCode, type[TrimtabError]] = {
    **{code: kind for kind, code in _CODES},
    grpc.StatusCode.ALREADY_EXISTS: errors.Conflict,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthorised,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.Unreachable,
    grpc.StatusCode.OUT_OF_RANGE: errors.InvalidInput,
}


def code_of(error: TrimtabError) -> grpc.StatusCode:
    """The status of an error: that of its class, per the table in `core.errors`."""
    return next(
        (code for kind, code in _CODES if isinstance(error, kind)), grpc.StatusCode.FAILED_PRECONDITION
    )


def message_of(error: TrimtabError) -> str:
    """The status's message: the error's own, cut to what metadata may hold."""
    return cut(error.message, MESSAGE_BYTES_MAX)


def cut(text: str, bytes_max: int) -> str:
    """The beginning of a text, in at most so many bytes of UTF-8."""
    return text.encode(errors="replace")[:bytes_max].decode(errors="ignore")


def to_details(error: TrimtabError) -> bytes:
    """A serialized ErrorInfo with all but the message and the class; at most `DETAILS_BYTES_MAX`."""
    info = pb.ErrorInfo(where=cut(error.where, TEXT_BYTES_MAX), hint=cut(error.hint, TEXT_BYTES_MAX))
    for problem in error.problems if isinstance(error, InvalidInput) else ():
        entry = pb.Problem(
            where=cut(problem.where, TEXT_BYTES_MAX),
            message=cut(problem.message, TEXT_BYTES_MAX),
            hint=cut(problem.hint, TEXT_BYTES_MAX),
        )
        if info.ByteSize() + entry.ByteSize() + 8 > DETAILS_BYTES_MAX:
            break
        info.problems.append(entry)
    return info.SerializeToString()


def from_rpc(
    code: grpc.StatusCode,
    message: str,
    trailing_metadata: Iterable[tuple[str, str | bytes]] | None,
) -> TrimtabError:
    """The error that the server meant; without details, the nearest one with a hint of its own."""
    info = _details(trailing_metadata)
    kind = _KINDS.get(code, errors.Failed)
    if info is None:
        return kind(message or code.name, hint=_bare_hint(code))
    if kind is InvalidInput:
        problems = tuple(Problem(p.where, p.message, p.hint) for p in info.problems)
        return InvalidInput(message, where=info.where, hint=info.hint, problems=problems)
    return kind(message, where=info.where, hint=info.hint)


def _details(metadata: Iterable[tuple[str, str | bytes]] | None) -> pb.ErrorInfo | None:
    for key, value in metadata or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                return pb.ErrorInfo.FromString(value)
            except DecodeError:
                return None  # of a version that we do not know: the message says enough
    return None


def _bare_hint(code: grpc.StatusCode) -> str:
    if code is grpc.StatusCode.UNAVAILABLE:
        return "start the platform with `trimtab up`"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return "the control plane is of another version: `trimtab down`, then `trimtab up`"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return "the control plane did not answer in time: see `trimtab doctor`"
    return "see `trimtab doctor`, and control.log in the home folder"
