"""How many pods: `decide`, each 5 s, from traffic. Its constants, with their reasons, are `Tuning`."""

from trimtab.autoscaler.horizontal.axis import decide, urgent
from trimtab.autoscaler.horizontal.rest import WITHIN_S as REST_WITHIN_S
from trimtab.autoscaler.horizontal.rest import Rest, rest
from trimtab.autoscaler.horizontal.state import (
    Signals,
    State,
    inherit,
    overdue_after_s,
    overdue_pods,
    pods_range,
    replaced_at_once,
)
from trimtab.autoscaler.horizontal.tuning import Tuning

__all__ = [
    "REST_WITHIN_S",
    "Rest",
    "Signals",
    "State",
    "Tuning",
    "decide",
    "inherit",
    "overdue_after_s",
    "overdue_pods",
    "pods_range",
    "replaced_at_once",
    "rest",
    "urgent",
]
