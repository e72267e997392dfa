"""The body of a request: which of MLflow's JSON forms it has, its data and its params."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

try:
    import orjson
except ImportError:  # it only makes large bodies faster
    orjson = None  # type: ignore[assignment]

LARGE_BYTES = 4096  # below it, what orjson saves is less than a microsecond or two
CONTENT_TYPES = frozenset(
    f"application/json{charset}" for charset in ("", "; charset=utf-8", ";charset=utf-8", "; charset=UTF-8")
)


class Form(Enum):
    """Under which key the data is."""

    SPLIT = "dataframe_split"
    RECORDS = "dataframe_records"
    INSTANCES = "instances"
    INPUTS = "inputs"


FORMS = {form.value: form for form in Form}


@dataclass(slots=True)  # not frozen: that takes four times as long to make
class Envelope:
    """An opened body. `params` is None if there are none."""

    form: Form
    data: Any
    params: Any = None


def quick_loads(exact: bool) -> Callable[[bytes], Any]:
    """What reads JSON as `json.loads` does; `exact` as below."""
    return json.loads if exact or orjson is None else _quick_loads


def _quick_loads(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)


def opened(body: bytes, exact: bool) -> Envelope | None:
    """The envelope; None if the body is none of the four forms, or not that alone.

    orjson takes what `json` takes, and refuses some more (NaN, 1e400, a byte order mark, lone
    surrogates): then `json` is asked. In one thing it answers otherwise: an integer beyond 64 bits
    becomes the nearest double. That makes no difference where numbers become doubles; `exact` says
    that they may not, and so do params. Raises what `json.loads` raises.
    """
    if orjson is not None and not exact and len(body) > LARGE_BYTES:
        try:
            found = _sorted(orjson.loads(body))
        except orjson.JSONDecodeError:
            return _sorted(json.loads(body))
        if found is None or found.params is None:
            return found
    return _sorted(json.loads(body))


def _sorted(value: Any) -> Envelope | None:
    if type(value) is not dict:
        return None
    if len(value) == 1:
        ((key, data),) = value.items()
        form = FORMS.get(key)
        return Envelope(form, data) if form else None
    if len(value) == 2 and "params" in value:
        params = value.pop("params")
        ((key, data),) = value.items()
        form = FORMS.get(key)
        return Envelope(form, data, params) if form else None
    return None
