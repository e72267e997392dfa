"""The threads of a process whose event loop must not wait for them."""

from __future__ import annotations

import sys

SWITCH_S = 0.001


def switch_often() -> None:
    """A loop that wants to go on gets its turn from a busy thread within SWITCH_S, not within Python's 5 ms.

    It loses it with each system call: a task that sends ten messages while a thread computes takes 60 ms
    otherwise.
    """
    sys.setswitchinterval(SWITCH_S)
