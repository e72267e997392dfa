"""How fast the simulator is: requests a second on one core, for each class of model.

    python -m bench.simulator [--short] [--json]

Ours serves four hours of NASA's log of 1995 (an hour with --short) at 20 peak pods, cold starts of 10 s.
Timed is the run itself, `decide` and all; the load is made once for all policies and told apart, and so is
the engine alone on a steady load. Compiling, once per installation, is not timed. CPU time of one process.
`ratio` is to the bound of 200,000 requests a second.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np

from bench.autoscaler import NASA, PEAK_PODS, WARMUP_S
from bench.rig import machine
from trimtab.autoscaler.simulator.engine import Engine
from trimtab.autoscaler.simulator.load import Window, build_load
from trimtab.autoscaler.simulator.models import MODELS, Model
from trimtab.autoscaler.simulator.policies.base import LIMIT_KNEES
from trimtab.autoscaler.simulator.policies.catalog import parse
from trimtab.autoscaler.simulator.run import run_policy
from trimtab.autoscaler.simulator.shapes import parse_trace

BOUND = 200_000.0
COLD_START_S = 10.0
ENGINE_REQUESTS = 1_000_000
ENGINE_USED = 0.8  # of what 20 pods do at the knee: some requests wait, most do not
SHORT_UNTIL = "1995-07-13T10:00:00"


def engine_per_s(model: Model) -> float:
    """Requests a second of the compiled part alone: Poisson arrivals, 20 pods that stay."""
    rng = np.random.default_rng(1)
    rate = ENGINE_USED * PEAK_PODS * model.knee / model.service_time_s
    times_s = np.cumsum(rng.exponential(1 / rate, ENGINE_REQUESTS))
    demands_s = rng.exponential(model.service_time_s, ENGINE_REQUESTS)
    engine = Engine(times_s, demands_s, model.speeds(LIMIT_KNEES * model.knee), 10_000)
    for _ in range(int(PEAK_PODS)):
        engine.add()
    engine.advance(0.0, model.knee)  # compiled from here on
    begin_s = time.process_time()
    engine.advance(float(times_s[-1]), model.knee)
    return ENGINE_REQUESTS / (time.process_time() - begin_s)


def one(model: Model, until: str) -> dict[str, float]:
    """One run of ours on one class."""
    name, since, _ = NASA
    window = Window.parse(since, until)
    trace = parse_trace(name)
    begin_s = time.process_time()
    load = build_load(trace, model, peak_pods=PEAK_PODS, warmup_s=WARMUP_S, window=window)
    built_s = time.process_time() - begin_s
    begin_s = time.process_time()
    score = run_policy(parse("ours"), load, model, cold_start_s=COLD_START_S, seed=1).score
    ran_s = time.process_time() - begin_s
    requests = load.times_s.size
    return {
        "requests": requests,
        "per_s": requests / ran_s,
        "ratio": requests / ran_s / BOUND,
        "with_load_per_s": requests / (built_s + ran_s),
        "engine_per_s": engine_per_s(model),
        "late_share": score.late_share,
    }


def run(short: bool) -> dict[str, Any]:
    """Every class, on a machine that has compiled before."""
    until = SHORT_UNTIL if short else NASA[2]
    one(MODELS["cpu"], SHORT_UNTIL)
    return {
        "schema_version": 1,
        "models": {name: one(model, until) for name, model in MODELS.items()},
        **machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--short", action="store_true", help="an hour of the trace")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = run(options.short)
    if options.json:
        print(json.dumps(result))
        return
    for name, told in result["models"].items():
        print(
            f"{name:4} {told['requests']:>10,.0f} requests  {told['per_s']:>10,.0f} a second"
            f"  ratio {told['ratio']:.1f}; with the load's making {told['with_load_per_s']:>10,.0f};"
            f" the engine alone {told['engine_per_s']:>10,.0f}"
        )


if __name__ == "__main__":
    main()
