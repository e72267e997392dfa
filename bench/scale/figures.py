"""Figures with their aims: what was measured, in words and as JSON. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True)
class Figure:
    """`value` is None where nothing could be measured, which misses any aim; some have none."""

    key: str
    words: str
    value: float | None
    unit: str
    aim: float | None = None  # at most

    @property
    def met(self) -> bool | None:
        """Whether its aim is; None if it has none."""
        if self.aim is None:
            return None
        return self.value is not None and self.value <= self.aim

    def line(self) -> str:
        """For people: a mark, what it is, how much, and the aim."""
        mark = {True: "✓", False: "✗", None: " "}[self.met]
        shown = "not measured" if self.value is None else f"{_short(self.value)} {self.unit}"
        aim = "" if self.aim is None else f"   (aim: at most {_short(self.aim)} {self.unit})"
        return f"{mark} {self.words:<68} {shown}{aim}"

    def plain(self) -> dict[str, Any]:
        """For programs."""
        return {
            "key": self.key,
            "value": None if self.value is None else round(self.value, 4),
            "unit": self.unit,
            "aim": self.aim,
            "met": self.met,
        }


def quantile(values: Sequence[float], part: float) -> float | None:
    """The smallest value that `part` of all values do not exceed; None of nothing."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(part * len(values)) - 1)]


def buckets(page: str, histogram: str) -> dict[float, float]:
    """How many values were at most so much, by the /metrics of a program; empty if it does not tell."""
    samples = (each for family in text_string_to_metric_families(page) for each in family.samples)
    return {float(each.labels["le"]): each.value for each in samples if each.name == f"{histogram}_bucket"}


def quantile_between(
    before: Mapping[float, float], after: Mapping[float, float], part: float
) -> float | None:
    """Of the values that came between two looks at a histogram, within a bucket as Prometheus has it.

    None of nothing; infinity if it is above all bounds.
    """
    counts = [(bound, count - before.get(bound, 0.0)) for bound, count in sorted(after.items())]
    rank = part * counts[-1][1] if counts else 0.0
    if rank <= 0.0:
        return None
    for (low, below), (high, within) in pairwise([(0.0, 0.0), *counts]):
        if within >= rank:
            return high if math.isinf(high) else low + (high - low) * (rank - below) / (within - below)
    return None


def dispatched(page: str, flow_schema: str) -> float:
    """How many requests of a FlowSchema the API server has let through, by its own /metrics."""
    name, wanted = "apiserver_flowcontrol_dispatched_requests_total{", f'flow_schema="{flow_schema}"'
    lines = (line for line in page.splitlines() if line.startswith(name) and wanted in line)
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
