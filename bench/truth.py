"""Is the simulator true? One scenario on this machine with the real Envoy and pods, and in the simulator.

    python -m bench.truth [--short] [--json]

A platform of its own serves a model whose requests wait for a second each, so that two cores carry all of
its pods. Poisson arrivals at 12 a second, four times as many for a while, and 12 again (not with --short).
The very arrivals are then replayed in the simulator with what was measured of this machine: how long a
request takes alone, how long pods took to start (their mean), when the decisions fell, and which limit was
in force when: the limit is the other axis', and no part of what is compared. The simulator draws each
start, and where in Envoy's second the load begins, so it runs with several seeds; the medians count. What
is left to chance, and hence how far the two may differ, is said at `Tolerance`. Exit status 1 if they
differ by more, 2 if there was too little traffic to tell.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.rig import machine
from bench.truth_machine import LOOK_EACH_S, Floats, Scenario, Seen, on_the_machine, scenario
from bench.truth_simulator import Figures, by_look, simulated
from trimtab.autoscaler.simulator.score import LATE_S

SEEDS = range(21)
FULL = scenario(40.0, 60.0, 80.0)
SHORT = scenario(15.0, 35.0, 0.0)


@dataclass(frozen=True)
class Tolerance:
    """How far the machine and the simulator's median may differ."""

    pods: float = 1.0
    """Ready pods, the mean over time of what they differ by: one that comes a decision later for all of
    the time. Of many pods a tenth: see `pods_share`."""

    pods_share: float = 0.15
    """The same as a share of the most pods: the largest second of Envoy's decides, and the same arrivals fall
    into other seconds on the machine. 48 a second are known to 14 % from one second."""

    covered_s: float = 6.0
    """Until there are pods for all of the step: a decision later (5 s) if the noise of a second hides a
    part of it from one and not from the other, and a second of Envoy's statistics."""

    late_s: float = 6.0
    """Late requests, in seconds of the step's arrivals. The slowest of a handful of starts varies by
    ± 2 s with a spread of 20 %, statistics lag by up to 1 s, and what comes in those three seconds is
    late, as is what comes in the next three while that is worked off. It also covers what is known to
    differ: the simulator has one queue, while Envoy alone queues at each pod, so that there a request
    that waits for an old pod does not go to a new one."""


TOLERANCE = Tolerance()
REQUESTS_MIN = 1_000  # fewer cannot tell 6 s of the step from chance


def measured(given: Scenario, seen: Seen) -> Figures:
    """The same figures of what happened on the machine; lateness by the simulator's own definition."""
    scored = seen.latencies_s[given.times_s >= given.warmup_s]
    late = scored - seen.alone_s > max(LATE_S, seen.alone_s)
    finished = scored[np.isfinite(scored)]
    p99_s = float(np.quantile(finished, 0.99)) if finished.size else None
    return Figures(by_look(seen.ready, given), float(late.mean()), p99_s)


def covered_s(ready: Floats, given: Scenario, seen: Seen) -> float:
    """Seconds from the step until the ready pods can hold all of it; infinite: never."""
    limits = by_look([(each.at_s, each.limit) for each in seen.decided], given)
    enough = ready * limits >= given.phases[1].rate * seen.alone_s
    first = int((given.step_s - given.warmup_s) / LOOK_EACH_S)
    found = np.flatnonzero(enough[first:])
    return float(found[0] * LOOK_EACH_S) if found.size else np.inf


def verdict(given: Scenario, seen: Seen, seeds: Sequence[int] = SEEDS) -> dict[str, Any]:
    """Both sides, what they differ by, and what they may."""
    real = measured(given, seen)
    runs = [simulated(given, seen, seed) for seed in seeds]
    real_covered_s = covered_s(real.ready, given, seen)
    all_covered_s = [covered_s(run.ready, given, seen) for run in runs]
    late = [run.late_share for run in runs]
    scored = int((given.times_s >= given.warmup_s).sum())
    allowed = {
        "pods": max(TOLERANCE.pods, TOLERANCE.pods_share * float(real.ready.max())),
        "covered_s": TOLERANCE.covered_s,
        "late_share": TOLERANCE.late_s * given.phases[1].rate / scored,
    }
    differs = {
        "pods": statistics.median(float(np.abs(run.ready - real.ready).mean()) for run in runs),
        "covered_s": abs(statistics.median(all_covered_s) - real_covered_s),
        "late_share": abs(statistics.median(late) - real.late_share),
    }
    return {
        "schema_version": 1,
        "requests": scored,
        "failed": int(np.isinf(seen.latencies_s).sum()),
        "alone_s": seen.alone_s,
        "start_s": statistics.fmean(seen.starts_s),
        "decided": [each._asdict() for each in seen.decided],
        "machine": _told(real, real_covered_s),
        "simulator": _told(_median(runs), statistics.median(all_covered_s)),
        "simulator_late_share": [min(late), max(late)],
        "differs": differs,
        "allowed": allowed,
        "agrees": all(differs[key] <= allowed[key] for key in allowed),
        "void": scored < REQUESTS_MIN,
    }


def _median(runs: Sequence[Figures]) -> Figures:
    return Figures(
        np.median([run.ready for run in runs], axis=0),
        statistics.median(run.late_share for run in runs),
        statistics.median(run.p99_s for run in runs if run.p99_s is not None),
    )


def _told(figures: Figures, covers_s: float) -> dict[str, Any]:
    return {
        "pods": figures.ready[:: int(5 / LOOK_EACH_S)].tolist(),  # each 5 s
        "covered_s": covers_s,
        "late_share": figures.late_share,
        "p99_s": figures.p99_s,
    }


def show(result: dict[str, Any]) -> None:
    """The comparison for people."""
    for side in ("machine", "simulator"):
        told = result[side]
        print(
            f"{side:10} late {told['late_share']:.1%}  p99 {told['p99_s'] or 0:.1f} s  step covered after"
            f" {told['covered_s']:.1f} s  pods each 5 s: {' '.join(f'{pods:g}' for pods in told['pods'])}"
        )
    differs, allowed = result["differs"], result["allowed"]
    print(
        f"differs by {differs['pods']:.2f} pods on average (allowed {allowed['pods']:.2f}),"
        f" {differs['covered_s']:.1f} s until covered ({allowed['covered_s']:.1f} s),"
        f" {differs['late_share']:.1%} late ({allowed['late_share']:.1%})"
    )
    print("void: too little traffic" if result["void"] else "agrees" if result["agrees"] else "DIFFERS")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--short", action="store_true", help="up only, about a minute")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    given = SHORT if options.short else FULL
    result = verdict(given, on_the_machine(given)) | machine()
    if options.json:
        print(json.dumps(result))
    else:
        show(result)
    return 2 if result["void"] else 0 if result["agrees"] else 1


if __name__ == "__main__":
    sys.exit(main())
