"""Trial: whether this load needs the whole down window, or would be served as well with a brief one.

The down window keeps pods for five minutes, since a load that is gone for four must find them again. Many
loads never come back so soon: batches that are over, ramps that begin anew from below. So what a brief window
would have kept is followed beside what is kept. Where it would have let many go, and the load came back without
asking for more than the brief window had ready, or did not come back at all while the long one lasted, a trial
is passed. Two in a row, and from then on the brief window is in force where the load has fallen; a
load that comes back too soon for it ends that at once.
"""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

from trimtab.autoscaler.horizontal.tuning import Tuning


class Trial(NamedTuple):
    """What is known of the brief window for one revision."""

    passed: int = 0  # trials in a row
    runs: bool = False  # one does: the brief window would keep far less than the long one
    failed: bool = False  # it did, and may count again when both keep the same

    @property
    def is_open(self) -> bool:
        """Whether a trial runs, or one that failed is not over."""
        return self.runs or self.failed

    def is_brief(self, tuning: Tuning) -> bool:
        """Whether the brief window is in force: the load has fallen, and has shown how soon it comes back."""
        return self.runs and self.passed >= tuning.trial_passes

    def followed(self, asked: float, long: float, brief: float, ready: float | None, tuning: Tuning) -> Trial:
        """After a decision in which the load asked for slots.

        `long` and `brief` are what the two windows keep, `ready` is what the brief one would have had ready
        by now; None if that is not known.
        """
        differ = brief < tuning.trial_share * long
        most = None if ready is None else tuning.trial_short * ready + tuning.surge_noise * sqrt(ready)
        short = most is not None and asked > max(tuning.surge_least, most)
        if short and self.runs:
            return Trial(0, False, failed=True)
        if self.failed:
            return Trial(failed=differ)
        if differ:
            return self._replace(runs=True)
        return Trial(self.passed + 1) if self.runs else self
