"""Whole runs: the same for the same seed, the same load for everybody, and nothing of it lost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.autoscaler.simulator.load import Load, build_load
from trimtab.autoscaler.simulator.models import MODELS
from trimtab.autoscaler.simulator.pods import Faults
from trimtab.autoscaler.simulator.policies.base import PODS_SEEN_EACH_S, TICK_S, PodTick, Policy, Tick, Wish
from trimtab.autoscaler.simulator.policies.catalog import make, parse
from trimtab.autoscaler.simulator.report import document
from trimtab.autoscaler.simulator.run import Outcome, run, run_policy, setting_for, with_learned
from trimtab.autoscaler.simulator.traces import Counts
from trimtab.core.spec import ConcurrencyRange

CPU = MODELS["cpu"]
POLICIES = ("ours", "kpa", "hpa", "keda", "ray", "clairvoyant", "fixed:3")
COLD_START_S = 5.0

RUN_KEYS = {
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
}


def load_of(seed: int = 1) -> Load:
    counts = Counts("waves", 0.0, 60.0, np.array([1.0, 4.0, 1.0]))
    return build_load(counts, CPU, peak_pods=4, warmup_s=60.0, seed=seed)


def outcome(policy: str, seed: int = 1, faults: Faults | None = None) -> Outcome:
    load = load_of(seed)
    if faults:
        return run_policy(parse(policy), load, CPU, cold_start_s=COLD_START_S, seed=seed, faults=faults)
    return run_policy(parse(policy), load, CPU, cold_start_s=COLD_START_S, seed=seed)


class TwoPods:
    """Wants two pods of limit 4."""

    def step(self, tick: Tick, pods: Sequence[PodTick]) -> Wish | None:
        return Wish(2, 4) if tick.at_s == TICK_S else None


class Watcher:
    """Keeps what a policy is told."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.ticks: list[Tick] = []
        self.pods: list[tuple[float, Sequence[PodTick]]] = []

    def step(self, tick: Tick, pods: Sequence[PodTick]) -> Wish | None:
        self.ticks.append(tick)
        if pods:
            self.pods.append((tick.at_s, pods))
        return self._policy.step(tick, pods)


@pytest.fixture(scope="module")
def watched() -> tuple[Watcher, Outcome, Load]:
    watcher, load = Watcher(TwoPods()), load_of()
    setting = setting_for(load, CPU, COLD_START_S, 1)
    return watcher, run(watcher, "watcher", setting, load, CPU, seed=1), load


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_seed_gives_the_same_run_twice(policy: str) -> None:
    faults = Faults(failed_starts=0.1, deaths_per_hour=20.0, slow_per_hour=20.0)
    first, second = outcome(policy, faults=faults), outcome(policy, faults=faults)
    assert first.score == second.score
    for name in ("ready_pods", "queued", "late"):
        assert getattr(first.timeline, name).tolist() == getattr(second.timeline, name).tolist()


def test_another_seed_gives_another_run() -> None:
    assert outcome("kpa", seed=1).score.late_share != outcome("kpa", seed=2).score.late_share


def test_every_policy_meets_the_same_arrivals() -> None:
    outcomes = [outcome(policy) for policy in POLICIES]
    assert len({each.score.arrivals for each in outcomes}) == 1
    assert len({each.score.least_pod_hours for each in outcomes}) == 1
    assert len({tuple(each.timeline.offered_pods.tolist()) for each in outcomes}) == 1


def test_a_run_leaves_the_load_as_it_was() -> None:
    load, untouched = load_of(), load_of()
    run_policy(parse("kpa"), load, CPU, cold_start_s=COLD_START_S, seed=1)
    np.testing.assert_array_equal(load.times_s, untouched.times_s)
    np.testing.assert_array_equal(load.demands_s, untouched.demands_s)


def test_the_warm_up_is_simulated_and_not_scored() -> None:
    load = load_of()
    after = int((load.times_s >= load.warmup_s).sum())
    told = outcome("fixed:3")
    assert after < load.times_s.size
    assert told.score.arrivals == after
    assert told.score.pod_hours == pytest.approx(3 * 180.0 / 3600.0)
    assert told.timeline.at_s[0] < load.warmup_s
    assert told.score.scale_events == 0


def test_the_document_of_a_run_has_exactly_the_keys_promised() -> None:
    told = json.loads(json.dumps(document({"trace": "waves"}, [outcome("kpa").score])))
    assert told.keys() == {"schema_version", "parameters", "runs"}
    assert told["schema_version"] == 1
    assert told["runs"][0].keys() == RUN_KEYS


def test_enough_pods_are_never_late_and_too_few_are() -> None:
    assert outcome("fixed:20").score.late_share == 0.0
    assert outcome("fixed:1").score.late_share > 0.5


@pytest.mark.parametrize(("service_time_s", "cv"), [(120.0, 0.0), (300.0, 1.0)])
def test_requests_that_last_minutes_are_not_late_where_there_are_pods(
    service_time_s: float, cv: float
) -> None:
    """The last ones are waited for."""
    slow = replace(CPU, service_time_s=service_time_s, service_time_cv=cv)
    load = build_load(Counts("even", 0.0, 60.0, np.ones(10)), slow, peak_pods=20)
    told = run_policy(parse("fixed:60"), load, slow, cold_start_s=0.5, seed=1).score
    assert (told.late_share, told.unfinished) == (0.0, 0)


def test_ticks_add_up_to_the_load(watched: tuple[Watcher, Outcome, Load]) -> None:
    watcher, told, load = watched
    ticks = watcher.ticks
    assert np.diff([tick.at_s for tick in ticks]) == pytest.approx(TICK_S)
    assert sum(tick.arrivals for tick in ticks) == load.times_s.size
    done = sum(tick.completions for tick in ticks)
    assert done == load.times_s.size - ticks[-1].in_flight - ticks[-1].queued
    held_s = sum(tick.in_flight_s + tick.queued_s for tick in ticks)
    if ticks[-1].in_flight + ticks[-1].queued == 0:  # Little
        assert held_s == pytest.approx(sum(tick.request_time_s for tick in ticks))
    assert max(tick.in_flight for tick in ticks) == 8
    assert told.score.pods_peak == 2


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("least", [0, 1])
def test_nothing_is_lost_or_counted_twice(policy: str, least: int) -> None:
    """Arrivals are completions, rejected ones and unfinished ones; so in ticks, and so in latencies."""
    load = replace(load_of(), warmup_s=0.0)
    faults = Faults(failed_starts=0.2, stalled_starts=0.1, deaths_per_hour=60.0, hangs_per_hour=60.0)
    setting = setting_for(load, CPU, COLD_START_S, 1, ConcurrencyRange(least, 4000))
    if policy == "ours":
        setting = with_learned(setting, CPU, 1)
    watcher = Watcher(make(parse(policy), setting))
    told = run(watcher, policy, setting, load, CPU, seed=1, faults=faults).score
    ticks = watcher.ticks
    done, rejected = sum(tick.completions for tick in ticks), sum(tick.rejected for tick in ticks)
    assert told.arrivals == load.times_s.size == sum(tick.arrivals for tick in ticks) + rejected
    assert told.unfinished == ticks[-1].in_flight + ticks[-1].queued
    assert told.arrivals == done + rejected + told.unfinished
    assert told.rejected_share * told.arrivals == pytest.approx(rejected)
    assert told.late_share >= told.rejected_share + told.unfinished / told.arrivals - 1e-9


class Erratic:
    """Wants any number of pods at any limit, and begins starts anew: nothing that a policy could not ask."""

    def __init__(self, seed: int, pods_max: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._pods_max = pods_max

    def step(self, tick: Tick, pods: Sequence[PodTick]) -> Wish | None:
        wanted, limit, overdue = self._rng.integers([0, 1, 0], [self._pods_max + 1, 13, 3]).tolist()
        return Wish(wanted, limit, overdue) if self._rng.random() < 0.2 else None


@given(
    seed=st.integers(0, 1_000_000),
    pods_max=st.integers(1, 60),
    cold_start_s=st.sampled_from([0.0, 0.3, 5.0, 60.0]),
    range_max=st.integers(1, 500),
)
@settings(max_examples=40, deadline=None)
def test_whatever_a_policy_asks_for_the_sums_agree(
    seed: int, pods_max: int, cold_start_s: float, range_max: int
) -> None:
    load = replace(load_of(), warmup_s=0.0)
    setting = setting_for(load, CPU, cold_start_s, seed, ConcurrencyRange(0, range_max))
    faults = Faults(failed_starts=0.1, stalled_starts=0.1, deaths_per_hour=30.0, slow_per_hour=60.0)
    watcher = Watcher(Erratic(seed, pods_max))
    told = run(watcher, "erratic", setting, load, CPU, seed=seed, faults=faults).score
    ticks = watcher.ticks
    assert told.unfinished == ticks[-1].in_flight + ticks[-1].queued
    done = sum(tick.completions for tick in ticks)
    accepted = sum(tick.arrivals for tick in ticks)
    lost = accepted - done - told.unfinished  # held by a pod that died while the queue was full
    assert lost >= 0
    assert told.rejected_share * told.arrivals == pytest.approx(sum(tick.rejected for tick in ticks) + lost)
    held_s = sum(tick.in_flight_s + tick.queued_s for tick in ticks)
    assert held_s >= sum(tick.request_time_s for tick in ticks) - 1e-3  # Little, with what is left and lost
    assert all(tick.ready >= 0 and tick.in_flight <= 12 * (pods_max + 60) for tick in ticks)
    assert 0.0 <= told.pod_hours <= pods_max * 1.0
    assert told.pods_peak <= pods_max


# -- from zero and to zero ------------------------------------------------------------------------


def idle_between(seed: int = 1) -> Load:
    """2 min of 3 pods' load, 12 min of nothing, 2 min of load again; all of it scored."""
    counts = np.zeros(16)
    counts[[0, 1, 14, 15]] = 600.0
    return build_load(Counts("idle between", 0.0, 60.0, counts), CPU, peak_pods=3, seed=seed)


def watch(
    policy: str, load: Load, concurrency: ConcurrencyRange, cold_start_s: float = COLD_START_S
) -> tuple[Watcher, Outcome]:
    setting = setting_for(load, CPU, cold_start_s, 1, concurrency)
    if policy == "ours":
        setting = with_learned(setting, CPU, 1)
    watcher = Watcher(make(parse(policy), setting))
    return watcher, run(watcher, policy, setting, load, CPU, seed=1)


@pytest.mark.parametrize("policy", ["ours", "kpa", "hpa", "keda", "ray", "clairvoyant"])
def test_a_run_from_zero_begins_without_a_pod_and_nobody_is_lost(policy: str) -> None:
    watcher, told = watch(policy, idle_between(), ConcurrencyRange(0, 400))
    assert watcher.ticks[0].ready == 0
    assert watcher.ticks[0].in_flight == 0
    assert max(tick.queued for tick in watcher.ticks) > 0
    assert (told.score.rejected_share, told.score.unfinished) == (0.0, 0)
    assert told.score.p99_s is not None
    assert told.score.p99_s > 0.5 * COLD_START_S, "the first ones waited for a start"


@pytest.mark.parametrize("policy", ["ours", "kpa", "keda", "clairvoyant"])
def test_who_goes_to_zero_does_so_and_comes_back(policy: str) -> None:
    watcher, _ = watch(policy, idle_between(), ConcurrencyRange(0, 400))
    ready = [tick.ready for tick in watcher.ticks if 130.0 < tick.at_s < 860.0]
    assert min(ready) == 0
    assert max(tick.ready for tick in watcher.ticks if tick.at_s > 860.0) >= 3


def test_from_zero_and_to_zero_where_a_start_takes_a_minute() -> None:
    """The first start is waited for, though nobody knows how long it takes; the next one is known."""
    watcher, told = watch("ours", idle_between(), ConcurrencyRange(0, 400), cold_start_s=60.0)
    assert watcher.ticks[0].start_time_s is None
    first_s = next(tick.at_s for tick in watcher.ticks if tick.ready)
    assert first_s < 120.0
    assert min(tick.ready for tick in watcher.ticks if 130.0 < tick.at_s < 860.0) == 0
    assert all(tick.start_time_s is not None for tick in watcher.ticks if tick.at_s > first_s)
    back_s = next(tick.at_s for tick in watcher.ticks if tick.at_s > 840.0 and tick.ready)
    assert back_s < 840.0 + 90.0
    assert told.score.unfinished == 0


@pytest.mark.parametrize("policy", ["ours", *POLICIES[1:-1]])
def test_a_range_from_one_never_has_fewer(policy: str) -> None:
    watcher, _ = watch(policy, idle_between(), ConcurrencyRange(1, 400))
    assert min(tick.ready for tick in watcher.ticks) == 1


def test_idle_minutes_need_no_pod_where_zero_is_allowed() -> None:
    from_zero = watch("fixed:3", idle_between(), ConcurrencyRange(0, 400))[1].score
    from_one = watch("fixed:3", idle_between(), ConcurrencyRange(1, 400))[1].score
    assert from_one.least_pod_hours - from_zero.least_pod_hours == pytest.approx(12 / 60)


def test_the_range_in_requests_bounds_the_pods_at_the_knee() -> None:
    setting = setting_for(load_of(), CPU, COLD_START_S, 1, ConcurrencyRange(9, 30))
    assert (setting.pods_min, setting.pods_max) == (3, 8)
    watcher, told = watch("kpa", load_of(), ConcurrencyRange(5, 9))
    assert {tick.ready for tick in watcher.ticks} == {2, 3}
    assert told.score.capped_share > 0.3


def test_pods_are_seen_each_5_s_with_what_they_did(watched: tuple[Watcher, Outcome, Load]) -> None:
    watcher, _, _ = watched
    assert all(at_s % PODS_SEEN_EACH_S == 0 for at_s, _ in watcher.pods)
    in_pods_s = sum(pod.in_flight * PODS_SEEN_EACH_S for _, pods in watcher.pods for pod in pods)
    first_s = watcher.pods[0][0] - PODS_SEEN_EACH_S  # since when the first one is told of
    in_ticks_s = sum(tick.in_flight_s for tick in watcher.ticks if tick.at_s > first_s)
    assert in_pods_s == pytest.approx(in_ticks_s, rel=0.05)  # a pod's first seconds are left out
    assert max(pod.busy for _, pods in watcher.pods for pod in pods) == pytest.approx(1.0, abs=0.01)


def test_a_start_is_seen_until_it_ends(watched: tuple[Watcher, Outcome, Load]) -> None:
    watcher, _, _ = watched
    starting = [tick for tick in watcher.ticks if tick.starting_ages_s]
    assert starting
    took_s = starting[-1].starting_ages_s[0]
    assert took_s == pytest.approx(COLD_START_S, rel=0.8)
    assert [tick.ready for tick in watcher.ticks if tick.at_s > starting[-1].at_s] == [2] * (
        len(watcher.ticks) - 1 - len(starting)
    )
