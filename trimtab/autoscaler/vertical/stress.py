"""Metrics with a band of their own: which hold beyond it, and what that asks of the limit.

Memory and the key-value cache lower the limit. Processors, compute pipes and I/O wait never do: they
only say that more throughput from a higher limit would be chance.
"""

from __future__ import annotations

from dataclasses import replace
from math import floor
from typing import NamedTuple

from trimtab.autoscaler.vertical.evidence import Window
from trimtab.autoscaler.vertical.metrics import Metrics
from trimtab.autoscaler.vertical.state import Pressed
from trimtab.autoscaler.vertical.tuning import LimitTuning
from trimtab.core.decision import LimitCandidate

MEMORY, CACHE, CPU, COMPUTE, IO = "memory", "cache", "cpu", "compute", "io wait"


class _Gauge(NamedTuple):
    metric: str
    value: float | None
    band: tuple[float, float]


def press(pressed: tuple[Pressed, ...], metrics: Metrics, tuning: LimitTuning) -> tuple[Pressed, ...]:
    """The metrics beyond their bands after this window. An unknown one stays what it was."""
    before = {each.metric: each for each in pressed}
    after = []
    for gauge in _gauges(metrics, tuning):
        known, value = before.get(gauge.metric), gauge.value
        if value is None or (known and gauge.band[1] <= value < gauge.band[0]):
            after += [known] if known else []
        elif value >= gauge.band[0]:
            windows = known.windows + 1 if known else 1
            after.append(Pressed(gauge.metric, windows, known.lowered_at if known else None))
    return tuple(after)


def saturated(pressed: tuple[Pressed, ...], metrics: Metrics) -> str:
    """What is saturated, so that a gain of throughput would be chance; empty if nothing is.

    A model on a GPU may keep a core busy with waiting for it.
    """
    metric_names = {each.metric for each in pressed}
    if COMPUTE in metric_names:
        return "the GPU's compute pipes are saturated"
    if CPU in metric_names and metrics.gpu is None and metrics.compute is None:
        return "its cores are saturated"
    return "tasks wait for I/O" if IO in metric_names else ""


def lower(
    pressed: tuple[Pressed, ...], window: Window, limit: int, tuning: LimitTuning
) -> LimitCandidate | None:
    """The lower limit that a metric beyond its band asks for; None if none does.

    A second step needs that the first one helped; and what is far from its limit is not there by it.
    """
    if window.in_flight is None or window.in_flight < limit / 2:
        return None
    metrics = window.metrics
    for each in pressed:
        value = {MEMORY: metrics.memory, CACHE: metrics.cache}.get(each.metric)
        if value is None or (each.lowered_at is not None and value > each.lowered_at - tuning.pressed_gain):
            continue
        urgent = each.metric == MEMORY and value >= tuning.memory_urgent
        if each.windows < tuning.band_windows and not urgent:
            continue
        if each.metric == MEMORY:
            why = f"memory is at {value:.0%} of what the pod may use"
            return LimitCandidate(MEMORY, max(1, floor(limit * tuning.pressed_step)), why)
        waiting = metrics.server_queue
        if waiting is not None and waiting >= tuning.server_queue:
            queue = f"{waiting:.0%} of the requests wait in the server"
            why = f"the key-value cache is {value:.0%} full while {queue}"
            share = max(1.0 / tuning.step_down, min(tuning.pressed_step, 1.0 - waiting))
            return LimitCandidate(CACHE, max(1, floor(limit * share)), why)
    return None


def lowered(pressed: tuple[Pressed, ...], metric: str, metrics: Metrics) -> tuple[Pressed, ...]:
    """Remember the value of the metric for which the limit was just lowered, and count anew."""
    value = {MEMORY: metrics.memory, CACHE: metrics.cache}.get(metric)
    return tuple(replace(p, windows=0, lowered_at=value) if p.metric == metric else p for p in pressed)


def _gauges(metrics: Metrics, tuning: LimitTuning) -> tuple[_Gauge, ...]:
    return (
        _Gauge(MEMORY, metrics.memory, tuning.memory_band),
        _Gauge(CACHE, metrics.cache, tuning.cache_band),
        _Gauge(CPU, metrics.cpu, tuning.cpu_band),
        _Gauge(COMPUTE, metrics.compute, tuning.compute_band),
        _Gauge(IO, metrics.io_wait, tuning.io_band),
    )
