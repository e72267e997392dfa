"""What a decision costs: for one endpoint of 10 pods, and for 10,000 endpoints in one go.

    python -m bench.decisions [--endpoints 10000] [--json]

A decision about pods each 5 s over five signals of one second from each Envoy, as the control plane makes
it, under a load that wanders by a fifth within ten minutes and varies by chance. A decision about the limit
each 30 s over the six signals of each pod in it; a sixth of it comes on top of each decision about pods.
The signals are made beforehand and not timed. As in the control plane each state replaces the one before, and
nobody keeps a decision: it is told, as a message that is not timed, and gone. CPU time of one process, the
median of several rounds: a shared machine lends its core to others meanwhile, and that is not the
decision's. The bounds: 50 µs, 0.5 s, for decisions about pods.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import random
import statistics
import time
from typing import Any

from bench.rig import machine
from trimtab.autoscaler.horizontal import Signals, State, decide
from trimtab.autoscaler.vertical import LimitSignals, LimitState, decide_limit
from trimtab.core.names import EndpointName
from trimtab.core.revision import RevisionKey
from trimtab.core.signals import PodSignal, RevisionSignal
from trimtab.core.spec import ConcurrencyRange
from trimtab.host.collector import settle

DECIDE_EACH_S, LIMIT_EACH_S, POD_EACH_S = 5, 30, 5
PODS, TARGET, SERVICE_S = 10, 4, 0.2
BOUND_S, BOUND_ALL_S = 50e-6, 0.5
WANDER = 0.2
WARMUP = 120  # decisions: windows are full, the down window included
ROUNDS, ROUND = 9, 500
WARMUP_EACH = 8  # of each of many endpoints: the up windows are full
LIMIT_ROUNDS, LIMIT_ROUND = 9, 60
RANGE = ConcurrencyRange(1, 1_000)


def noisy_signals(name: str, envoys: int, decisions: int, seed: int = 1) -> list[Signals]:
    """Signals of so many decisions of an endpoint whose load fits 10 pods, wanders, and varies by chance."""
    rng = random.Random(seed)
    revision = RevisionKey(EndpointName("default", name), 1)
    rate = 0.8 * PODS * TARGET / SERVICE_S / envoys
    found = []
    for number in range(1, decisions + 1):
        seconds = [number * DECIDE_EACH_S - back for back in range(DECIDE_EACH_S - 1, -1, -1)]
        signals = tuple(
            _second(revision, f"envoy-{envoy}", at_s, _drawn(rng, rate * wandering(at_s)))
            for at_s in seconds
            for envoy in range(envoys)
        )
        found.append(
            Signals(
                revision,
                signals,
                ready_pods=PODS,
                start_time_s=10.0,
                target_concurrency=TARGET,
                concurrency=RANGE,
            )
        )
    return found


def wandering(at_s: float) -> float:
    """The load relative to its mean: a fifth up and down within ten minutes."""
    return 1.0 + WANDER * math.sin(2 * math.pi * at_s / 600.0)


def _drawn(rng: random.Random, mean: float) -> float:
    return max(0.0, rng.gauss(mean, mean**0.5))


def _second(revision: RevisionKey, envoy: str, at_s: float, rate: float) -> RevisionSignal:
    return RevisionSignal(
        revision=revision,
        envoy=envoy,
        at_s=at_s,
        period_s=1.0,
        arrivals=round(rate),
        completions=round(rate),
        rejected=0,
        failed=0,
        in_flight=round(rate * SERVICE_S),
        queued=0,
        request_time_s=rate * SERVICE_S,
    )


def amortised_s(envoys: int) -> float:
    """CPU seconds of one decision of one endpoint."""
    given = noisy_signals("one", envoys, WARMUP + ROUNDS * ROUND)
    state, number = State(), 0
    took_s = []
    for length in (WARMUP, *[ROUND] * ROUNDS):
        begin_s = time.process_time()
        for _ in range(length):
            number += 1
            state, _ = decide(state, given[number - 1], float(number * DECIDE_EACH_S))
        took_s.append((time.process_time() - begin_s) / length)
    return statistics.median(took_s[1:])


def noisy_limit_signals(decisions: int, seed: int = 1) -> list[LimitSignals]:
    """Signals of so many decisions about the limit of 10 pods whose limit often binds."""
    rng = random.Random(seed)
    revision = RevisionKey(EndpointName("default", "one"), 1)
    rate = TARGET / SERVICE_S
    found = []
    for number in range(1, decisions + 1):
        begin_s = (number - 1) * LIMIT_EACH_S
        pods = tuple(
            PodSignal(
                revision=revision,
                pod=str(pod),
                at_s=begin_s + at_s,
                period_s=POD_EACH_S,
                in_flight=min(TARGET, rng.gauss(0.95 * TARGET, 0.1)),
                completions=(done := _drawn(rng, rate * POD_EACH_S)),
                request_time_s=done * SERVICE_S,
                cpu_cores=0.9 * TARGET,
            )
            for at_s in range(POD_EACH_S, LIMIT_EACH_S + 1, POD_EACH_S)
            for pod in range(PODS)
        )
        envoys = tuple(
            _second(revision, "envoy-0", begin_s + at_s, PODS * rate) for at_s in range(1, LIMIT_EACH_S + 1)
        )
        found.append(LimitSignals(revision, pods, envoys, ready_pods=PODS, limit=TARGET, cores=float(TARGET)))
    return found


def limit_s() -> float:
    """CPU seconds of one decision about a limit."""
    given = noisy_limit_signals(LIMIT_ROUNDS * LIMIT_ROUND)
    state = LimitState()
    took_s = []
    for first in range(0, len(given), LIMIT_ROUND):
        begin_s = time.process_time()
        for number, signals in enumerate(given[first : first + LIMIT_ROUND], first + 1):
            state, _ = decide_limit(state, signals, float(number * LIMIT_EACH_S))
        took_s.append((time.process_time() - begin_s) / LIMIT_ROUND)
    return statistics.median(took_s)


def all_at_once_s(endpoints: int, envoys: int = 1) -> float:
    """CPU seconds of one decision of each of so many endpoints, each with a history of its own."""
    given = [noisy_signals(f"e{each}", envoys, WARMUP_EACH + 1, seed=each) for each in range(endpoints)]
    states = [State() for _ in range(endpoints)]
    for number in range(WARMUP_EACH):
        _decide_each(states, given, number)
    before = gc.get_threshold()
    settle()  # as the control plane does; and what was made for the measurement is not collected
    begin_s = time.process_time()
    _decide_each(states, given, WARMUP_EACH)
    took_s = time.process_time() - begin_s
    gc.unfreeze()
    gc.set_threshold(*before)
    return took_s


def _decide_each(states: list[State], given: list[list[Signals]], number: int) -> None:
    """One decision of each endpoint, from its signals of that number; its state is replaced."""
    now_s = float((number + 1) * DECIDE_EACH_S)
    for place, of in enumerate(given):
        states[place], _ = decide(states[place], of[number], now_s)


def run(endpoints: int) -> dict[str, Any]:
    """The whole measurement."""
    one_s, two_s, for_limit_s = amortised_s(1), amortised_s(2), limit_s()
    all_s = all_at_once_s(endpoints)
    return {
        "schema_version": 1,
        "decision_us": {"one_envoy": round(one_s * 1e6, 1), "two_envoys": round(two_s * 1e6, 1)},
        "share_of_bound": {"one_envoy": round(one_s / BOUND_S, 2), "two_envoys": round(two_s / BOUND_S, 2)},
        "limit_decision_us": round(for_limit_s * 1e6, 1),
        "both_axes_us": round((one_s + for_limit_s * DECIDE_EACH_S / LIMIT_EACH_S) * 1e6, 1),
        "endpoints": endpoints,
        "all_s": round(all_s, 3),
        "all_share_of_bound": round(all_s / (BOUND_ALL_S * endpoints / 10_000), 2),
        **machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--endpoints", type=int, default=10_000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = run(options.endpoints)
    if options.json:
        print(json.dumps(result))
        return
    for key, took_us in result["decision_us"].items():
        print(f"{key:11} {took_us:6.1f} µs a decision: {result['share_of_bound'][key]:.2f} of the bound")
    print(
        f"limit       {result['limit_decision_us']:6.1f} µs a decision; both axes, one Envoy, each"
        f" {DECIDE_EACH_S} s: {result['both_axes_us']:.1f} µs"
    )
    share = result["all_share_of_bound"]
    print(f"{result['endpoints']} endpoints in one go: {result['all_s']:.3f} s: {share:.2f} of the bound")


if __name__ == "__main__":
    main()
