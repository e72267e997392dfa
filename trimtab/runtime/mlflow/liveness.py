"""Whether a pod still does its work: the answer to GET /health/live.

The event loop that answers is well by answering. What nobody sees from outside are the threads that predict:
one that hangs in the model's code (a deadlock, an endless loop) holds its place for ever, since Python cannot
stop a thread. A slow prediction looks the same for as long as somebody may still wait for it. So the one who
asks says how long that is, by `?within=SECONDS`: on a platform the endpoint's `request_timeout_s` and a
margin, after which Envoy has long told the caller. Without it the bound is the server's own timeout.
Predictions that did end, the input example's among them, show how slow this model is: what runs hardly longer
than they did does not hang, however soon callers give up, or a slow model with a short timeout were restarted
for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Protocol

TIMES_SLOWEST = 2.0


class Working(Protocol):
    """What runs predictions: the pool, or the batcher."""

    @property
    def longest_s(self) -> float: ...

    @property
    def slowest_s(self) -> float: ...


def trouble(working: Sequence[Working], within_s: float) -> str:
    """Why the pod should be replaced, in a person's words; empty if it is well."""
    longest_s = max((each.longest_s for each in working), default=0.0)
    slowest_s = max((each.slowest_s for each in working), default=0.0)
    if longest_s <= max(within_s, TIMES_SLOWEST * slowest_s):
        return ""
    return f"a prediction has run for {longest_s:.0f} s, and nobody waits more than {within_s:.0f} s for one"


def within_s(asked: str | None, timeout_s: float) -> float:
    """The bound that was asked for; what is no positive number is not heard."""
    try:
        found = float(asked or "")
    except ValueError:
        found = 0.0
    return found if isfinite(found) and found > 0 else timeout_s
