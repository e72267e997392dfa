"""Rest: what nobody asks, and has the fewest pods of its range, needs no decision until somebody does."""

from __future__ import annotations

from trimtab.autoscaler.horizontal.state import Signals, State, pods_for, pods_range
from trimtab.autoscaler.horizontal.tuning import DEFAULT, Tuning


def rests(state: State, signals: Signals, pods: int, tuning: Tuning = DEFAULT) -> bool:
    """Whether each decision that follows gives as many pods as the last one, for as long as nobody asks.

    `state` and `pods` are what `decide` made of `signals`. Without a request demand only falls, and with it
    what is kept for surges: at most `surge_spare_max` times the largest demand of the down window. A surge
    that comes by the clock is prepared for before anybody asks.
    """
    floor = pods_range(signals)[0]
    if not (state.idle_s and signals.revision_signals and pods == floor == state.pods):
        return False
    if not floor:
        return True
    most = state.peaks[0][1] * (1.0 + tuning.surge_spare_max)
    return state.surges.rhythm is None and pods_for(most, signals.target_concurrency) <= floor
