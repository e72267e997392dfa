"""What went wrong at MLflow or at a store, in words that name who was asked and what to do."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from trimtab.core.errors import (
    Exhausted,
    Failed,
    InvalidInput,
    NotFound,
    TrimtabError,
    Unauthorised,
    Unreachable,
)
from trimtab.host.files import NO_SPACE

FORMS = "models:/NAME/VERSION, models:/NAME@ALIAS, models:/m-ID, runs:/RUN/PATH, a path, s3://…"
DETAIL_LENGTH_MAX = 300
_NO_SPACE_TEXTS = ("No space left on device", "Disk quota exceeded")
_AWAY_TEXTS = (
    "failed with exception",
    "Max retries exceeded",
    "Connection refused",
    "timed out",
    "EndpointConnection",
)
_DENIED_TEXTS = (
    "error code 401",
    "error code 403",
    "Access Denied",
    "AccessDenied",
    "Unable to locate credentials",
)
_DENIED_CODES = ("PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED")
_MISSING_CODES = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")


def explained(error: Exception, uri: str, asked: str) -> TrimtabError:
    """The error that a person should see for what MLflow raised while `uri` was wanted from `asked`."""
    if isinstance(error, TrimtabError):
        return error
    text = _text(error)
    for applies, kind, message, hint in _cases(error, text, uri):
        if applies:
            return kind(message, where=asked, hint=hint)
    return Failed(f"`{uri}` could not be read: {text}", where=asked, hint=server_hint())


def _cases(error: Exception, text: str, uri: str) -> Iterator[tuple[bool, type[TrimtabError], str, str]]:
    """(whether it is this, class, message, hint), the surest signs first."""
    code = str(getattr(error, "error_code", ""))
    space = "free space (`trimtab prune` removes models that nothing uses), or choose another --home"
    rights = (
        "give credentials: MLFLOW_TRACKING_TOKEN, MLFLOW_TRACKING_USERNAME and _PASSWORD, or the store's own"
    )
    denied = code in _DENIED_CODES or any(mark in text for mark in _DENIED_TEXTS)
    away = any(mark in text for mark in _AWAY_TEXTS)
    yield is_disk_full(error), Exhausted, f"the disk is full; `{uri}` was not copied", space
    yield denied, Unauthorised, f"`{uri}` may not be read: {text}", rights
    yield code == "ENDPOINT_NOT_FOUND", Failed, "does not answer like an MLflow server", server_hint()
    yield is_missing(error), NotFound, f"`{uri}` is not there: {text}", server_hint()
    yield (
        away,
        Unreachable,
        f"does not answer: {text}",
        f"is it running, and reachable from here? {server_hint()}",
    )
    package = isinstance(error, ImportError)
    yield package, Failed, f"`{uri}` needs a package that is not installed: {text}", "install it here"
    yield (
        code == "INVALID_PARAMETER_VALUE",
        InvalidInput,
        f"`{uri}` is refused: {text}",
        f"give one of {FORMS}",
    )


def is_missing(error: Exception) -> bool:
    """Whether the server answered that there is no such thing."""
    code = str(getattr(error, "error_code", ""))
    if code == "INVALID_PARAMETER_VALUE":
        return "alias" in str(error) and "not found" in str(error)  # how MLflow says it of an alias
    return code in _MISSING_CODES or isinstance(error, FileNotFoundError)


def is_disk_full(error: BaseException) -> bool:
    """Whether a full disk is at the root of it, as an errno or (MLflow, shutil) as text."""
    for cause in _chain(error):
        if isinstance(cause, OSError) and cause.errno in NO_SPACE:
            return True
        if any(text in str(cause) for text in _NO_SPACE_TEXTS):
            return True
    return False


def server_hint() -> str:
    """What to check about the server that MLflow asks."""
    set_to = os.environ.get("MLFLOW_TRACKING_URI") or os.environ.get("MLFLOW_REGISTRY_URI")
    if set_to:
        return "check MLFLOW_TRACKING_URI and MLFLOW_REGISTRY_URI, which say whom to ask"
    return "set MLFLOW_TRACKING_URI to your tracking server, e.g. http://HOST:5000"


def _text(error: Exception) -> str:
    first = " ".join(str(error).split())
    errno = re.search(r"\[Errno -?\d+\] ([^'\")]+)", first)
    if errno and "API request" in first:
        return errno.group(1)  # the rest repeats the address three times
    return first if len(first) <= DETAIL_LENGTH_MAX else first[:DETAIL_LENGTH_MAX] + "…"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(20):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__
