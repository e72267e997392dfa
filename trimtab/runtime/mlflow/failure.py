"""A start that failed, and exceptions in a person's words."""

from __future__ import annotations

import traceback

from trimtab.core.errors import Failed


class ModelError(Failed):
    """The model cannot be loaded or asked. The cause's traceback was printed on stderr."""


def said(error: BaseException) -> str:
    """An exception as the last line of a traceback has it: `ValueError: bad`."""
    return traceback.format_exception_only(type(error), error)[-1].strip()
