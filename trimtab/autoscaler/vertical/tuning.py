"""The constants of the vertical axis, each with the reason for its value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LimitTuning:
    """What `decide_limit` goes by. Shares are 0 to 1; times in seconds; logarithms are natural."""

    # -- what is evidence -----------------------------------------------------------------------
    held_share: float = 0.8
    """In flight, as a share of the limit, from which a period of a pod tells what this limit gives.
    The horizontal axis keeps pods at 70 to 90 % of the limit: half of such periods count."""

    binds_share: float = 0.3
    """Share of such periods from which the limit, not the load, is what holds concurrency down."""

    settle_times: float = 2.0
    """Service times after a change in which nothing counts: requests let in before it are done then,
    and those let in after it have begun to complete."""

    settle_s: float = 2.0
    """Added to them: time until a limit is in force in every Envoy (s)."""

    first_s: float = 10.0
    """Time after the first signal of all in which nothing counts (s): pods fill up from nothing."""

    settle_max_s: float = 120.0
    """Longest time in which nothing counts (s); streams that last longer are told from their rate."""

    early_s: float = 600.0
    """Time after a change (s) in which what began before it is not taken for what the new limit gives, while
    the knee is looked for: requests of two minutes, doubled beyond the knee, take four to ten. They were let
    in together, so that a window soon after may see all of them complete."""

    early_max: int = 40
    """Windows of an exploration that are spent so: 20 min, and then what is known is what there is."""

    dispersion: float = 1.0
    """Variance over mean of completions in a period, until it is known: as of independent ones."""

    dispersion_min: float = 0.1
    """Least that is believed: requests of equal cost complete in step, until once they do not."""

    dispersion_weight: float = 40.0
    """Periods over which the dispersion is remembered: six of each of seven pods."""

    in_step: float = 0.1
    """Share of the squares of deviations that is left once the age of what is in flight is counted, below
    which completions come in step: of equal requests nothing is left, of independent ones all."""

    model_error: float = 0.005
    """Relative error of each throughput beside chance: periods cut at both ends, drifting costs."""

    # -- pods compared with each other ----------------------------------------------------------
    odd_pod: float = 0.4
    """How far a pod's time per request may be from the median pod's (logarithm: a factor of 1.5)
    before it is left out, and at least four standard errors: of 100 healthy pods none is."""

    failing_share: float = 0.2
    """Share of failed answers from which a pod is left out, if the median pod has less than half."""

    # -- finding the knee -----------------------------------------------------------------------
    aim: float = 0.975
    """Share of the best throughput that the limit is to reach: the last 3 % cost the most latency. Half
    a percent is for the best being measured at few limits only, and so a little below what it is."""

    aim_slack: float = 0.05
    """Most by which chance lowers that aim: of two limits that the evidence cannot tell apart the
    lower one is right, as its latency is the better one for certain."""

    step_earns: float = 0.1
    """Throughput that one request more in flight must bring, over the latency that it costs, for
    `aim_slack` to matter: between 3 and 4 it is much, between 100 and 101 nothing."""

    step_up: float = 2.0
    """Most by which a limit grows per decision. Beyond the knee latency grows with the limit, and a
    wrong step doubles it for half a minute."""

    step_down: float = 4.0
    """Most by which it falls: quick to lower. Under the knee throughput falls with the limit."""

    gain_min: float = 0.035
    """Least gain of throughput by which a doubled limit counts as better. Where it saturates
    smoothly, all further doublings together bring about as much again."""

    gain_saturated: float = 0.2
    """The same while the processors are saturated or tasks wait for I/O: then gain is chance."""

    near: float = 0.04
    """Difference between two limits (logarithm) that is not worth a change: less than the noise of
    latency, and a throughput within 4 % on every curve that bends downwards."""

    explore_decisions: int = 9
    """Decisions in which the limit binds after which exploring ends with what is known, unless
    throughput still grows with each doubling: the tenth finds it at rest."""

    sure: float = 0.02
    """Relative error of throughput at the knee with which exploring ends early: less than half of what
    the limit may be off."""

    unlikely: float = 4.0
    """How much worse than the best curve (Akaike) one must be to be left out: a seventh of its weight."""

    likely: float = 0.1
    """Weight from which a curve that has a lower knee than all of them together is worth a probe there."""

    edge_late: float = 0.015
    """Growth that a doubling lacks to be in proportion (share), beyond doubt, from which the knee is taken
    to lie within it when `explore_decisions` are used up: one more doubling would come too late."""

    once_more_spare: int = 2
    """Decisions that must be left of them for a limit to be tried a second time: there, and back."""

    gain_late: float = 0.35
    """Gain (logarithm) by which a doubling must have brought half of itself to go on when they are used up:
    with less the knee lies within it, or is passed smoothly, and latency would double for nothing."""

    explore_max: int = 30
    """The same without exception."""

    # -- what does not fit -----------------------------------------------------------------------
    odd_window: float = 0.3
    """How far throughput may be from what was seen at the same limit (logarithm) before the window
    is set aside, and at least `odd_errors` standard errors: a poisonous minute, not a lesson."""

    odd_errors: float = 4.0
    """See `odd_window`. Heavy tails of cost put one window of a thousand there."""

    odd_most: float = 1.2
    """Distance (logarithm: to 30 %) beyond which no spread of costs excuses a window, if there were
    completions enough."""

    odd_spread: float = 16.0
    """Dispersion of completions within one window, over the usual one and at least 1, that costs do not
    have by chance: a disturbance began or ended in it, and exploring sets it aside."""

    odd_drift: float = 0.2
    """And how far periods are from their mean then, at least (standard deviation, relative): a sixth of
    the window at a half is 0.2. Others on the same machine take a tenth for a while, now and then."""

    odd_noise: float = 4.0
    """Most by which one window's dispersion may exceed what was usual, to count for what is usual."""

    odd_windows_max: int = 4
    """Such windows in a row that restart exploring: a minute touches three. While exploring only."""

    contradicted_errors: float = 3.0
    """Standard errors, by the number of completions alone, by which two windows at the same limit must differ
    while exploring, and at least by `odd_most`, for what is found to be looked for once more. One more, and
    the window is set aside; of a dozen completions in each it is that factor of three."""

    few: float = 0.2
    """Relative error of throughput from which `implausible` falls are looked at once more when it is quiet:
    that of twenty-five requests, of which one more that is costly tells nothing."""

    doubted_growth: float = 4.0
    """By how much `rest_s` grows before the next such look, if the last one was contradicted as well, to an
    hour, 4, 16: where traffic is never alike, looking again tells nothing, and costs changes."""

    doubted_max: int = 5
    """Looks after which it grows no more: one in two or three days."""

    collapse: float = 0.35
    """Fall of throughput (logarithm: to 70 %) at a higher limit that is not believed at once: the
    lower limit is tried again, to tell a collapse from costs that rose meanwhile."""

    implausible: float = 1.4
    """Such a fall (to a quarter) by one doubling is rather costs: the limit is given a second chance."""

    # -- at rest ----------------------------------------------------------------------------------
    memory_windows: int = 20
    """Windows over which throughput at rest is remembered (10 min): slow drift is followed."""

    known_windows: int = 4
    """Windows from which throughput at rest is known well enough to notice a change by it."""

    changed: float = 0.3
    """How far throughput must be from it (logarithm: by a third), and at least `changed_errors`,
    for a window to speak for a change of the profile: less would hardly move the knee."""

    changed_errors: float = 2.5
    """Standard errors. Requests that last for minutes make ten windows in a row alike, by chance."""

    slower_windows: tuple[int, int] = (8, 10)
    """Windows that must speak for a slower profile, of so many: 5 min. A poisonous minute, whose last
    requests cost 100 times 1 s, is over after half of it."""

    faster_windows: tuple[int, int] = (12, 14)
    """The same for a faster one: quick to lower, slow to raise."""

    rest_s: float = 900.0
    """Rest after exploring, in which no change of the profile is looked for (s)."""

    reconsider_s: float = 3600.0
    """Rest after which all that was seen is looked at again (s): one change an hour is not unrest."""

    worth: float = 0.2
    """Difference between two limits (logarithm) that is worth leaving rest for: a fifth of latency."""

    apply_s: float = 60.0
    """Time in which a limit must come into force (s); after it, what is in force is what counts as evidence.
    Exploring goes on from there; a knee that was found is still asked for."""

    # -- bands: a metric counts from the first share on, until it falls below the second ------------
    memory_band: tuple[float, float] = (0.9, 0.8)
    """Resident memory over its limit. The kernel kills at 1; requests come in tenths."""

    memory_limits: int = 4
    """Limits of which the memory in use is remembered, to draw a line through three of them: the nearest."""

    memory_urgent: float = 0.96
    """Memory share at which one window is enough."""

    gpu_memory_band: tuple[float, float] = (0.9, 0.8)
    """GPU memory in use, if it grew. An allocation that does not fit fails, and nothing is reclaimed."""

    gpu_memory_grown: float = 0.05
    """By how much of the whole it must have grown since the least that was seen. Many servers take nearly
    all of it at their start (vLLM 0.9, TensorFlow more) and never more: full at any limit is no stress."""

    cache_band: tuple[float, float] = (0.9, 0.75)
    """Key-value cache in use, while requests wait in the server: beyond it requests are preempted."""

    server_queue: float = 0.1
    """Share of a pod's requests that wait in the server, from which a full cache is too full."""

    cpu_band: tuple[float, float] = (0.95, 0.85)
    """Processor time over the pod's cores."""

    compute_band: tuple[float, float] = (0.85, 0.75)
    """Tensor or half-precision pipes of the GPU: kernels reach little more. Its utilisation is not
    asked: it pins near 90 % at any load."""

    bandwidth_band: tuple[float, float] = (0.75, 0.65)
    """Share of cycles in which the GPU's memory moved data: 0.8 is the most in practice (DCGM's manual)."""

    io_band: tuple[float, float] = (0.6, 0.4)
    """Share of time in which some task waited for I/O."""

    band_windows: int = 2
    """Windows for which a metric must hold beyond its band."""

    pressed_step: float = 0.75
    """What a metric beyond its band leaves of the limit."""

    pressed_gain: float = 0.01
    """How far a metric must have fallen after that for another such step: else it was not the limit."""


DEFAULT = LimitTuning()
