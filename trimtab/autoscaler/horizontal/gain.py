"""Whether more pods bring more: throughput of full pods, before and after there were more of them.

Where a database, a disk or the cores of one machine bind all pods alike, each new pod only makes the others
slower. Then growth stops at what there is, until throughput rises or requests no longer wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from trimtab.autoscaler.horizontal.tuning import Tuning
from trimtab.autoscaler.horizontal.windows import Evidence

FULL = 0.9  # of what ready pods can hold: balancing leaves a slot open now and then


class Gain(NamedTuple):
    """Throughput that full pods had, to compare with; in how many decisions more of them brought none."""

    pods: int = 0  # 0: nothing to compare with
    per_s: float = 0.0
    missing: int = 0
    pods_now: int = 0  # of the last decision that compared
    per_s_now: float = 0.0

    def is_missing(self, tuning: Tuning) -> bool:
        """Whether more pods would not help."""
        return self.missing >= tuning.help_decisions


NOTHING_KNOWN = Gain()


def full(in_flight: Sequence[float], queued: Sequence[float], ready_slots: float) -> bool:
    """Whether throughout the last seconds all ready pods were full and requests waited."""
    return ready_slots > 0 and min(queued) > 0 and min(in_flight) >= FULL * ready_slots


def compare(gain: Gain, ready_pods: int, evidence: Evidence, tuning: Tuning) -> Gain:
    """After a decision whose ready pods were full."""
    if evidence.completions < tuning.help_requests or not evidence.span_s:
        return gain
    per_s = evidence.completions / evidence.span_s
    anew = Gain(ready_pods, per_s)
    if not gain.pods or ready_pods < gain.pods:
        return anew
    grown = ready_pods / gain.pods - 1.0
    told = grown >= tuning.help_pods - 1.0
    if per_s > gain.per_s * (1.0 + tuning.help_gain * (grown if told else 1.0)):
        return anew
    if not told:
        return gain
    return Gain(gain.pods, gain.per_s, min(gain.missing + 1, tuning.help_decisions), ready_pods, per_s)
