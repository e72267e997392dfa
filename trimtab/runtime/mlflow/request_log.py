"""A line of JSON in the pod's log for each request that failed or was slow: see `core.lines`.

The variables of a model's `env` say which: `TRIMTAB_LOG_REQUESTS` is `slow` (the default: errors, and what
took TRIMTAB_LOG_SLOW_S seconds or more), `errors`, `all` or `none`. However many fail, lines are written at
a bounded rate, and the next one says how many were left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf, isfinite

from trimtab.core.clock import Clock
from trimtab.core.lines import encoded
from trimtab.runtime.mlflow.answer import Answer, Fault
from trimtab.runtime.mlflow.job import Job
from trimtab.runtime.mlflow.log import say

WHICH = "TRIMTAB_LOG_REQUESTS"
SLOW = "TRIMTAB_LOG_SLOW_S"
SLOW_S = 10.0
LINES_PER_S = 20.0
BURST = 200.0


@dataclass(frozen=True)
class Ended:
    """One request that was answered, or given up: then `answer` is None and `status` 499."""

    method: str
    route: str
    status: int
    took_s: float
    request_id: str
    trace_id: str = ""  # of the caller's traceparent
    answer: Answer | None = None
    fault: Fault | None = None
    job: Job | None = None


class RequestLog:
    """For one thread: the event loop."""

    def __init__(
        self, environment: Mapping[str, str], clock: Clock, write: Callable[[str], None] = say
    ) -> None:
        which = environment.get(WHICH, "slow")
        if which not in _KINDS:
            write(f"{WHICH}={which} is none of {', '.join(_KINDS)}: `slow` holds")
            which = "slow"
        self._errors, slow_s = _KINDS[which]
        self.slow_s = _seconds(environment.get(SLOW)) if slow_s is None else slow_s
        self._clock = clock
        self._write = write
        self._allowed = BURST
        self._allowed_at_s = clock.now_s()
        self._left_out = 0

    def wants(self, fault: Fault | None, took_s: float) -> bool:
        """Whether there should be a line."""
        return took_s >= self.slow_s or (fault is not None and self._errors)

    def note(self, ended: Ended) -> None:
        """Write it, unless there were too many of late."""
        now_s = self._clock.now_s()
        self._allowed = min(BURST, self._allowed + (now_s - self._allowed_at_s) * LINES_PER_S)
        self._allowed_at_s = now_s
        if self._allowed < 1:
            self._left_out += 1
            return
        self._allowed -= 1
        self._write(self._line(ended))
        self._left_out = 0

    def _line(self, ended: Ended) -> str:
        level = {None: "info", Fault.CALLER: "warning"}.get(ended.fault, "error")
        job = ended.job
        return encoded(
            self._clock.wall_s(),
            level,
            "request",
            method=ended.method,
            route=ended.route,
            status=ended.status,
            fault=ended.fault.value if ended.fault else None,
            took_ms=_ms(ended.took_s),
            queue_ms=_ms(job.queue_s) if job else None,
            batch_ms=_ms(job.batch_s) if job else None,
            predict_ms=_ms(job.predict_s) if job else None,
            request_id=ended.request_id,
            trace_id=ended.trace_id,
            cause=_cause(ended.answer),
            lines_left_out=self._left_out or None,
        )


# Whether errors are told, and from how many seconds on any request is (None: as configured).
_KINDS: dict[str, tuple[bool, float | None]] = {
    "slow": (True, None),
    "errors": (True, inf),
    "all": (True, 0.0),
    "none": (False, inf),
}


def _seconds(text: str | None) -> float:
    try:
        found = float(text) if text else SLOW_S
    except ValueError:
        return SLOW_S
    return found if isfinite(found) and found >= 0 else SLOW_S


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 3)


def _cause(answer: Answer | None) -> str | None:
    """What the model raised, or what the answer tells of the error."""
    if answer is None or answer.fault is None:
        return None
    if answer.cause:
        return answer.cause
    try:
        return str(json.loads(answer.body)["message"])
    except (ValueError, KeyError, TypeError):
        return answer.body
