"""What the comparison makes of two sides that are made up: it agrees, differs, or cannot tell."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.truth import FULL, TOLERANCE, verdict
from bench.truth_machine import Decided, Scenario, Seen, ready_pods, scenario
from bench.truth_simulator import Replayed, by_look, simulated
from trimtab.autoscaler.horizontal import Tuning
from trimtab.autoscaler.simulator.policies.base import Tick

ROOT = Path(__file__).parents[2]
GIVEN = scenario(40.0, 40.0, 20.0)
SEEDS = range(5)


def seen_of(given: Scenario, seed: int) -> Seen:
    """A machine that is one run of the simulator itself: what it saw had no other cause."""
    decided = [Decided(at_s, 1, 8) for at_s in np.arange(1.3, given.end_s, 5.0).tolist()]
    seen = Seen(np.zeros(given.times_s.size), 1.0, starts_s=[4.0], ready=[(0.0, 1)], decided=decided)
    figures = simulated(given, seen, seed)
    looks_s = given.warmup_s + 0.5 * np.arange(figures.ready.size)
    scored = given.times_s >= given.warmup_s
    late = round(figures.late_share * scored.sum())
    latencies_s = np.full(given.times_s.size, 1.0)
    latencies_s[np.flatnonzero(scored)[:late]] = 5.0
    ready = [(float(at_s), int(pods)) for at_s, pods in zip(looks_s, figures.ready, strict=True)]
    return replace(seen, latencies_s=latencies_s, ready=ready)


def test_a_machine_that_is_the_simulator_agrees_with_it() -> None:
    result = verdict(GIVEN, seen_of(GIVEN, seed=77), SEEDS)
    assert result["agrees"]
    assert not result["void"]
    assert result["machine"]["late_share"] > 0.05, "the step is felt"
    assert max(result["machine"]["pods"]) >= 5
    json.dumps(result)


@pytest.mark.parametrize(
    ("what", "changed"),
    [
        ("late_share", lambda seen: replace(seen, latencies_s=seen.latencies_s + 3.0)),
        ("pods", lambda seen: replace(seen, ready=[(at_s, pods + 4) for at_s, pods in seen.ready])),
        ("covered_s", lambda seen: replace(seen, ready=[(at_s + 10.0, pods) for at_s, pods in seen.ready])),
    ],
)
def test_each_figure_alone_can_differ(what: str, changed: object) -> None:
    result = verdict(GIVEN, changed(seen_of(GIVEN, seed=77)), SEEDS)  # type: ignore[operator]
    assert not result["agrees"]
    assert result["differs"][what] > result["allowed"][what]


def test_a_failed_request_is_late() -> None:
    seen = seen_of(GIVEN, seed=77)
    seen.latencies_s[:] = np.inf
    result = verdict(GIVEN, seen, SEEDS)
    assert result["machine"]["late_share"] == 1.0
    assert result["machine"]["p99_s"] is None
    assert result["failed"] == GIVEN.times_s.size


def test_too_little_traffic_is_void() -> None:
    given = scenario(5.0, 5.0, 0.0)
    assert verdict(given, seen_of(given, seed=77), SEEDS)["void"]


def test_the_allowance_for_late_requests_is_stated_in_seconds_of_the_step() -> None:
    result = verdict(FULL, seen_of(FULL, seed=77), range(1))
    assert result["allowed"]["late_share"] == pytest.approx(TOLERANCE.late_s * 48.0 / result["requests"])


def test_what_held_at_a_look_is_what_was_told_last() -> None:
    given = scenario(4.0, 1.0, 0.0)  # looked at from 2 s on
    assert by_look([(0.0, 1), (2.4, 2), (3.0, 3), (99.0, 9)], given).tolist() == [1, 2, 3, 3, 3, 3]


def test_the_replay_decides_when_the_machine_did_and_with_its_limits() -> None:
    policy = Replayed([Decided(-3.0, 1, 2), Decided(1.7, 1, 4), Decided(6.2, 1, 8)], Tuning())
    wishes = {}
    for step in range(1, 21):
        at_s = step * 0.5
        if wish := policy.step(Tick(at_s, 5, 5, 0, 2, 0, 1.0, 0.0, 1.0, 1, ()), ()):
            wishes[at_s] = wish.limit
    assert wishes == {2.0: 4, 6.5: 8}


@pytest.mark.e2e
@pytest.mark.slow
def test_one_scenario_runs_on_this_machine_and_in_the_simulator() -> None:
    """The short form: a step to four times the load, with the real Envoy and real pods, in 75 s.

    How far the two agree depends on how busy this machine is with other things: that is for the bench to say.
    """
    command = [sys.executable, "-m", "bench.truth", "--short", "--json"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert run.stdout, run.stderr
    result = json.loads(run.stdout)
    assert not result["void"]
    assert result["failed"] == 0
    assert run.returncode == (0 if result["agrees"] else 1)
    looks = [len(result[side]["pods"]) for side in ("machine", "simulator")]
    assert looks[0] == looks[1] >= 5, "both were looked at all the while"


def test_ready_pods_are_read_off_the_metrics_page() -> None:
    page = (
        "# TYPE trimtab_pods gauge\n"
        'trimtab_pods{namespace="default",endpoint="waits",phase="ready"} 3.0\n'
        'trimtab_pods{namespace="default",endpoint="waits",phase="starting"} 2.0\n'
        "# TYPE trimtab_pods_wanted gauge\n"
        'trimtab_pods_wanted{namespace="default",endpoint="waits"} 5.0\n'
    )
    assert ready_pods(page) == 3
