"""Arrivals: the rate that pods must serve so that nobody waits for long.

The arrival curve of network calculus (Cruz, 1991): a server that is to let nobody wait longer than d needs
a rate of A(w) / (w + d) for every window of w seconds, of whose A(w) arrivals the last may wait d.
Short windows see bursts and steps, long ones what wears on. No window counts for less than the service
time: what arrives within that is in flight side by side, and a slot for each is enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import sqrt
from operator import sub
from typing import NamedTuple

from trimtab.autoscaler.horizontal.tuning import Tuning

SHORT_WINDOWS_S = (1, 2, 3, 5, 10)


class SlowRate(NamedTuple):
    """Exponentially weighted sums behind the slow mean of arrivals."""

    arrivals: float = 0.0
    seconds: float = 0.0

    def per_s(self, tuning: Tuning) -> float:
        """Arrivals per second; the first `up_window_s` after a start count as if partly empty."""
        return self.arrivals / max(self.seconds, tuning.up_window_s)

    def plus(self, arrivals: float, seconds: float, service_time_s: float, tuning: Tuning) -> SlowRate:
        """The sums after `seconds` more with `arrivals` in them."""
        window_s = max(tuning.slow_window_s, service_time_s)
        kept = max(0.0, 1.0 - seconds / window_s)
        return SlowRate(self.arrivals * kept + arrivals, self.seconds * kept + seconds)


def needed_rate(asked: Sequence[float], service_time_s: float, slow: SlowRate, tuning: Tuning) -> float:
    """Requests per second to be served. `asked`: arrivals in each of the last seconds, oldest first."""
    wait_s = max(tuning.wait_min_s, tuning.wait_share * service_time_s)
    known = min(len(asked), tuning.up_window_s)
    sums = list(accumulate(asked, initial=0.0))
    came = sums[-1] - sums[-1 - known]
    end = len(asked) - tuning.short_window_s + 1  # the oldest end of a window that is looked at
    first, ends = end, sums[end:]
    rate = slow.per_s(tuning)
    if known >= tuning.up_window_s and came < rate * known:  # a load that has fallen is no longer what it was
        rate = min(rate, _most(came, tuning.slow_doubt) / known)
    for width in (*SHORT_WINDOWS_S, tuning.up_window_s):
        if width > known:
            break
        if width > end:
            first, ends = width, sums[width:]
        largest = max(map(sub, ends, sums[first - width :]))
        lasts_s = max(width + wait_s, service_time_s)
        if largest > rate * lasts_s:  # only then the rest can matter
            certain = _certain(largest, tuning)
            if certain > rate * lasts_s:
                rate = certain / lasts_s
    return rate


def _most(came: float, errors: float) -> float:
    """The largest expectation of a count of which so few would come: N = m - errors × √m, solved for m."""
    return came + errors * (errors / 2.0 + sqrt(came + errors * errors / 4.0))


def usual_rate(asked: Sequence[float], tuning: Tuning) -> float:
    """Requests per second of late, without what short windows add. `asked`: see `needed_rate`."""
    window_s = tuning.chance_window_s
    return _certain(sum(asked[-window_s:]), tuning) / window_s


def _certain(came: float, tuning: Tuning) -> float:
    """So many requests at least, chance apart."""
    return came - min(tuning.doubt * sqrt(came), tuning.doubt_max, came)
