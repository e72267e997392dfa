"""One policy meets one load: a virtual clock in ticks, the engine between them, the policy after each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np

from trimtab.autoscaler.simulator.engine import Engine, PodSums
from trimtab.autoscaler.simulator.kernel import (
    ARRIVALS,
    COMPLETIONS,
    IN_FLIGHT,
    IN_FLIGHT_S,
    QUEUED,
    QUEUED_S,
    REJECTED,
    REQUEST_TIME_S,
)
from trimtab.autoscaler.simulator.load import Load, offered_per_second
from trimtab.autoscaler.simulator.models import Model
from trimtab.autoscaler.simulator.pods import NO_FAULTS, Faults, Fleet
from trimtab.autoscaler.simulator.policies.base import (
    LIMIT_KNEES,
    PODS_SEEN_EACH_S,
    TICK_S,
    PodTick,
    Policy,
    Setting,
    Tick,
    Wish,
)
from trimtab.autoscaler.simulator.policies.catalog import PolicySpec, make
from trimtab.autoscaler.simulator.score import Score, late, score
from trimtab.autoscaler.simulator.timeline import Recorder, Timeline
from trimtab.core.spec import ConcurrencyRange

RANGE_KNEES = 100  # the range is 1 to so many times the knee, unless said otherwise
QUEUE_MIN, QUEUE_PER_RANGE = 1_000, 10  # as the control plane sets them
PHASE_MAX_S = 15.0  # the longest period of any policy's clock
UNWATCHED_S = 60.0  # after the load's end, so that its last requests may end; nothing else is scored there
UNWATCHED_TIMES = 10.0  # or so many service times: as irregular as an exponential, one in 22,000 takes longer


@dataclass(frozen=True)
class Outcome:
    """What a run gave."""

    score: Score
    timeline: Timeline


def run_policy(
    spec: PolicySpec,
    load: Load,
    model: Model,
    *,
    cold_start_s: float,
    seed: int,
    faults: Faults = NO_FAULTS,
    concurrency: ConcurrencyRange | None = None,
) -> Outcome:
    """Let the policy serve the load. Deterministic for the seed.

    `concurrency` is the user's range in requests; None: 1 to RANGE_KNEES times the knee. With a least of 0
    the run begins without a pod, and what arrives while there is none waits in the queue.
    """
    setting = setting_for(load, model, cold_start_s, seed, concurrency)
    if spec.name == "ours":
        setting = with_learned(setting, model, seed)
    return run(make(spec, setting), spec.label, setting, load, model, seed=seed, faults=faults)


def default_range(model: Model) -> ConcurrencyRange:
    """The user's range in requests where none is given."""
    return ConcurrencyRange(1, RANGE_KNEES * model.knee)


def setting_for(
    load: Load, model: Model, cold_start_s: float, seed: int, concurrency: ConcurrencyRange | None = None
) -> Setting:
    """What a policy may know of a run. `concurrency` as in `run_policy`."""
    concurrency = concurrency or default_range(model)
    return Setting(
        knee=model.knee,
        first_limit=model.knee,
        pods_min=ceil(concurrency.min / model.knee),
        pods_max=ceil(concurrency.max / model.knee),
        concurrency_min=concurrency.min,
        concurrency_max=concurrency.max,
        service_time_s=model.service_time_s,
        cold_start_s=cold_start_s,
        phase_s=float(np.random.default_rng([seed, 3]).uniform(0.0, PHASE_MAX_S)),
        kind=model.kind,
        offered=tuple(offered_per_second(load, model).tolist()),
    )


def with_learned(setting: Setting, model: Model, seed: int) -> Setting:
    """The setting of one whose limit is not given: it begins with what a rehearsal taught it."""
    # Here, because it brings the whole autoscaler along, which the others do without.
    from trimtab.autoscaler.simulator.onboarding import rehearse  # noqa: PLC0415

    learned = rehearse(model, seed).learned
    return replace(setting, first_limit=learned.limit, learned=learned)


def run(
    policy: Policy,
    label: str,
    setting: Setting,
    load: Load,
    model: Model,
    *,
    seed: int,
    faults: Faults = NO_FAULTS,
) -> Outcome:
    """The same with a policy that is there already."""
    queue_max = max(QUEUE_MIN, QUEUE_PER_RANGE * setting.concurrency_max)
    speeds = model.speeds(LIMIT_KNEES * model.knee)
    engine = Engine(load.times_s, load.demands_s, speeds, queue_max)
    world = _World(engine, Fleet(engine, setting.cold_start_s, seed, faults), setting)
    recorder = Recorder(load.warmup_s, load.end_s)
    unwatched_s = max(UNWATCHED_S, UNWATCHED_TIMES * model.service_time_s)
    for step in range(1, ceil((load.end_s + unwatched_s) / TICK_S) + 1):
        at_s = step * TICK_S
        tick, pods = world.pass_to(at_s)
        wish = policy.step(tick, pods)
        world.obey(wish)
        most = ceil(setting.concurrency_max / world.wish.limit)
        recorder.add(tick, world.fleet.asked, world.wish.pods, most, world.fleet.pod_seconds_by(at_s))
    return Outcome(
        score(label, seed, load, model, engine.latencies, recorder, setting),
        recorder.timeline(label, load, model, late(load, model, engine.latencies), np.array(setting.offered)),
    )


class _World:
    """The engine with its fleet, seen tick by tick."""

    def __init__(self, engine: Engine, fleet: Fleet, setting: Setting) -> None:
        self.fleet = fleet
        self.wish = Wish(setting.pods_min, setting.first_limit)
        self._engine = engine
        self._counts, self._sums = engine.counts, engine.sums
        self._pods: dict[int, PodSums] = {}
        self._knee = setting.knee
        fleet.begin(setting.pods_min)

    def pass_to(self, at_s: float) -> tuple[Tick, Sequence[PodTick]]:
        """Let time pass, and tell what happened."""
        while (event_s := self.fleet.next_event_s) <= at_s:
            self._engine.advance(event_s, self.wish.limit)
            self.fleet.happen(event_s)
        self._engine.advance(at_s, self.wish.limit)
        counts, sums = self._engine.counts, self._engine.sums
        before, before_s, self._counts, self._sums = self._counts, self._sums, counts, sums
        ready = self.fleet.ready
        tick = Tick(
            at_s=at_s,
            arrivals=counts[ARRIVALS] - before[ARRIVALS],
            completions=counts[COMPLETIONS] - before[COMPLETIONS],
            rejected=counts[REJECTED] - before[REJECTED],
            in_flight=counts[IN_FLIGHT],
            queued=counts[QUEUED],
            in_flight_s=sums[IN_FLIGHT_S] - before_s[IN_FLIGHT_S],
            queued_s=sums[QUEUED_S] - before_s[QUEUED_S],
            request_time_s=sums[REQUEST_TIME_S] - before_s[REQUEST_TIME_S],
            ready=len(ready),
            starting_ages_s=self.fleet.starting_ages_s(at_s),
            start_time_s=self.fleet.start_time_s,
        )
        return tick, self._seen(ready) if at_s % PODS_SEEN_EACH_S == 0 else ()

    def obey(self, wish: Wish | None) -> None:
        """Do what the policy asked for last."""
        self.wish = wish or self.wish
        self.fleet.want(self.wish.pods, wish.overdue if wish else 0, self._engine.now_s)

    def _seen(self, ready: list[int]) -> list[PodTick]:
        """What each pod did since it was last looked at; a pod younger than that is left out."""
        before, self._pods = self._pods, self._engine.pod_sums()
        return [
            PodTick.between(pod, before[pod], self._pods[pod], self._knee) for pod in ready if pod in before
        ]
