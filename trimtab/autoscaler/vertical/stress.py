"""Metrics with a band of their own: which hold beyond it, and what that asks of the limit.

Memory, a GPU's memory that grew, and the key-value cache lower the limit. Processors, compute pipes, memory
bandwidth and I/O wait never do: they only say that more throughput from a higher limit would be chance.
Of a GPU that others share the figures are theirs as much: they are shown, and decide nothing.
"""

from __future__ import annotations

from dataclasses import replace
from math import floor, inf
from typing import NamedTuple

from trimtab.autoscaler.vertical.evidence import Window
from trimtab.autoscaler.vertical.metrics import Metrics
from trimtab.autoscaler.vertical.state import LimitState, Pressed
from trimtab.autoscaler.vertical.tuning import LimitTuning
from trimtab.core.decision import LimitCandidate

MEMORY, GPU_MEMORY, CACHE = "memory", "gpu memory", "cache"
CPU, COMPUTE, BANDWIDTH, IO = "cpu", "compute", "bandwidth", "io wait"


class _Gauge(NamedTuple):
    metric: str
    value: float | None
    band: tuple[float, float]


def press(state: LimitState, metrics: Metrics, tuning: LimitTuning) -> LimitState:
    """The state with the metrics beyond their bands after this window. An unknown one stays what it was."""
    if metrics.gpu_own and metrics.gpu_memory is not None:
        least = min(state.gpu_memory_least, metrics.gpu_memory)
        state = replace(state, gpu_memory_least=least)
    before = {each.metric: each for each in state.pressed}
    after = []
    for gauge in _gauges(state, metrics, tuning):
        known, value = before.get(gauge.metric), gauge.value
        if value is None or (known and gauge.band[1] <= value < gauge.band[0]):
            after += [known] if known else []
        elif value >= gauge.band[0]:
            windows = known.windows + 1 if known else 1
            after.append(Pressed(gauge.metric, windows, known.lowered_at if known else None))
    return replace(state, pressed=tuple(after))


def with_memory(state: LimitState, window: Window, limit: int, tuning: LimitTuning) -> LimitState:
    """The state with the memory in use at this limit, if pods held it."""
    share = window.metrics.memory
    if share is None or not window.binds(tuning):
        return state
    others = [point for point in state.memory if point[0] != limit]
    nearest = sorted(others, key=lambda point: abs(point[0] - limit))[: tuning.memory_limits - 1]
    return replace(state, memory=tuple(sorted([*nearest, (limit, share)])))


def most_in_memory(state: LimitState, limit: int, tuning: LimitTuning) -> float:
    """The highest limit whose requests fit into memory, drawn on from this and two lower ones; inf: any.

    Memory at 84 % is in its band, and twice the requests that took 64 % of it are killed. What the first
    requests take once grows from one limit to another, but not to a third. Never below the limit in force:
    of that the band itself decides.
    """
    shares = dict(state.memory)
    lower = [each for each in shares if each < limit]
    if limit not in shares or len(lower) < 2:
        return inf
    one, other = sorted(lower)[-2:]
    each = min((shares[b] - shares[a]) / (b - a) for a, b in ((one, other), (other, limit)))
    room = sum(tuning.memory_band) / 2 - shares[limit]  # short of where it presses
    return limit + max(0.0, room) / each if each > 0.0 else inf


def saturated(pressed: tuple[Pressed, ...], metrics: Metrics) -> str:
    """What is saturated, so that a gain of throughput would be chance; empty if nothing is.

    A model on a GPU may keep a core busy with waiting for it.
    """
    metric_names = {each.metric for each in pressed}
    if COMPUTE in metric_names:
        return "the GPU's compute pipes are saturated"
    if BANDWIDTH in metric_names:
        return "the GPU's memory bandwidth is saturated"
    if CPU in metric_names and metrics.gpu_pods is None:
        return "its cores are saturated"
    return "tasks wait for I/O" if IO in metric_names else ""


def lower(
    pressed: tuple[Pressed, ...], window: Window, limit: int, tuning: LimitTuning
) -> LimitCandidate | None:
    """The lower limit that a metric beyond its band asks for; None if none does.

    A second step needs that the first one helped; and what is far from its limit is not there by it.
    """
    if window.in_flight is None or max(window.in_flight, window.at_envoy or 0.0) < limit / 2:
        return None
    metrics = window.metrics
    for each in pressed:
        value = _lowering(metrics).get(each.metric)
        if value is None or (each.lowered_at is not None and value > each.lowered_at - tuning.pressed_gain):
            continue
        urgent = each.metric != CACHE and value >= tuning.memory_urgent
        if each.windows < tuning.band_windows and not urgent:
            continue
        if each.metric != CACHE:
            why = f"memory is at {value:.0%} of what the pod may use"
            if each.metric == GPU_MEMORY:
                why = f"the GPU's memory is {value:.0%} full, and grew with the requests in flight"
            return LimitCandidate(each.metric, max(1, floor(limit * tuning.pressed_step)), why)
        waiting = metrics.server_queue
        if waiting is not None and waiting >= tuning.server_queue:
            queue = f"{waiting:.0%} of the requests wait in the server"
            why = f"the key-value cache is {value:.0%} full while {queue}"
            share = max(1.0 / tuning.step_down, min(tuning.pressed_step, 1.0 - waiting))
            return LimitCandidate(CACHE, max(1, floor(limit * share)), why)
    return None


def lowered(pressed: tuple[Pressed, ...], metric: str, metrics: Metrics) -> tuple[Pressed, ...]:
    """Remember the value of the metric for which the limit was just lowered, and count anew."""
    value = _lowering(metrics).get(metric)
    return tuple(replace(p, windows=0, lowered_at=value) if p.metric == metric else p for p in pressed)


def _lowering(metrics: Metrics) -> dict[str, float | None]:
    """The metrics that may lower the limit."""
    return {MEMORY: metrics.memory, GPU_MEMORY: metrics.gpu_memory, CACHE: metrics.cache}


def _gauges(state: LimitState, metrics: Metrics, tuning: LimitTuning) -> tuple[_Gauge, ...]:
    compute, bandwidth, used = metrics.compute, metrics.bandwidth, metrics.gpu_memory
    if metrics.gpu_pods is not None and not metrics.gpu_own:
        compute = bandwidth = used = 0.0
    if used is not None and used - state.gpu_memory_least < tuning.gpu_memory_grown:
        used = 0.0
    return (
        _Gauge(MEMORY, metrics.memory, tuning.memory_band),
        _Gauge(GPU_MEMORY, used, tuning.gpu_memory_band),
        _Gauge(CACHE, metrics.cache, tuning.cache_band),
        _Gauge(CPU, metrics.cpu, tuning.cpu_band),
        _Gauge(COMPUTE, compute, tuning.compute_band),
        _Gauge(BANDWIDTH, bandwidth, tuning.bandwidth_band),
        _Gauge(IO, metrics.io_wait, tuning.io_band),
    )
