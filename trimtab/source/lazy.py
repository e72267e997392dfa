"""MLflow, imported when it is first needed, quiet, and with waits that a person would put up with.

Left alone, MLflow retries a server that is away for minutes, prints bars and log lines of its own,
and creates an empty database in the present folder when no server was named.
"""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

RESOLVE_TIMEOUT_S = 10  # of one request; a registry answers in milliseconds
RESOLVE_RETRIES_MAX = 1
DOWNLOAD_RETRIES_MAX = 3


@contextlib.contextmanager
def quiet_mlflow(retries_max: int, timeout_s: int | None = None) -> Iterator[Any]:
    """The module `mlflow`, for the length of a `with`. What the user set in the environment wins."""
    wanted = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(retries_max),
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }
    if timeout_s is not None:
        wanted["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(timeout_s)
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import mlflow  # noqa: PLC0415 -- takes 1.7 s

            for name in ("mlflow", "alembic"):
                logging.getLogger(name).setLevel(logging.ERROR)
            yield mlflow
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextlib.contextmanager
def asked_of(tracking_uri: str) -> Iterator[None]:
    """Have `resolve` and `download` ask this server for the length of a `with`; empty: as it was."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    if tracking_uri:
        os.environ["MLFLOW_TRACKING_URI"] = tracking_uri
    try:
        yield
    finally:
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before
        elif tracking_uri:
            del os.environ["MLFLOW_TRACKING_URI"]


def without_secrets(uri: str) -> str:
    """A server's URI as it may be shown and recorded: without user, password and query."""
    parts = urlsplit(uri)
    if not parts.scheme or not parts.netloc:
        return uri.partition("?")[0]
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl().rstrip("/")


def store_is_absent(uri: str) -> bool:
    """Whether a tracking URI names a local store that is not there (and that MLflow would create)."""
    parts = urlsplit(uri)
    path = parts.path
    if parts.scheme == "sqlite":
        path = unquote(path[1:])
    elif parts.scheme not in ("", "file"):
        return False
    return not Path(unquote(path)).exists()
