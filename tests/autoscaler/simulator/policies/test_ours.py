"""trimtab's own policy: both axes at their own periods, fed with what happened and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from trimtab.autoscaler.simulator.load import build_load
from trimtab.autoscaler.simulator.models import MODELS, Model
from trimtab.autoscaler.simulator.policies import limit as limit_module
from trimtab.autoscaler.simulator.policies import ours as ours_module
from trimtab.autoscaler.simulator.policies.base import PodTick, Tick, Wish
from trimtab.autoscaler.simulator.policies.catalog import parse
from trimtab.autoscaler.simulator.policies.limit import LimitAxis
from trimtab.autoscaler.simulator.policies.ours import DECIDE_EACH_S, Ours
from trimtab.autoscaler.simulator.run import run, run_policy, setting_for, with_learned
from trimtab.autoscaler.simulator.traces import Rates
from trimtab.autoscaler.vertical import LimitSignals


class Kept:
    """Ours, of which each wish is kept."""

    def __init__(self, policy: Ours) -> None:
        self.policy = policy
        self.wishes: list[tuple[float, Wish]] = []

    def step(self, tick: Tick, pods: Sequence[PodTick]) -> Wish | None:
        wish = self.policy.step(tick, pods)
        if wish is not None:
            self.wishes.append((tick.at_s, wish))
        return wish


def served(model: Model, per_second: np.ndarray, seed: int = 1) -> tuple[list[tuple[float, Wish]], int]:
    """The wishes while it serves that load, and the limit that it began with."""
    load = build_load(Rates("made up", per_second), model, peak_pods=6, warmup_s=60.0, seed=seed)
    setting = with_learned(setting_for(load, model, 5.0, seed), model, seed)
    kept = Kept(Ours(setting))
    run(kept, "ours", setting, load, model, seed=seed)
    return kept.wishes, setting.first_limit


@pytest.mark.parametrize("name", MODELS)
def test_it_serves_at_the_limit_that_it_has_learned_and_leaves_it(name: str) -> None:
    wishes, first = served(MODELS[name], np.repeat([1.0, 0.3, 1.0], 300))
    assert {wish.limit for _, wish in wishes} == {first}
    assert first != 1
    assert max(wish.pods for _, wish in wishes) > min(wish.pods for _, wish in wishes)


def test_it_decides_each_5_s_from_its_phase_on(setting, tick) -> None:
    policy = Ours(setting(phase_s=13.5))
    made = [at_s for at_s in np.arange(0.5, 60.0, 0.5) if policy.step(tick(at_s), ())]
    assert made[0] == 13.5 % DECIDE_EACH_S + 1.0
    assert np.diff(made) == pytest.approx(DECIDE_EACH_S)


def test_a_limit_that_does_not_fit_the_model_is_mended_in_service() -> None:
    """It begins at 16 where the knee is 4, unlearned: what binds in service is learned from."""
    model = MODELS["cpu"]
    load = build_load(Rates("steady", np.ones(1800)), model, peak_pods=4, warmup_s=0.0)
    setting = replace(setting_for(load, model, 5.0, 1), first_limit=1)
    setting = replace(setting, concurrency_max=4)  # 4 pods at most, until the limit rises
    kept = Kept(Ours(setting))
    run(kept, "ours", setting, load, model, seed=1)
    limits = [wish.limit for _, wish in kept.wishes]
    assert limits[0] == 1
    assert limits[-1] in range(3, 7)


def test_limits_are_decided_each_30_s_over_all_that_was_seen(monkeypatch) -> None:
    seen: list[tuple[float, LimitSignals]] = []
    true = limit_module.decide_limit

    def spy(state, signals, at_s):
        seen.append((at_s, signals))
        return true(state, signals, at_s)

    monkeypatch.setattr(limit_module, "decide_limit", spy)
    model = MODELS["cpu"]
    load = build_load(Rates("steady", np.ones(300)), model, peak_pods=3, warmup_s=0.0)
    setting = setting_for(load, model, 5.0, 1)
    run(Ours(setting), "ours", setting, load, model, seed=1)
    times_s = [at_s for at_s, _ in seen]
    assert np.diff(times_s) == pytest.approx(30.0)
    for (before_s, _), (at_s, signals) in pairwise(seen):
        told_s = {signal.at_s for signal in signals.pod_signals}
        assert all(before_s < told <= at_s for told in told_s)
        assert len(told_s) == 6, "pods tell each 5 s"
        assert len(signals.revision_signals) == 30
    done = sum(signal.completions for _, signals in seen for signal in signals.revision_signals)
    assert done == pytest.approx((load.times_s < times_s[-1]).sum(), rel=0.02)


def test_envoys_second_is_the_sum_of_its_ticks(setting, tick, monkeypatch) -> None:
    flushed = []
    true = ours_module.decide

    def spy(state, signals, at_s):
        flushed.extend(signals.revision_signals)
        return true(state, signals, at_s)

    monkeypatch.setattr(ours_module, "decide", spy)
    policy = Ours(setting())
    for number in range(1, 25):
        at_s = number / 2
        policy.step(tick(at_s)._replace(arrivals=number, rejected=1, in_flight=number, queued=7), ())
    assert [signal.arrivals for signal in flushed[:3]] == [1 + 2, 3 + 4, 5 + 6]
    assert [signal.in_flight for signal in flushed[:3]] == [2, 4, 6]  # a gauge: as it was at the end
    assert {(signal.rejected, signal.queued, signal.period_s) for signal in flushed} == {(2, 7, 1.0)}
    assert [signal.at_s for signal in flushed[:3]] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("kind", "busy", "cores", "gpu"),
    [("cpu", 0.5, 2.0, None), ("cpu", 1.7, 4.0, None), ("gpu", 0.5, None, 0.9), ("io", 0.5, 0.1, None)],
)
def test_pods_tell_what_their_class_would(kind, busy, cores, gpu, monkeypatch) -> None:
    """A cpu pod uses no more cores than it has; a GPU says 90 % at any load; what waits uses hardly any."""
    told: list[LimitSignals] = []
    true = limit_module.decide_limit

    def spy(state, signals, at_s):
        told.append(signals)
        return true(state, signals, at_s)

    monkeypatch.setattr(limit_module, "decide_limit", spy)
    axis = LimitAxis(kind, 4, 32, 4, None)
    axis.see(5.0, [PodTick(0, 3.0, 15, 4.5, busy)], None)
    axis.decide(30.0, ready=1)
    (signal,) = told[0].pod_signals
    assert signal.cpu_cores == cores
    assert (signal.gpu.utilisation if signal.gpu else None) == gpu
    assert (signal.in_flight, signal.completions, signal.request_time_s) == (3.0, 15, 4.5)


def test_everybody_else_serves_at_the_knee() -> None:
    model = MODELS["cpu"]
    load = build_load(Rates("steady", np.ones(60)), model, peak_pods=3, warmup_s=0.0)
    assert setting_for(load, model, 5.0, 1).first_limit == model.knee
    assert run_policy(parse("kpa"), load, model, cold_start_s=5.0, seed=1).score.arrivals > 0
