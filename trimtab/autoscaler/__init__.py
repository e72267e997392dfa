"""Signals in, decisions out. Pure: no clock, no randomness, no I/O, no logging.

The horizontal axis is `decide` in `horizontal`; its constants, with their reasons, are `Tuning`.
"""

from trimtab.autoscaler.horizontal import decide
from trimtab.autoscaler.state import Signals, State, inherit, overdue_pods, pods_range
from trimtab.autoscaler.tuning import Tuning

__all__ = ["Signals", "State", "Tuning", "decide", "inherit", "overdue_pods", "pods_range"]
