"""The load: when each request arrives and how much it asks for. The same for every policy.

A trace is cut to its window, scaled so that its busiest minute needs so many pods at the knee, and made
into single arrivals (see `arrivals`). The warm-up before the window comes from the trace; what the trace
does not have of it is steady, at the rate of the first minute that it does have. Arrivals and demands
come from streams of their own: another variation changes what requests ask for, not when they come.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, sqrt

import numpy as np
from numpy.random import Generator, SeedSequence, default_rng
from numpy.typing import NDArray

from trimtab.autoscaler.simulator.arrivals import BURST_A, MINUTE_S, Arrivals, Source, source_of
from trimtab.autoscaler.simulator.models import Model
from trimtab.autoscaler.simulator.rows import instant_s, instant_text, is_dated, wrong_time
from trimtab.autoscaler.simulator.traces import Trace
from trimtab.core.errors import InvalidInput

Floats = NDArray[np.float64]

LENGTH_MIN_S = 1.0
"""Less is no load, but a slip in --speed or a trace of one moment."""

LENGTH_MAX_DAYS = 100
"""Two months of a web server's log are simulated in minutes; what is known of each second takes 1 GB."""

DAY_S = 86_400.0

REST_MIN_S = 30.0
"""What a window has beyond its whole minutes is a minute of its own, if a short one, from here on. In less a
few requests are the rate (Azure's trace ends with 16 s that have half as many again as its busiest minute),
and the last one, with which a trace ends, may be a moment: it is looked at with what makes 60 s of it."""

REQUESTS_MAX = 100_000_000
"""Their times and demands take 1.6 GB."""


@dataclass(frozen=True)
class Window:
    """The part of a trace that is scored, in the trace's own time (None: to its edge), and its speed."""

    from_s: float | None = None
    to_s: float | None = None
    speed: float = 1.0  # time stamps are divided by this

    @classmethod
    def parse(cls, since: str = "", until: str = "", speed: float = 1.0) -> Window:
        """From ISO 8601 (or seconds); empty: to the edge. Raises InvalidInput."""
        return cls(_instant("--from", since), _instant("--to", until), speed)


@dataclass(frozen=True)
class Load:
    """Arrivals. Time begins at 0 with the warm-up; what comes from `warmup_s` to `end_s` is scored."""

    times_s: Floats  # (N,) rising
    demands_s: Floats  # (N,) service time of each at the knee's speed
    warmup_s: float
    end_s: float


def build_load(
    trace: Trace,
    model: Model,
    *,
    peak_pods: float,
    warmup_s: float = 0.0,
    burst_a: float | None = None,
    seed: int = 1,
    window: Window | None = None,
) -> Load:
    """The load that a trace puts on a model.

    `burst_a` is A of the cascade (20); requests and rates say by themselves when each comes, and have none.
    Raises InvalidInput for a window without requests or too short, and for too many requests.
    """
    window = window or Window()
    zero_s, until_s = _edges(trace, window)
    length_s = (until_s - zero_s) / window.speed
    source = source_of(trace, zero_s, until_s, window.speed, burst_a or BURST_A)
    factor = _factor(source, trace, model, peak_pods, length_s)
    _check_size(source, factor, warmup_s, length_s)
    for_arrivals, for_demands = map(default_rng, SeedSequence(seed).spawn(2))
    arrivals = _with_warmup(source, factor, warmup_s, length_s, for_arrivals)
    order = np.argsort(arrivals.times_s)
    demands_s = demands(model, order.size, for_demands)
    if arrivals.costs is not None:
        demands_s *= arrivals.costs[order]
    return Load(arrivals.times_s[order] + warmup_s, demands_s, warmup_s, warmup_s + length_s)


def _instant(option: str, text: str) -> float | None:
    try:
        return instant_s(text) if text else None
    except (ValueError, OverflowError):
        message, hint = wrong_time(text)
        raise InvalidInput(message, where=option, hint=hint) from None


def _edges(trace: Trace, window: Window) -> tuple[float, float]:
    """Where the scored window begins and ends, in the trace's time (s)."""
    _check_kind(trace, window)
    zero_s = trace.start_s if window.from_s is None else max(window.from_s, trace.start_s)
    until_s = trace.end_s if window.to_s is None else min(window.to_s, trace.end_s)
    if until_s <= zero_s:
        hint = f"the trace goes from {instant_text(trace.start_s)} to {instant_text(trace.end_s)}"
        raise InvalidInput("nothing of the trace lies between", where="--from, --to", hint=hint)
    if until_s - zero_s < window.speed * LENGTH_MIN_S:
        message = f"lasts {(until_s - zero_s) / window.speed:.2g} s"
        hint = f"at least {LENGTH_MIN_S:g} s are needed: more of the trace, or less --speed"
        raise InvalidInput(message, where=trace.name, hint=hint)
    days = (until_s - zero_s) / window.speed / DAY_S
    if days > LENGTH_MAX_DAYS:
        message = f"lasts {days:.0f} days, from {instant_text(zero_s)} to {instant_text(until_s)}"
        hint = f"at most {LENGTH_MAX_DAYS} are simulated: set --from and --to, more --speed, or mend a time"
        raise InvalidInput(message, where=trace.name, hint=hint)
    return zero_s, until_s


def _check_kind(trace: Trace, window: Window) -> None:
    """Raise InvalidInput for plain seconds on a trace of dates: they would be of 1970."""
    for option, at_s in (("--from", window.from_s), ("--to", window.to_s)):
        if at_s is not None and is_dated(trace.start_s) and not is_dated(at_s):
            begin, end = instant_text(trace.start_s), instant_text(trace.end_s)
            hint = f"write ISO 8601: the trace goes from {begin} to {end}"
            raise InvalidInput(
                f"`{instant_text(at_s)}` is no date, and the trace's are", where=option, hint=hint
            )


def _factor(source: Source, trace: Trace, model: Model, peak_pods: float, length_s: float) -> float:
    """What the trace's rate is multiplied by so that its busiest minute needs `peak_pods` at the knee."""
    busiest = _busiest(source, length_s)
    if busiest <= 0.0:
        hint = "give --from and --to around a time with requests"
        raise InvalidInput("no request lies in the window", where=trace.name, hint=hint)
    return peak_pods * model.knee / model.service_time_s / busiest


def _busiest(source: Source, length_s: float) -> float:
    """Work a second in the busiest minute, of which the last may be short, and in the 60 s before the end."""
    edges_s = _minutes(0.0, length_s)
    if edges_s.size > 2 and edges_s[-1] - edges_s[-2] < REST_MIN_S:
        edges_s = edges_s[:-1]
    rates = source.work(edges_s) / np.diff(edges_s)
    last_s = np.array([max(0.0, length_s - MINUTE_S), length_s])
    return float(max(rates.max(), source.work(last_s)[0] / np.ptp(last_s)))


def _check_size(source: Source, factor: float, warmup_s: float, length_s: float) -> None:
    begin_s, rate = _steady(source, factor, warmup_s, length_s)
    expected = factor * float(source.work(np.array([begin_s, length_s]))[0]) + rate * (begin_s + warmup_s)
    if expected > REQUESTS_MAX:
        hint = f"at most {REQUESTS_MAX} fit: shorten it with --from and --to or --speed, or lower --peak-pods"
        raise InvalidInput(f"would be {expected:.0f} requests", where="--trace", hint=hint)


def _steady(source: Source, factor: float, warmup_s: float, length_s: float) -> tuple[float, float]:
    """Until when the warm-up is steady as the trace has nothing there (s), and its requests a second."""
    until_s = max(-warmup_s, source.data_s)
    first_s = min(MINUTE_S, length_s - until_s)
    return until_s, factor * float(source.work(np.array([until_s, until_s + first_s]))[0]) / first_s


def _with_warmup(
    source: Source, factor: float, warmup_s: float, length_s: float, generator: Generator
) -> Arrivals:
    """Arrivals from -warmup_s to length_s."""
    begin_s, rate = _steady(source, factor, warmup_s, length_s)
    drawn = source.draw(begin_s, length_s, factor, generator)
    steady_s = generator.uniform(-warmup_s, begin_s, generator.poisson(rate * (begin_s + warmup_s)))
    costs = source.costs_of(steady_s.size, generator)
    return Arrivals(
        np.concatenate((steady_s, drawn.times_s)),
        None if costs is None or drawn.costs is None else np.concatenate((costs, drawn.costs)),
    )


def demands(model: Model, number: int, generator: Generator) -> Floats:
    """Lognormal service times of the model's mean and variation (s): positive, and now and then long."""
    sigma = sqrt(log(1.0 + model.service_time_cv**2))
    demands_s = generator.standard_normal(number)
    demands_s *= sigma
    demands_s -= sigma**2 / 2
    np.exp(demands_s, out=demands_s)
    demands_s *= model.service_time_s
    return demands_s


def _minutes(begin_s: float, end_s: float) -> Floats:
    """Edges of the minutes from `begin_s` on; the last one ends with `end_s`."""
    edges_s = np.arange(begin_s, end_s, MINUTE_S)
    return np.append(edges_s, end_s)


def offered_per_second(load: Load, model: Model) -> Floats:  # noqa: ARG001 -- demands are in its seconds
    """Requests that would be in flight in each second (mean), if each began at once and went as at the knee.

    Divided by the knee: the pods needed. Shape (seconds from 0 to the end,).
    """
    seconds = np.arange(int(np.ceil(load.end_s)) + 1.0)
    begun_s = _ramp(load.times_s, seconds)
    begun_s -= _ramp(load.times_s + load.demands_s, seconds)
    return np.diff(begun_s)


def _ramp(at_s: Floats, seconds: Floats) -> Floats:
    """Sum over `at_s` of max(0, second - at_s), for each second from 0 up by one. Shape (seconds,)."""
    whole = np.minimum(at_s.astype(np.int64) + 1, seconds.size)
    number = np.cumsum(np.bincount(whole, minlength=seconds.size + 1))[: seconds.size]
    total_s = np.cumsum(np.bincount(whole, weights=at_s, minlength=seconds.size + 1))[: seconds.size]
    return number * seconds - total_s


def least_pod_seconds(load: Load, model: Model, pods_min: int = 1) -> float:
    """Pod-seconds after the warm-up if each minute had just the pods that carry its work at the knee."""
    edges_s = _minutes(load.warmup_s, load.end_s)
    first = np.searchsorted(load.times_s, load.warmup_s)
    minute = ((load.times_s[first:] - load.warmup_s) / MINUTE_S).astype(np.int64)
    work_s = np.bincount(minute, weights=load.demands_s[first:], minlength=edges_s.size - 1)
    lengths_s = np.diff(edges_s)
    pods = np.ceil(work_s / lengths_s / model.knee)
    return float(np.maximum(pods, pods_min) @ lengths_s)
