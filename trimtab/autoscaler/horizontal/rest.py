"""Rest: as long as nothing comes that could change a decision, none needs to be made."""

from __future__ import annotations

from enum import Enum

from trimtab.autoscaler.horizontal.reasons import THIS_MACHINE
from trimtab.autoscaler.horizontal.state import Signals, State, pods_for, pods_range
from trimtab.autoscaler.horizontal.tuning import DEFAULT, Tuning
from trimtab.core.decision import Decision


class Rest(Enum):
    """Until when each decision would give as many pods as the last one."""

    NONE = "the next decision"
    UNTIL_TOLD = "a signal, whatever it tells"
    UNTIL_ASKED = "a request"


WITHIN_S = {
    Rest.UNTIL_ASKED: 15.0,  # no window misses a second, and what ends the rest is seen to come at once
    Rest.UNTIL_TOLD: 60.0,  # no time goes on that counts
}
"""The next decision is due after so long at the latest (s), though it will say the same."""


def rest(state: State, signals: Signals, decision: Decision, tuning: Tuning = DEFAULT) -> Rest:
    """How long a revision may rest. `state` and `decision` are what `decide` made of `signals`.

    Where nobody tells anything, what there is is held. Where nobody asks, a revision with the fewest pods of
    its range keeps them: demand only falls, and with it what is kept for surges, which is at most
    `surge_spare_max` times the largest demand of the down window. But a surge that comes by the clock is
    prepared for before anybody asks. What the machine keeps from its pods waits for room.
    """
    if decision.binds == THIS_MACHINE:
        return Rest.NONE
    if not signals.revision_signals and not state.envoys:
        return Rest.UNTIL_TOLD
    floor = pods_range(signals)[0]
    if not state.idle_s or decision.pods != floor:
        return Rest.NONE
    most = state.peaks[0][1] * (1.0 + tuning.surge_spare_max)
    enough = state.surges.rhythm is None and pods_for(most, signals.target_concurrency) <= floor
    return Rest.UNTIL_ASKED if enough or not floor else Rest.NONE
