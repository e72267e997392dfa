"""The published and computed reaction figures of each family, reproduced.

The scenario: 10 pods at their target; the load becomes `factor` times as large just after a decision
(the worst moment on the decisions' own grid); pods are instant, and what is offered is in flight, so
that only the rule counts. Measured: until the number wanted first covers the new load at the target.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from trimtab.autoscaler.simulator.policies.base import Policy, Setting
from trimtab.autoscaler.simulator.policies.hpa import Hpa
from trimtab.autoscaler.simulator.policies.keda import Keda
from trimtab.autoscaler.simulator.policies.knative import Knative
from trimtab.autoscaler.simulator.policies.ray import Ray

KNEE = 10
PODS = 10
STEP_S = 120.0  # a multiple of every period, and after every window is full

Make = Callable[[Setting], Policy]


def kpa(setting: Setting) -> Policy:
    return Knative(setting)


def hpa(setting: Setting) -> Policy:
    return Hpa(setting)


def keda(setting: Setting) -> Policy:
    return Keda(setting, target=0.8)


def ray(setting: Setting) -> Policy:
    return Ray(setting, target=0.8)


@pytest.fixture
def reaction(setting, flow, step) -> Callable[..., float]:
    def measure(
        make: Make, target: float, factor: float, *, phase_s: float = 0.0, late_s: float = 0.0
    ) -> float:
        """`late_s`: how long after a whole second the step comes."""
        at_s = STEP_S + late_s
        load = target * KNEE * PODS
        policy = make(setting(knee=KNEE, phase_s=phase_s, pods_min=PODS))
        world = flow(knee=KNEE, ready=PODS, queueless=True)
        world.run(policy, step(load, factor * load, at_s), at_s + 90)
        return world.first_with(round(factor * PODS), at_s)

    return measure


@pytest.mark.parametrize(
    ("make", "target", "factor", "published_s"),
    [
        (kpa, 0.7, 1.5, 50.0),
        (kpa, 0.7, 2.2, 6.0),
        (kpa, 0.7, 10.0, 6.0),
        (hpa, 0.8, 1.5, 15.0),
        (hpa, 0.8, 2.2, 30.0),
        (hpa, 0.8, 10.0, 60.0),
        (keda, 0.8, 1.5, 15.0),  # its HPA is the same one
        (keda, 0.8, 10.0, 60.0),
        (ray, 0.8, 10.0, 40.0),
    ],
)
def test_the_figure_is_reproduced(reaction, make, target, factor, published_s) -> None:
    assert reaction(make, target, factor) == published_s


@pytest.mark.parametrize("factor", [1.5, 2.2, 10.0])
def test_no_phase_of_the_hpa_is_slower(reaction, factor) -> None:
    """A step just after a sync is the worst: over all phases the figure is a maximum."""
    published_s = {1.5: 15.0, 2.2: 30.0, 10.0: 60.0}[factor]
    found = [reaction(hpa, 0.8, factor, phase_s=phase / 2) for phase in range(30)]
    assert max(found) == published_s
    assert min(found) > published_s - 15.0


def test_no_phase_of_ray_is_slower(reaction) -> None:
    """A step just after a push is the worst; its clock has a phase of at most the 10 s between two."""
    found = [reaction(ray, 0.8, 10.0, phase_s=phase / 2) for phase in range(20)]
    assert max(found) == 40.0
    assert min(found) > 30.0


def test_a_phase_that_splits_a_second_costs_the_kpa_at_most_one_decision_more(reaction) -> None:
    """Its windows are made of whole seconds: one that holds half of the step counts as half."""
    moments = [(phase / 2, late / 2) for phase in range(4) for late in range(4)]
    tenfold = [reaction(kpa, 0.7, 10.0, phase_s=phase_s, late_s=late_s) for phase_s, late_s in moments]
    half = [reaction(kpa, 0.7, 1.5, phase_s=phase_s, late_s=late_s) for phase_s, late_s in moments]
    assert 6.0 == min(tenfold) <= max(tenfold) <= 8.0
    assert 48.0 <= min(half) <= max(half) <= 51.0


@pytest.mark.parametrize(
    ("phase_s", "late_s", "took_s"), [(0.0, 0.0, 6.0), (1.0, 0.0, 7.0), (0.0, 0.5, 55.5)]
)
def test_with_instant_pods_the_kpa_can_miss_its_panic(reaction, phase_s, late_s, took_s) -> None:
    """×2.2 from 10 pods: the stable mean adds pods meanwhile, and 22 of 12 is below twice.

    When the step splits a second, its decisions never see twice the pods that there are by then.
    """
    assert reaction(kpa, 0.7, 2.2, phase_s=phase_s, late_s=late_s) == took_s


def wanted_after_a_cold_start(flow, policy: Policy, load: Callable[[float], float]) -> int:
    """The most pods wanted from zero on, when the first of them takes 60 s to start."""
    world = flow(ready=0, cold_start_s=60.0).run(policy, load, 300.0)
    return max(pods for _, pods in world.wishes)


def test_the_kpa_reads_the_backlog_of_a_cold_start_as_concurrency(setting, flow, step) -> None:
    """The class cpu from zero: a load that 2 pods carry at their knee, and 845 pods are wanted.

    The first request comes just before a whole second, and decisions are made at odd seconds after.
    """
    policy = Knative(setting(pods_min=0, phase_s=1.0))
    assert wanted_after_a_cold_start(flow, policy, step(0.0, 2 * 4.0, 99.985)) == 845


@pytest.mark.parametrize("phase_s", [0.5, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("late_s", [0.0, 0.25, 0.5, 0.75])
def test_at_every_phase_it_asks_for_more_than_800(setting, flow, step, phase_s, late_s) -> None:
    policy = Knative(setting(pods_min=0, phase_s=phase_s))
    assert 830 <= wanted_after_a_cold_start(flow, policy, step(0.0, 2 * 4.0, 100.0 + late_s)) <= 855
