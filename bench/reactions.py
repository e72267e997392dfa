"""How trimtab's autoscaler reacts to a step, a drop, and to nothing at all.

    python -m bench.reactions [--json]

For each of the simulator's models, a cold start of 10 s, 20 peak pods and three seeds:

- a step ×10: seconds from its first signal to the decision that covers it, and how often the number of pods
  rises again beyond a quarter more than is needed, once it has come down from the first such peak;
- a steady load: mean pods against the fewest fixed ones of which at most 1 % of the requests are late;
- two drops by 95 % for four minutes: pods removed meanwhile.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

import numpy as np

from trimtab.autoscaler.simulator.load import Load, build_load
from trimtab.autoscaler.simulator.models import Model, load_model
from trimtab.autoscaler.simulator.policies.base import PodTick, Tick, Wish
from trimtab.autoscaler.simulator.policies.catalog import parse
from trimtab.autoscaler.simulator.policies.ours import Ours
from trimtab.autoscaler.simulator.run import run, run_policy, setting_for, with_learned
from trimtab.autoscaler.simulator.shapes import parse_trace
from trimtab.autoscaler.simulator.traces import Rates, Trace

MODELS = ("cpu", "gpu", "io")
SEEDS = (1, 2, 3)
COLD_START_S, PEAK_PODS, WARMUP_S = 10.0, 20.0, 600.0
STEP_AT_S, STEP_LASTS_S = WARMUP_S + 600.0, 1200.0  # of the shape `step`
DROPS_AT_S, DROP_LASTS_S = (WARMUP_S + 1200.0, WARMUP_S + 2640.0), 240.0  # of the shape `drop`
STEADY_S = 1800
FLUSH_S = 1.0
LATE_MAX = 0.01
OVER = 1.25


class Wanted(NamedTuple):
    """What was wanted from a time on."""

    at_s: float
    pods: int
    limit: int


class _Recorded:
    """Ours, with each decision written down."""

    def __init__(self, policy: Ours) -> None:
        self._policy = policy
        self.wanted: list[Wanted] = []

    def step(self, tick: Tick, pods: Sequence[PodTick]) -> Wish | None:
        wish = self._policy.step(tick, pods)
        if wish is not None:
            self.wanted.append(Wanted(tick.at_s, wish.pods, wish.limit))
        return wish


def play(trace: Trace, model: Model, seed: int) -> tuple[list[Wanted], Load]:
    """Ours on one load: its decisions."""
    load = build_load(trace, model, peak_pods=PEAK_PODS, warmup_s=WARMUP_S, seed=seed, window=None)
    setting = with_learned(setting_for(load, model, COLD_START_S, seed), model, seed)
    policy = _Recorded(Ours(setting))
    run(policy, "ours", setting, load, model, seed=seed)
    return policy.wanted, load


class Step(NamedTuple):
    """A reaction to a step ×10."""

    covered_s: float  # from the step's first signal; infinite: never
    peak_pods: int
    needed_pods: int
    overshoots: int  # times beyond OVER × needed: the first one is what works the backlog off


def step(model: Model, seed: int) -> Step:
    """Of one model and seed."""
    wanted, load = play(parse_trace("step:10"), model, seed)
    inside = (load.times_s >= STEP_AT_S) & (load.times_s < STEP_AT_S + STEP_LASTS_S)
    slots = float(load.demands_s[inside].sum()) / STEP_LASTS_S
    after = [each for each in wanted if STEP_AT_S < each.at_s <= STEP_AT_S + STEP_LASTS_S]
    needed = ceil(slots / after[0].limit)
    covered = [each.at_s for each in after if each.pods >= needed]
    over = [each.pods > ceil(OVER * needed) for each in after]
    rises = sum(now and not before for before, now in zip([False, *over], over, strict=False))
    first_s = covered[0] - STEP_AT_S - FLUSH_S if covered else float("inf")
    return Step(max(0.0, first_s), max(each.pods for each in after), needed, rises)


class Steady(NamedTuple):
    """A steady load: mean pods, and the fewest that suffice."""

    pods: float
    least_pods: int

    @property
    def within(self) -> bool:
        """Within one pod or 10 % of the least."""
        return self.pods <= self.least_pods + max(1.0, 0.1 * self.least_pods)


def steady(model: Model, seed: int) -> Steady:
    """Of one model and seed, over the last two thirds: what the start left has gone."""
    trace = Rates("steady", np.ones(STEADY_S))
    wanted, load = play(trace, model, seed)
    late = [each for each in wanted if WARMUP_S + STEADY_S / 3 < each.at_s <= WARMUP_S + STEADY_S]
    least = int(PEAK_PODS / 2)
    while _late(least, load, model, seed) > LATE_MAX:
        least += 1
    return Steady(float(np.mean([each.pods for each in late])), least)


def _late(pods: int, load: Load, model: Model, seed: int) -> float:
    fixed = parse(f"fixed:{pods}")
    return run_policy(fixed, load, model, cold_start_s=COLD_START_S, seed=seed).score.late_share


def removed_in_drops(model: Model, seed: int) -> int:
    """Pods that went while the load was gone for four minutes."""
    wanted, _ = play(parse_trace("drop:0.95"), model, seed)
    removed = 0
    for begin_s in DROPS_AT_S:
        inside = [each.pods for each in wanted if begin_s - 5.0 <= each.at_s <= begin_s + DROP_LASTS_S]
        removed += max(0, inside[0] - min(inside))
    return removed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    told = []
    for name in MODELS:
        model = load_model(name)
        steps = [step(model, seed) for seed in SEEDS]
        levels = [steady(model, seed) for seed in SEEDS]
        told.append(
            {
                "model": name,
                "step_covered_s": max(each.covered_s for each in steps),
                "step_overshoots": max(each.overshoots for each in steps),
                "step_peak_pods": max(each.peak_pods for each in steps),
                "step_needed_pods": max(each.needed_pods for each in steps),
                "steady_pods": max(each.pods for each in levels),
                "steady_least_pods": min(each.least_pods for each in levels),
                "steady_within": all(each.within for each in levels),
                "drop_removed_pods": sum(removed_in_drops(model, seed) for seed in SEEDS),
            }
        )
        if not options.json:
            print("  ".join(f"{key} {value}" for key, value in told[-1].items()), flush=True)
    if options.json:
        print(json.dumps(told))


if __name__ == "__main__":
    main()
