"""Times as people give them to a command: `12:30`, `2026-03-01T12:30:05Z`, `-5m`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta

from trimtab.core.errors import InvalidInput

_AGO = re.compile(r"-(\d{1,9}(?:\.\d{1,3})?)(s|m|h|d)")
_OF_DAY = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}(?:\.\d{1,6})?))?")
_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


def parse_time(text: str, where: str, now_s: float) -> float:
    """Seconds since the epoch. Raises InvalidInput.

    `HH:MM[:SS]` is today, ISO 8601 without an offset is local time, `-5m` is so long before `now_s`.
    """
    told = text.strip()
    ago = _AGO.fullmatch(told)
    if ago is not None:
        return now_s - float(ago[1]) * _UNITS_S[ago[2]]
    try:
        of_day = _OF_DAY.fullmatch(told)
        if of_day is not None:
            hours, minutes, seconds = int(of_day[1]), int(of_day[2]), float(of_day[3] or 0)
            if hours > 23 or minutes > 59 or seconds >= 60:
                raise ValueError(f"{told} is no time of day")
            midnight = datetime.combine(datetime.fromtimestamp(now_s, UTC).astimezone().date(), time())
            return (midnight + timedelta(hours=hours, minutes=minutes, seconds=seconds)).timestamp()
        return datetime.fromisoformat(told).timestamp()
    except (ValueError, OverflowError, OSError) as error:
        hint = "write 12:30, 12:30:05, 2026-03-01T12:30:05, or -5m for five minutes ago (s, m, h, d)"
        raise InvalidInput(f"`{text}` is not a time", where=where, hint=hint) from error
