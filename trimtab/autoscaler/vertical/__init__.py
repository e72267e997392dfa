"""How many requests one pod may hold: `decide_limit`, each 30 s, from how its pods fared."""

from trimtab.autoscaler.vertical.axis import decide_limit
from trimtab.autoscaler.vertical.state import Learned, LimitSignals, LimitState, learned, resume
from trimtab.autoscaler.vertical.tuning import DEFAULT, LimitTuning

__all__ = [
    "DEFAULT",
    "Learned",
    "LimitSignals",
    "LimitState",
    "LimitTuning",
    "decide_limit",
    "learned",
    "resume",
]
