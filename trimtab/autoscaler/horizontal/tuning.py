"""Every constant of the horizontal axis, with its unit, its purpose and the reason for its value."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Tuning:
    """Constants of `decide`. They hold for every model; tests and demonstrations may shorten windows.

    Seconds of the windows are *observed* seconds: time for which no Envoy reported does not pass.
    """

    # -- up: how a rise is seen ----------------------------------------------------------------
    up_window_s: int = 20
    """The longest window in which a rise is looked for (s); the shorter ones are 1, 2, 3, 5 and 10 s.
    A mean over 20 s alone would see a step only 19 to 24 s later; beyond it the down window holds."""

    short_window_s: int = 5
    """How far back the end of such a window may lie, and over how long gauges are looked at (s): one
    decision's worth, so that nothing falls between two decisions."""

    wait_share: float = 0.3
    """Longest wait that is planned for, in service times: arrivals of a window of w seconds must be served
    in w plus this wait. A third of what counts as late, since requests do not come evenly in a second."""

    wait_min_s: float = 0.03
    """The same for short service times (s): a third of the 100 ms below which nobody calls a request late."""

    doubt: float = 2.0
    """Standard errors taken off what came in a window: N requests are known to ±√N. A few requests that meet
    by chance prove nothing, and would keep a second pod for an endpoint that seldom needs its first."""

    doubt_max: float = 4.0
    """Most requests taken off so: of a hundred in a second each may wait for a pod."""

    slow_window_s: float = 60.0
    """Time constant of the slow mean of arrivals (s), or the service time where that is longer: the
    base under the windows. At 0.3 requests/s it is known to ±0.05."""

    slow_doubt: float = 3.0
    """Standard errors by which fewer requests in the last `up_window_s` than the slow mean has them show that
    the load has fallen: one in 700 by chance. From then on what they may stand for counts, not that mean."""

    horizon_s: float = 20.0
    """How far ahead arrivals can make work (s): what is held now plus this many seconds of arrivals
    bounds the demand, or one request that streams for minutes would count as dozens."""

    growth: float = 20.0
    """Most by which demand, and what a second's signal may count, grow in one decision, as a multiple of
    the load or the capacity there is, whichever is larger: a jump of ×10, and as much again for what queues
    until its pods are ready. ×100 passes in two decisions; one wild signal costs no more than that. Relative
    to pods alone, two per decision, ×10 took 14 s."""

    jump_ratio: float = 1.5
    """Arrivals of one second that keep this many times the pods busy that are ready or starting, while
    requests queue, are decided on at once (see `urgent`): less than that may wait for the next decision."""

    jump_queue: float = 0.25
    """The queue that goes with it, in what the ready pods can hold: a few waiting requests are chance."""

    # -- demand ---------------------------------------------------------------------------------
    headroom: float = 0.2
    """Slots kept free, in √load: concurrency of independent arrivals varies by the root of its mean. Beside
    it the largest load of the down window is held, seconds that brought more by chance included: both
    together come to 1.1 √load at 80 in flight, with which few wait (Halfin and Whitt, 1981)."""

    chance: float = 0.75
    """Least slots beside the mean of the last seconds, in √load. At rest the largest of such means in the
    down window is a third of a root higher, so that 1.1 √load are there as before. A load that rises, or that
    the brief window holds, has no such past: 0.2 √load alone made nearly all that was late on ramps."""

    chance_window_s: int = 10
    """Time over which that mean is taken (s): on a load that rises it is half as old as that: a decision."""

    drain_s: float = 3.0
    """Time in which a backlog should be gone (s): before the next decision looks. The pods for it leave with
    it, so that half the time costs little: ten seconds of them."""

    drain_share: float = 0.1
    """The same as a share of the typical start time, if that is more: whoever waited a minute for pods may
    wait six seconds more, and pods for a shorter drain would be there for less time than they start."""

    unknown_start_s: float = 10.0
    """The start time while none is known (s): a process with a model of some 100 MB, measured."""

    lindy: float = 10.0
    """For how much longer a rise may last, as a multiple of how long it has lasted: what has gone on for t
    goes on for 10 t more in one case of eleven (Lindy's law), which is what a late request is worth in spare
    pods. A burst of a second is so not taken for a minute of a cold start, but for ten seconds of it."""

    backlog_max: float = 5.0
    """Most slots for a backlog that is still to come, in loads: it is a forecast, and those in the queue
    count fully beside it."""

    rejected_share: float = 1.0
    """Most rejected requests that count, per accepted one: demand may read as double, and grows again
    by the next decision if it was real. A client that retries each second cannot multiply it."""

    # -- surges ---------------------------------------------------------------------------------
    surge_factor: float = 2.0
    """Spare slots for a spike relative to those seen: their heights have long tails, in which one in four is
    twice as high as the largest so far that another one exceeds (Pareto's law with exponent 2). Less of a
    slope, of which more rises were seen: see `surges`."""

    surge_margin: float = 0.4
    """The same beyond what a surge that stayed has reached, as a share of its rise: levels repeat themselves,
    and of the next ones that are higher most are so by less than this."""

    surge_stays: float = 0.5
    """Share of what a surge reached that the load keeps, for `surge_apart_s` in all, if the surge stays: a
    level wanders by less, and a spike is gone by then."""

    surge_recent_s: float = 600.0
    """A single surge makes others likely for so long (s): crowds and batches come in clusters, and ten
    minutes see two bursts that come back every five."""

    surge_window_s: float = 1800.0
    """The second largest surge within so long counts too (s): what came twice comes again."""

    surge_apart_s: float = 30.0
    """Rises that follow each other within a start time and this much more are one surge (s): a crowd needs
    some decisions to gather."""

    surge_least: float = 3.0
    """Least rise that is a surge (slots): fewer requests that meet are chance, however small the load. Of
    0.2 in flight, three and more meet once in a quarter of an hour."""

    surge_noise: float = 0.5
    """Rise over the largest load of the down window beyond which it is a surge, in √load: that largest load
    holds already what chance brings in five minutes, and seldom is more than this above it."""

    surge_begin: float = 0.75
    """Share of the load from which surges began (relative to what they reached, as now to what is held) at
    which the next one may be due: on a ramp that repeats, spare pods wait until the load is near again."""

    surge_near_s: float = 60.0
    """Time over which the load is looked at for that (s), or the start time if that is more: a lull
    between two bursts is no sign of calm."""

    surge_ratio_max: float = 5.0
    """A rise to this many times the load and more was no surge but a jump: spare pods for the next one would
    cost a multiple of the load itself, for as long as nothing happens."""

    surge_spare_max: float = 3.0
    """Most spare slots for surges, in loads: at four times the cost of the load nobody wants more."""

    surge_lead_max_s: float = 120.0
    """Longest start time over which a surge is looked at (s): beyond it a rise is a trend."""

    # -- surges by the clock --------------------------------------------------------------------
    rhythm_beats: int = 3
    """Surges, each as long after the one before, that are a rhythm: two intervals that agree to a few seconds
    of minutes do so by chance in one case of thirty."""

    rhythm_height: float = 2.0
    """Most by which two of them differ in height: what is twice as high is another kind of surge."""

    rhythm_least_s: float = 60.0
    """Shortest period (s): what comes more often the down window holds in any case."""

    rhythm_slack_s: float = 10.0
    """How far a surge may be from its time (s): two decisions, one at either end of an interval."""

    rhythm_lead: float = 1.5
    """How long before that pods are asked for, in start times: one start in ten takes so much longer."""

    rhythm_window_s: float = 14_400.0
    """How long surges are remembered for it (s): three that come each hour, and one more."""

    # -- service time ---------------------------------------------------------------------------
    settle_requests: float = 20.0
    """Completed requests after which the service time is known: with a spread as wide as its mean, the mean
    of 20 is known to a quarter."""

    service_window_s: float = 120.0
    """Time constant of the service time (s), its requests weighed alike. Long requests complete last: in a
    lull after a burst all that completes is long, but it is few. A weight per decision instead read 96 s
    for 2 s there, and asked for 25 times the pods."""

    service_growth: float = 3.0
    """Most by which the service time may grow per decision: a model cannot become slower at once than its
    requests last, and one wild signal must not be believed."""

    busy_weight: float = 0.2
    """Least weight of a decision's requests while others are queued: if requests became slower, pods are
    missing now, and the window would take minutes to say so."""

    busy_growth: float = 1.3
    """Most by which the service time may grow per decision while requests are queued. Pods that
    share cores seem slower the more of them run; a model that truly became three times slower is
    followed in five decisions."""

    service_min_s: float = 0.001
    """Least service time to grow from (s): what rounds to nothing must not stay nothing."""

    full_share: float = 0.85
    """Share of the ready slots that are in flight, at the end of each of the last seconds, from which pods
    are full. Servers that batch take longer then than with few in flight, and only that time tells how much
    they can do."""

    full_window_s: float = 1800.0
    """Time constant of the time that requests take in full pods (s): a property of the model, that loads
    show for seconds or minutes of an hour."""

    full_requests: float = 2000.0
    """Most requests that this time rests on: known to 2 % then, and anew after as many more."""

    stall_factor: float = 5.0
    """Service times without a completion after which the requests in flight are held to be of a
    longer kind: one in 150 lasts as long by chance (e^-5)."""

    stall_s: float = 10.0
    """The same for a service time that is short or unknown (s): two decisions without a completion.
    From then on each request in flight or queued is taken to need a slot of its own, as a stream does."""

    # -- more pods that do not help -------------------------------------------------------------
    help_gain: float = 0.2
    """Share of a proportional gain in throughput that more pods must bring while all of them are full;
    with less, something that they share is what binds."""

    help_pods: float = 1.25
    """Growth of the full pods from which that can be told: a quarter more pods, beyond the noise."""

    help_requests: float = 50.0
    """Completions that a decision needs to tell it: known to a seventh."""

    help_fall: float = 0.5
    """Share of the throughput before, below which more pods are not what made it fall."""

    help_again_s: float = 60.0
    """Time after which a quarter more pods are tried all the same (s): if the verdict was wrong, nobody
    waits for longer than a minute. Twice as long after each time that they brought nothing."""

    help_again_max_s: float = 1800.0
    """Longest such time (s): a dependency that recovers is noticed within half an hour."""

    help_settle_s: float = 5.0
    """Age from which a pod counts for it (s): a decision's worth of seconds in which it was full."""

    help_settle_times: float = 1.5
    """The same in times that a request took with fewer pods: what a new pod lets in is to have completed."""

    help_changes_max: int = 24
    """Changes of the number of ready pods that are looked back at: two minutes of them."""

    help_decisions: int = 3
    """Decisions in a row that must tell it: 15 s, in which caches and connections of new pods are warm."""

    # -- down -----------------------------------------------------------------------------------
    down_window_s: float = 300.0
    """A pod stays for as long as the largest demand of this window needs it (s). Users' bursts come
    back within minutes, and a pod costs a cold start each time it returns."""

    down_starts: float = 5.0
    """The same in start times, if that is more: a pod that takes two minutes to start is kept idle for ten.
    Keeping it that long costs a few times what starting it again does, and nobody waits for it."""

    lull_share: float = 0.25
    """Share of the window's largest demand below which load has dropped and may come back. From then on all
    that was held stays for one down window, or what expires in it would be removed in the midst of a drop."""

    brief_window_s: float = 60.0
    """The down window of a load that has shown that it needs no longer one (s): see `trial`. Knative's."""

    brief_starts: float = 2.0
    """The same in start times, if that is more."""

    trial_share: float = 0.7
    """A trial of the brief window runs where that would keep less than this share of what the long one keeps:
    a third of the pods is worth it, chance takes less."""

    trial_short: float = 1.25
    """A load that asks for more than this many times what the brief window has ready was not served by it;
    less is within what headroom and a short wait bear."""

    trial_height: float = 2.0
    """From how much higher than in those trials a load may fall: ramps to 20 tell nothing of 100."""

    trial_passes: int = 2
    """Trials in a row that must be passed: what happened once is chance."""

    down_slack_pods: float = 0.2
    """A pod is removed only if demand falls this far below what the rest can carry (pods): tolerance
    against flapping, a fraction of one pod so that it costs the same at 2 pods and at 200."""

    down_share: float = 0.25
    """Most pods removed per decision, as a share of those there (at least one): from 16 to 1 takes
    ten decisions, in any of which a rise stops it."""

    # -- what is known --------------------------------------------------------------------------
    zero_after_loss_s: float = 3600.0
    """Time for which the last pod stays after an Envoy fell silent that had requests (s): if only its
    statistics are lost they go on, and one pod costs less than nobody's answer to them."""

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

    overdue_unknown_s: float = 300.0
    """Age from which a pod is overdue while nothing is known of how long starts take (s): a model of 13 GB
    from a cold disk. A shorter one would replace the first pod again and again, and none would be ready."""

    replaced_share: float = 0.1
    """Share of the wanted pods, and at least one, that may start in place of others that are overdue. Where
    one is alone in being late, that is soon mended; where all are, starts are slow, and more of them make
    them slower."""


DEFAULT = Tuning()


def shortened(down_window_s: float) -> Tuning:
    """The constants with no memory beyond `down_window_s` (s): for demonstrations and tests of programs."""
    return replace(
        DEFAULT,
        down_window_s=down_window_s,
        down_starts=0.0,
        slow_window_s=min(DEFAULT.slow_window_s, down_window_s),
        surge_recent_s=min(DEFAULT.surge_recent_s, down_window_s),
        surge_window_s=min(DEFAULT.surge_window_s, down_window_s),
        rhythm_window_s=min(DEFAULT.rhythm_window_s, down_window_s),
    )
