"""How many requests a pod held over a period: gauges seen at its ends, fused with sums of durations.

Each sees what the other misses. A gauge is a sample of one instant: of 5 requests of 20 ms each it finds
2 or 9. The sum of the durations of what completed, over the period, is exact for those (Little), but
nothing to it is a stream until it ends; then its whole life falls into one period.

Over a period T, with gauges g0 and g1 at its ends, c completions that took S seconds in all, d = S / c:

    mean = w S / T + (1 - w) (g0 + g1) / 2,  w = 1 / (1 + 8 (d / T)^2)

weights both by their variance, for N requests of exponential duration: the sum lacks at one end of the
period, and has too much at the other, N d (with a variance of 2 N d^2 each, so 4 N (d / T)^2 in the mean),
two gauges far apart have N / 2 in the mean. w is 1.00 at 50 ms in 5 s, 0.76 at 1 s, 0.11 at 5 s. And then:
- If three gauges in a row are above S / T by more than 2 sqrt(S / T), they saw requests that do not
  complete, for those that do spread around it by sqrt(S / T) (Poisson; by chance 3 times in 100,000):
  then the gauges alone count.
- At most c + g1: no others were there.
- What was counted of requests while they ran is not counted again as they complete: the identity
  mean T = S + (time so far of those in flight at the end) - (the same at the start) keeps the account.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, sqrt


@dataclass(frozen=True)
class Span:
    """What was seen of one period; None is unknown.

    `gauge_before` and `gauge_now` are requests at its ends; `time_s` is the sum of the durations told in
    it, each in the mean `lag_s` after its request came. At most `present_max` requests were there in it.
    """

    period_s: float
    gauge_before: float | None
    gauge_now: float | None
    time_s: float | None
    lag_s: float
    present_max: float = inf


class Held:
    """The mean number of requests held, period after period. One for each pod and gauge."""

    def __init__(self) -> None:
        self._earlier: float | None = None  # the gauge at the start of the period before
        self._ahead_s = 0.0  # request seconds counted already, of requests that have not completed

    def mean(self, span: Span) -> float | None:
        """Over the period; None where neither gauge nor sum is known."""
        now, before = span.gauge_now, span.gauge_before
        if now is None:
            self._ahead_s = 0.0
            return None if span.time_s is None else span.time_s / span.period_s
        gauge = now if before is None else (before + now) / 2
        if span.time_s is None:
            self._ahead_s = 0.0
            return gauge
        paid_s = min(self._ahead_s, max(0.0, span.time_s - gauge * span.period_s))
        time_s = span.time_s - paid_s
        low = min(g for g in (self._earlier, before, now) if g is not None)
        self._earlier = before
        mean = gauge if _stands_out(low, time_s / span.period_s) else _fused(span, gauge, time_s)
        self._ahead_s = max(0.0, self._ahead_s - paid_s + mean * span.period_s - time_s) if now else 0.0
        return mean


def _stands_out(low: float, completed: float) -> bool:
    """Whether gauges of at least `low` saw more than a mean of `completed` requests explains."""
    return low - completed > 2 * sqrt(completed)


def _fused(span: Span, gauge: float, time_s: float) -> float:
    weight = 1 / (1 + 8 * (span.lag_s / span.period_s) ** 2)
    mean = weight * time_s / span.period_s + (1 - weight) * gauge
    return min(mean, span.present_max)
