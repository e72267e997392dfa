"""Every constant of the horizontal axis, with its unit, its purpose and the reason for its value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tuning:
    """Constants of `decide`. They hold for every model; tests and demonstrations may shorten windows.

    Seconds of the windows are *observed* seconds: time for which no Envoy reported does not pass.
    """

    # -- up: how a rise is seen ----------------------------------------------------------------
    up_window_s: int = 20
    """How far back a rise is looked for (s). Long enough that a burst just seen is not forgotten
    while the first of its pods start; beyond it the down window holds what was asked for."""

    short_window_s: int = 5
    """The short mean whose largest value within `up_window_s` counts (s). One decision's worth: a
    step is seen whole at the first decision after it. A mean over all 20 s needs 19 to 24 s."""

    doubt: float = 2.0
    """Standard errors taken off the mean of a window before it may ask for pods: N requests are
    known to ±√N, so (N - 2√N)/w. Chance alone passes it about once in 40 windows. With 10 requests
    in 5 s it takes two thirds off, with 1,000 it takes 6 %: a few requests prove little."""

    jump_ratio: float = 1.5
    """When both of the last two seconds ask for this many times the pods that are there, the larger
    of the two counts at once: a step ×10 is covered before it fills the short window. Two seconds,
    since one alone may be a batch job; 1.5, since less than that may wait for the short mean."""

    slow_window_s: float = 60.0
    """Time constant of the slow mean of arrivals (s), or the service time where that is longer: the
    base under the windows, whose √N is then small. At 0.3 requests/s it is known to ±0.05."""

    horizon_s: float = 20.0
    """How far ahead arrivals can make work (s): what is held now plus this many seconds of arrivals
    bounds the demand, or one request that streams for minutes would count as dozens."""

    growth: float = 10.0
    """Most by which demand may grow in one decision, as a multiple of the load or the capacity there
    is, whichever is larger. ×10 passes in one decision and ×100 in two; one wild signal costs no
    more than that. Relative to pods alone, two per decision, ×10 took 14 s."""

    # -- demand ---------------------------------------------------------------------------------
    headroom: float = 0.5
    """Slots kept free, in √load: concurrency of independent arrivals varies by the root of its mean,
    and with load + 0.5 √load slots about half of the requests wait, for a part of a service time
    (Halfin and Whitt, 1981); the largest of 300 s adds about as much again. With more, a load of
    0.3 with a target of 1 does not rest at one pod: 0.3 + 0.5 √0.3 is 0.57, and its noise 0.2."""

    drain_s: float = 10.0
    """Time in which a backlog should be gone (s), or the typical start time of a pod where that is
    longer, since pods that come later than that cannot drain it sooner."""

    rejected_share: float = 1.0
    """Most rejected requests that count, per accepted one: demand may read as double, and grows again
    by the next decision if it was real. A client that retries each second cannot multiply it."""

    # -- service time ---------------------------------------------------------------------------
    settle_requests: float = 20.0
    """Completed requests after which the service time is known, and with which new ones are weighed:
    with a spread as wide as its mean, the mean of 20 is known to a quarter."""

    service_weight: float = 0.2
    """Most that one decision's requests count in the settled service time: a tail of costly requests
    within 5 s is not news, and a model that changed is known to nine tenths after ten decisions."""

    stall_factor: float = 5.0
    """Service times without a completion after which the requests in flight are held to be of a
    longer kind: one in 150 lasts as long by chance (e^-5)."""

    stall_s: float = 10.0
    """The same for a service time that is short or unknown (s): two decisions without a completion.
    From then on each request in flight or queued is taken to need a slot of its own, as a stream does."""

    busy_growth: float = 1.1
    """Most by which the service time may grow per decision while requests are queued. Pods that
    share cores seem slower the more of them run; a model that truly became three times slower is
    followed in 12 decisions, a minute."""

    # -- down -----------------------------------------------------------------------------------
    down_window_s: float = 300.0
    """A pod stays for as long as the largest demand of this window needs it (s). Users' bursts come
    back within minutes, and a pod costs a cold start each time it returns."""

    down_slack_pods: float = 0.2
    """A pod is removed only if demand falls this far below what the rest can carry (pods): tolerance
    against flapping, a fraction of one pod so that it costs the same at 2 pods and at 200."""

    down_share: float = 0.25
    """Most pods removed per decision, as a share of those there (at least one): from 16 to 1 takes
    ten decisions, in any of which a rise stops it."""

    # -- what is known --------------------------------------------------------------------------
    fresh_s: float = 10.0
    """Age up to which the last signal of an Envoy still speaks for it (s): two decisions. It comes
    each second; a slow second, a pause of the collector or a lost message is not news."""

    forget_s: float = 30.0
    """Age at which an Envoy's share has faded to nothing (s), from `fresh_s` on. Long enough for a
    restart or a lost stream; its traffic has gone to other Envoys, which report it."""

    overdue_factor: float = 3.0
    """A starting pod counts as capacity already asked for until it is this many times older than
    pods typically are when ready: starts side by side on one machine slow each other down."""

    overdue_min_s: float = 30.0
    """No pod is overdue before this age (s): start times of a few seconds vary by more than 3."""


DEFAULT = Tuning()
