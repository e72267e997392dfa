"""Models whose requests are as short as their way: Envoy's count says that the limit binds, pods never do.

Ten times as slow as a small classifier, which is in its pod for 0.3 ms and on its way for 0.25 ms.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.autoscaler.vertical.models import cpu, lognormal
from tests.autoscaler.vertical.world import REVISION, Loop, World
from trimtab.autoscaler.vertical import LimitSignals, LimitState, decide_limit
from trimtab.core.signals import PodSignal, RevisionSignal

POD_S, HOP_S = 0.003, 0.0025


def fast(knee: float, **given: object) -> World:
    return World(cpu(knee, POD_S + HOP_S), hop_s=HOP_S, **given)  # type: ignore[arg-type]


def window(begin_s: float, held: float, at_envoy: int, done: float) -> LimitSignals:
    """30 s of two pods at a limit of 1 that hold `held` as they see it, and `at_envoy` together for Envoy."""
    pods = tuple(
        PodSignal(REVISION, f"iris-{pod}", begin_s + at_s, 5.0, held, 0.0, 5 * done, 5 * held)
        for pod in range(2)
        for at_s in range(5, 31, 5)
    )
    both = int(2 * done)
    envoys = tuple(
        RevisionSignal(REVISION, "e", begin_s + at_s, 1.0, both, both, 0, 0, at_envoy, 500, 502.0)
        for at_s in range(1, 31)
    )
    return LimitSignals(REVISION, pods, envoys, ready_pods=2, limit=1)


def test_queued_requests_and_full_pods_by_envoys_count_raise_the_limit() -> None:
    _, decision = decide_limit(LimitState(), window(0.0, 0.62, 2, 1100.0), 30.0)
    assert decision.reason == (
        "goes from 1 to 2: the limit binds (1.1e+03/s at 1) and no other has been tried"
    )
    inputs = dict(decision.inputs)
    assert (inputs["held_share"], inputs["in_flight_at_envoy"]) == (1.0, 1.0)
    assert inputs["in_flight"] == pytest.approx(0.62), "as the pod sees it"
    assert inputs["time_s"] == pytest.approx(0.62 / 1100.0)


def test_the_same_where_envoy_has_room() -> None:
    _, decision = decide_limit(LimitState(), window(0.0, 0.3, 1, 500.0), 30.0)
    assert decision.reason == "stays at 1: the limit does not bind (0.3 of 1 in flight)"


def test_a_count_that_cannot_be_is_no_evidence() -> None:
    _, decision = decide_limit(LimitState(), window(0.0, 0.3, 10**6, 500.0), 30.0)
    assert decision.rule == "load"


@pytest.mark.parametrize("pods", [1, 3])
@pytest.mark.parametrize("knee", [1, 2, 6])
def test_its_knee_is_found(knee: int, pods: int) -> None:
    loop = Loop(fast(knee, pods=pods)).run(11)
    assert loop.limit == knee
    assert loop.changes(1) == 0


def test_one_that_thrashes_a_little_is_not_pushed_on() -> None:
    loop = Loop(World(lambda n: min(n, 2) / 0.0055 * min(1.0, 2 / n) ** 0.3, hop_s=HOP_S)).run(20)
    assert loop.limit == 2


@pytest.mark.parametrize(("pods", "load"), [(1, 0.3), (1, 0.7), (3, 0.7)])
def test_no_growth_while_the_load_is_what_binds(pods: int, load: float) -> None:
    world = fast(8, pods=pods, costs=lognormal(0.3), offered_per_s=load * pods / (POD_S + HOP_S))
    loop = Loop(world).run(20)
    assert set(loop.limits()) == {1}
    assert loop.decisions[-1].binds == "load"


@pytest.mark.parametrize("pods", [1, 6])
def test_it_is_found_too_where_requests_seldom_wait(pods: int) -> None:
    """One pod at 95 % of what a limit of 1 gives; six at 90 %, where seldom a request waits."""
    load = 0.95 if pods == 1 else 0.9
    world = fast(8, pods=pods, costs=lognormal(0.3), offered_per_s=load * pods / (POD_S + HOP_S))
    assert Loop(world).run(40 if pods == 1 else 6).limit == 2


def test_from_pods_and_envoys_alike_once_requests_are_long() -> None:
    """The hop is of no account then, and Envoy's count says nothing that the pods' does not."""
    slow = World(cpu(6, 0.1), pods=2)
    without = Loop(World(cpu(6, 0.1), pods=2)).run(12, lambda s: replace(s, revision_signals=()))
    assert Loop(slow).run(12).limits() == without.limits()


def test_a_rate_that_drifts_by_a_tenth_is_no_disturbance() -> None:
    """Others on the machine take some of it, now and then: of 5,500 completions that is far beyond chance."""
    signals = window(0.0, 1.0, 2, 1100.0)
    drifting = tuple(
        replace(each, completions=(0.85, 1.0, 1.15)[number % 3] * 5500.0)
        for number, each in enumerate(signals.pod_signals)
    )
    _, decision = decide_limit(LimitState(), replace(signals, pod_signals=drifting), 30.0)
    assert decision.rule == "onboarding"
    halved = tuple(
        replace(each, completions=(0.4, 0.4, 1.0)[number % 3] * 5500.0)
        for number, each in enumerate(signals.pod_signals)
    )
    _, decision = decide_limit(LimitState(), replace(signals, pod_signals=halved), 30.0)
    assert decision.rule == "disturbance"
