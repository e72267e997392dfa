"""How late and how dear: trimtab's autoscaler against the others, over traces, models and cold starts.

    python -m bench.autoscaler [--short] [--drawn SEED] [--json] [--jobs N]

Each cell is one trace, one model and one cold start; every policy sees the same arrivals and demands. The
busiest minute needs 20 pods of the 100 that the range allows. Cells in which nobody is late do not count.
The others are swept over their targets, which gives the best that any tuning of them can reach: a
frontier of lateness over cost. A cell in which somebody beats ours is dominated. Whoever keeps pods for the
down window of 300 s pays for that, however much it knows: what it pays at least is shown beside.
`--short` takes one seed and one cold start. `--drawn SEED` takes loads that the seed makes (`bench/drawn.py`)
instead of the traces: what nobody has looked at while choosing constants.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise, product
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from bench.drawn import drawn
from trimtab.autoscaler.horizontal.tuning import DEFAULT
from trimtab.autoscaler.simulator.load import Load, Window, build_load, least_pod_seconds, offered_per_second
from trimtab.autoscaler.simulator.models import Model, load_model
from trimtab.autoscaler.simulator.policies.catalog import parse
from trimtab.autoscaler.simulator.run import run_policy
from trimtab.autoscaler.simulator.score import Score
from trimtab.autoscaler.simulator.shapes import parse_trace
from trimtab.autoscaler.simulator.traces import Trace

TRACES = Path(__file__).parent / "traces"
NASA = (str(TRACES / "nasa-http-1995-per-minute.csv.gz"), "1995-07-13T09:00:00", "1995-07-13T13:00:00")
AZURE = (str(TRACES / "azure-llm-code-2023.csv.gz"), "", "")
LOADS = {"nasa": NASA, "azure": AZURE, "steps": ("step:10", "", ""), "sawtooth": ("sawtooth", "", "")}
MODELS = ("cpu", "gpu", "io")
COLD_STARTS_S = (2.0, 10.0, 60.0)
SEEDS = (1, 2, 3)
PEAK_PODS = 20.0
WARMUP_S = 600.0

FAMILIES = ("kpa", "hpa", "keda", "ray")
TARGETS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
SWEPT = tuple(f"{family}:target={target:g}" for family, target in product(FAMILIES, TARGETS))
REFERENCE = "clairvoyant"
KEEPS = "keeps 300 s"  # a label: knows the load, starts pods at once, and keeps them for the down window

POINT = 0.001  # 0.1 percentage points: less is no difference
LATE_MAX = 0.1  # a baseline as shipped that is later than that does not count as serving


@dataclass(frozen=True, order=True)
class Cell:
    """One load on one model with one cold start."""

    load: str
    model: str
    cold_start_s: float
    drawn: int | None = None  # the seed that makes the load

    def __str__(self) -> str:
        return f"{self.load} {self.model} {self.cold_start_s:g} s"


class Point(NamedTuple):
    """One policy in one cell, the mean over the seeds."""

    late: float  # share of the arrivals
    cost: float  # pod-hours over the least that would do
    pod_hours: float


Table = dict[Cell, dict[str, Point]]


def play(cell: Cell, seed: int, policies: tuple[str, ...]) -> tuple[Cell, list[Score]]:
    """Every policy on one load."""
    model = load_model(cell.model)
    trace, since, until = _trace(cell)
    load = build_load(
        trace,
        model,
        peak_pods=PEAK_PODS,
        warmup_s=WARMUP_S,
        seed=seed,
        window=Window.parse(since, until),
    )
    scores = [
        run_policy(parse(policy), load, model, cold_start_s=cell.cold_start_s, seed=seed).score
        for policy in policies
    ]
    return cell, [*scores, keeping(load, model, scores[0])]


def _trace(cell: Cell) -> tuple[Trace, str, str]:
    """The load, and from when to when it is played (empty: to its edge)."""
    if cell.drawn is not None:
        return drawn(cell.drawn)[cell.load], "", ""
    name, since, until = LOADS[cell.load]
    return parse_trace(name), since, until


def keeping(load: Load, model: Model, like: Score) -> Score:
    """The least that a policy costs which keeps pods for the down window: nobody is late, nothing is spare.

    Pods of each second are those that the largest mean of 5 s within the window before it needs.
    """
    offered = np.convolve(offered_per_second(load, model), np.full(5, 0.2), "same") / model.knee
    window = int(DEFAULT.down_window_s)
    padded = np.concatenate((np.zeros(window), offered))
    pods = np.ceil(sliding_window_view(padded, window + 1).max(axis=1))
    scored = pods[int(load.warmup_s) : int(load.end_s)]
    least_s = least_pod_seconds(load, model)
    hours = float(np.maximum(1.0, scored).sum()) / 3600.0
    return replace(like, policy=KEEPS, late_share=0.0, pod_hours=hours, least_pod_hours=least_s / 3600.0)


def table(cells: Iterable[Cell], seeds: tuple[int, ...], policies: tuple[str, ...], jobs: int) -> Table:
    """Each policy in each cell."""
    scores: dict[Cell, dict[str, list[Score]]] = defaultdict(lambda: defaultdict(list))
    wanted = list(product(cells, seeds))
    with ProcessPoolExecutor(jobs) as pool:
        running = [pool.submit(play, cell, seed, policies) for cell, seed in wanted]
        for done, future in enumerate(running, 1):
            cell, found = future.result()
            for score in found:
                scores[cell][score.policy].append(score)
            print(f"\r{done}/{len(wanted)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return {cell: {name: _mean(found) for name, found in by.items()} for cell, by in scores.items()}


def _mean(scores: list[Score]) -> Point:
    return Point(
        fmean(score.late_share for score in scores),
        fmean(score.cost for score in scores),
        fmean(score.pod_hours for score in scores),
    )


def counted(found: Table) -> Table:
    """The cells in which some policy is late at all."""
    return {cell: points for cell, points in found.items() if any(p.late > 0 for p in points.values())}


def frontier(found: Table) -> list[tuple[float, float, str]]:
    """(mean cost, summed lateness, policy) of those tunings that nobody beats in both, by cost."""
    rows = sorted(
        (
            fmean(points[name].cost for points in found.values()),
            sum(points[name].late for points in found.values()),
            name,
        )
        for name in SWEPT
    )
    kept: list[tuple[float, float, str]] = []
    for cost, late, name in rows:
        if not kept or late < kept[-1][1]:
            kept.append((cost, late, name))
    return kept


def at_cost(line: list[tuple[float, float, str]], cost: float) -> float:
    """The frontier's summed lateness at a cost: straight between its points, flat beyond its ends."""
    if cost <= line[0][0]:
        return line[0][1]
    for (cost_a, late_a, _), (cost_b, late_b, _) in pairwise(line):
        if cost <= cost_b:
            return late_a + (late_b - late_a) * (cost - cost_a) / (cost_b - cost_a)
    return line[-1][1]


def dominating(points: dict[str, Point]) -> str:
    """Who is not dearer and less late than ours, or not later and 10 % cheaper; empty if nobody is."""
    ours = points["ours"]
    for name in (*SWEPT, *FAMILIES):
        other = points[name]
        less_late = other.cost <= ours.cost and other.late < ours.late - POINT
        cheaper = other.late <= ours.late + POINT and other.cost <= 0.9 * ours.cost
        if less_late or cheaper:
            return name
    return ""


def verdict(found: Table) -> dict[str, Any]:
    """The figures that decide, over the cells that count."""
    line = frontier(found)
    cost = fmean(points["ours"].cost for points in found.values())
    late = sum(points["ours"].late for points in found.values())
    by_cell = {str(cell): name for cell, points in found.items() if (name := dominating(points))}
    shipped = {
        name: (
            fmean(points[name].late for points in found.values()),
            sum(points[name].pod_hours for points in found.values()),
        )
        for name in FAMILIES
    }
    ours_hours = sum(points["ours"].pod_hours for points in found.values())
    serving = {name: at for name, at in shipped.items() if at[0] < LATE_MAX}
    best = min(serving, key=lambda name: serving[name]) if serving else ""
    return {
        "cells": len(found),
        "ours": {"cost": cost, "late": late, "pod_hours": ours_hours},
        "frontier": [{"policy": name, "cost": c, "late": at} for c, at, name in line],
        "ratio_to_frontier": late / at_cost(line, cost),
        "dominated_share": len(by_cell) / len(found),
        "dominated": by_cell,
        "shipped": {name: {"late": at, "pod_hours": hours} for name, (at, hours) in shipped.items()},
        "best_shipped": best,
        "ratio_to_shipped_late": late / len(found) / serving[best][0] if best else None,
        "ratio_to_shipped_pod_hours": ours_hours / serving[best][1] if best else None,
        "clairvoyant": {
            "cost": fmean(points[REFERENCE].cost for points in found.values()),
            "late": sum(points[REFERENCE].late for points in found.values()),
        },
    }


def show(found: Table, result: dict[str, Any]) -> None:
    """The table and the verdict for people."""
    print(f"{'cell':22}{'ours':>16}{'clairvoyant':>16}{KEEPS:>14}   nearest of the others at no more cost")
    for cell, points in sorted(found.items()):
        ours, best = points["ours"], points[REFERENCE]
        affordable = [(points[name].late, name) for name in SWEPT if points[name].cost <= ours.cost]
        late, name = min(affordable, default=(float("nan"), ""))
        who = result["dominated"].get(str(cell))
        mark = f"  dominated by {who} ({points[who].cost:.2f}×)" if who else ""
        print(
            f"{cell!s:22}{ours.late:8.2%} {ours.cost:6.2f}×{best.late:8.2%} {best.cost:6.2f}×"
            f"{points[KEEPS].cost:13.2f}×"
            f"   {f'{late:.2%} {name}' if name else 'none is as cheap'}{mark}"
        )
    print(json.dumps({key: value for key, value in result.items() if key != "dominated"}, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--short", action="store_true", help="one seed, a cold start of 10 s")
    parser.add_argument("--drawn", type=int, metavar="SEED", help="loads that this seed makes")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    cold_starts_s = (10.0,) if options.short else COLD_STARTS_S
    loads = LOADS if options.drawn is None else drawn(options.drawn)
    cells = [Cell(*at, options.drawn) for at in product(loads, MODELS, cold_starts_s)]
    policies = ("ours", *FAMILIES, *SWEPT, REFERENCE)
    found = counted(table(cells, SEEDS[:1] if options.short else SEEDS, policies, options.jobs))
    result = verdict(found)
    if options.json:
        cells_told = {
            str(cell): {k: v._asdict() for k, v in points.items()} for cell, points in found.items()
        }
        print(json.dumps(result | {"table": cells_told}))
    else:
        show(found, result)


if __name__ == "__main__":
    main()
