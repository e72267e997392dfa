"""What a simulation gave, as a table for people and as a document for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from trimtab.autoscaler.simulator.score import Score

SCHEMA_VERSION = 1

KEYS = (
    "policy",
    "seed",
    "arrivals",
    "late_share",
    "rejected_share",
    "unfinished",
    "p50_s",
    "p99_s",
    "pod_hours",
    "least_pod_hours",
    "pods_peak",
    "scale_events",
    "capped_share",
    "overshoot_pods",
)
"""Of each run, in this order: what programs rely on, whatever else a score may learn to tell."""

HEADS = (
    "POLICY",
    "LATE",
    "REJECTED",
    "UNFINISHED",
    "P50",
    "P99",
    "POD-HOURS",
    "COST",
    "PEAK",
    "CHANGES",
    "CAPPED",
    "OVERSHOOT",
)
LEGEND = (
    "COST: pod-hours over the least that carries the load at the knee; PEAK, OVERSHOOT: the most, in pods"
)


def document(parameters: Mapping[str, Any], scores: Sequence[Score]) -> dict[str, Any]:
    """All runs, as JSON's own types. A quantile is None where nothing finished."""
    runs = [{key: getattr(score, key) for key in KEYS} for score in scores]
    return {"schema_version": SCHEMA_VERSION, "parameters": dict(parameters), "runs": runs}


def table(scores: Sequence[Score]) -> list[tuple[str, ...]]:
    """A row of cells per policy, as in `HEADS`: means over its seeds, but the most of peak and overshoot."""
    policies = dict.fromkeys(score.policy for score in scores)
    return [_row(name, [score for score in scores if score.policy == name]) for name in policies]


def _row(policy: str, scores: Sequence[Score]) -> tuple[str, ...]:
    return (
        policy,
        _percent(fmean([score.late_share for score in scores])),
        _percent(fmean([score.rejected_share for score in scores])),
        f"{fmean([score.unfinished for score in scores]):.0f}",
        _seconds([score.p50_s for score in scores]),
        _seconds([score.p99_s for score in scores]),
        f"{fmean([score.pod_hours for score in scores]):.2f}",
        f"{fmean([score.cost for score in scores]):.2f}",
        f"{max(score.pods_peak for score in scores)}",
        f"{fmean([score.scale_events for score in scores]):.0f}",
        _percent(fmean([score.capped_share for score in scores])),
        f"{max(score.overshoot_pods for score in scores)}",
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _seconds(times_s: Sequence[float | None]) -> str:
    """The mean; `-` if nothing finished in some run."""
    known = [time_s for time_s in times_s if time_s is not None]
    if len(known) < len(times_s):
        return "-"
    mean_s = fmean(known)
    return f"{mean_s:.2f} s" if mean_s >= 1 else f"{1000 * mean_s:.0f} ms"
