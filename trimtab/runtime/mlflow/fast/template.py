"""Bodies that differ in their rows alone: what is around them is read once.

A client sends the same text again and again but for the values: of a row of four numbers more than half is
names. Text before and after the value of `data`, or of `inputs`, that was once read with a 7 in between is
a place for a value and nothing else, by JSON's grammar. Then whatever is JSON by itself stands there as well,
and only that needs to be read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from trimtab.runtime.mlflow.fast.envelope import Envelope, Form, quick_loads

KNOWN_MAX = 4  # clients of a model are few, and each of these is compared with every body
BODY_BYTES_MAX = 16 << 10  # in a larger one what is around the rows is little
_END = re.compile(rb"[\s}]*\Z")
_HOLE = b"7"


class Templates:
    """Those that are known of one model. Used by several threads: what one misses, it reads as ever."""

    def __init__(self, exact: bool) -> None:
        """`exact`: as in `envelope.opened`."""
        self._loads = quick_loads(exact)
        self._known: tuple[Template, ...] = ()
        self._others = 0

    def filled(self, body: bytes) -> Envelope | None:
        """The envelope of a body that fits one of them; None for any other. Raises what `json.loads` does."""
        for template in self._known:
            if template.fits(body):
                return template.filled(body, self._loads)
        return None

    def learn(self, body: bytes, envelope: Envelope) -> None:
        """From a body that fits none and was read: the 1st, 2nd, 4th, 8th … for that takes as long again."""
        self._others += 1
        if self._others & (self._others - 1) or len(body) > BODY_BYTES_MAX:
            return
        found = learned(body, envelope)
        if found is not None:
            self._known = (found, *self._known[: KNOWN_MAX - 1])


class Template:
    """What is before and behind the value, and what that is the data of."""

    __slots__ = ("_after", "_before", "_columns", "_form")

    def __init__(self, before: bytes, after: bytes, form: Form, columns: Any) -> None:
        self._before = before
        self._after = after
        self._form = form
        self._columns = columns

    def fits(self, body: bytes) -> bool:
        """Whether there is room for a value in between."""
        return body.startswith(self._before) and body.endswith(self._after)

    def filled(self, body: bytes, loads: Callable[[bytes], Any]) -> Envelope:
        """The envelope of a body that fits. Raises what `loads` does, as where both texts overlap."""
        value = loads(body[len(self._before) : len(body) - len(self._after)])
        if self._form is Form.SPLIT:
            value = {"columns": self._columns, "data": value}
        return Envelope(self._form, value)


def learned(body: bytes, envelope: Envelope) -> Template | None:
    """The template of a body that was read as this envelope; None if there is none that is sure."""
    split = envelope.form is Form.SPLIT
    if envelope.params is not None or (split and type(envelope.data) is not dict):
        return None
    key = b'"data"' if split else b'"%s"' % envelope.form.value.encode()
    found = re.compile(re.escape(key) + rb"\s*:\s*").search(body, max(body.rfind(key), 0))
    end = _END.search(body, found.end() if found else len(body))
    if found is None or end is None:
        return None
    before, after = body[: found.end()], body[end.start() :]
    columns = envelope.data.get("columns") if split else None
    wanted: Any = {"columns": columns, "data": 7} if split else 7
    try:
        proven = json.loads(before + _HOLE + after) == {envelope.form.value: wanted}
    except ValueError:
        return None
    return Template(before, after, envelope.form, columns) if proven else None
