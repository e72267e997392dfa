"""How many requests one pod may hold: `decide_limit`, each 30 s, from how its pods fared."""

from trimtab.autoscaler.vertical.axis import decide_limit
from trimtab.autoscaler.vertical.state import RESTING, Learned, LimitSignals, LimitState, learned, resume
from trimtab.autoscaler.vertical.tuning import DEFAULT, LimitTuning

__all__ = [
    "DEFAULT",
    "RESTING",
    "Learned",
    "LimitSignals",
    "LimitState",
    "LimitTuning",
    "decide_limit",
    "learned",
    "resume",
]
