"""What the pod itself says, on stderr.

Never by `print`: a model may close `sys.stderr` or put something of its own in its place. Then whoever says
something would fail instead, with all the requests that it was about to answer.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback

with contextlib.suppress(OSError):  # closed from the start: then there is none to keep
    _KEPT = os.dup(2)  # the process's own, were a model to close that too


def say(text: str) -> None:
    """One line or more. Raises nothing; on a full disk they are lost."""
    line = f"{text}\n"
    try:
        sys.stderr.write(line)
        sys.stderr.flush()
    except Exception:  # noqa: BLE001  whatever it is that a model has put there
        with contextlib.suppress(OSError, NameError):
            os.write(_KEPT, line.encode(errors="replace"))


def report(error: BaseException) -> None:
    """An exception's traceback."""
    say("".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip())
