"""Lines of a pod's log that programs can read: one JSON object each, among whatever the model prints.

    {"at": "2026-03-01T12:30:05.123Z", "level": "error", "event": "request", "request_id": "…", …}

`encoded` makes one, `readable` turns it into what a person reads; any other line stays as it is.
"""

from __future__ import annotations

import json
import time
from typing import Any

_BEGIN = '{"at": "'
_FIRST = ("at", "level", "event")
TEXT_LENGTH_MAX = 500


def encoded(at_s: float, level: str, event: str, **fields: Any) -> str:
    """One line, without its end. Fields that are None or empty are left out, long texts are cut."""
    at = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(at_s))}.{int(1000 * at_s) % 1000:03d}Z"
    told = {name: _short(value) for name, value in fields.items() if value not in (None, "")}
    return json.dumps({"at": at, "level": level, "event": event} | told)


def readable(line: str) -> str:
    """`12:30:05.123 error request: status 400, fault model, …` of such a line; any other as it is."""
    if not line.startswith(_BEGIN):
        return line
    try:
        told = json.loads(line)
        at, level, event = (str(told.pop(name)) for name in _FIRST)
    except (ValueError, KeyError, AttributeError):
        return line
    parts = [f"{name.replace('_', ' ')} {' '.join(str(value).split())}" for name, value in told.items()]
    return f"{at[11:-1]} {level} {event}: {', '.join(parts)}"


def _short(value: Any) -> Any:
    return f"{value[:TEXT_LENGTH_MAX]}…" if isinstance(value, str) and len(value) > TEXT_LENGTH_MAX else value
