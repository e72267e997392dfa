"""Trial: whether this load needs the whole down window, or would be served as well with a brief one.

The down window keeps pods for five minutes, since a load that is gone for four must find them again. Many
loads never come back so soon: batches that are over, ramps that begin anew from below. So what a brief
window would have kept is followed beside what is kept. Where it would have let many go, and the load came
back without asking for more than the brief window had ready, or did not come back at all while the long one
lasted, a trial is passed. Two in a row, and from then on the brief window is in force where the load has
fallen; a load that comes back too soon for it ends that at once.
"""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

from trimtab.autoscaler.horizontal.tuning import Tuning


class Trial(NamedTuple):
    """What is known of the brief window for one revision. Heights are slots that the long window kept."""

    passed: tuple[float, ...] = ()  # heights of the last trials in a row, as many as must be passed
    height: float = 0.0  # of the trial that runs: the brief window would keep far less; 0: none runs
    failed: bool = False  # one did, and the next begins when both windows keep much the same again

    @property
    def is_open(self) -> bool:
        """Whether a trial runs, or one that failed is not over."""
        return self.height > 0 or self.failed

    def is_brief(self, tuning: Tuning) -> bool:
        """Whether the brief window is in force: after a fall from where those fell that came back slowly."""
        known = len(self.passed) >= tuning.trial_passes
        return known and 0 < self.height <= tuning.trial_height * min(self.passed)

    def followed(
        self, asked: float, long: float, brief: float, ready: float | None, per_pod: float, tuning: Tuning
    ) -> Trial:
        """After a decision in which the load asked for slots, of which a pod has `per_pod`.

        `long` and `brief` are what the two windows keep, `ready` is what the brief one would have had ready
        by now; None if that is not known.
        """
        differ = brief < tuning.trial_share * long and long - brief >= per_pod
        if self.height and ready is not None and asked > _enough(ready, tuning):
            return Trial(failed=True)
        if self.failed:
            return Trial(failed=differ)
        if differ:
            return self._replace(height=max(self.height, long))
        return Trial((*self.passed, self.height)[-tuning.trial_passes :]) if self.height else self


def _enough(ready: float, tuning: Tuning) -> float:
    """The most slots that may be asked for where so many are ready."""
    return max(tuning.surge_least, tuning.trial_short * ready + tuning.surge_noise * sqrt(ready))
