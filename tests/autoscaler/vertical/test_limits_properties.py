"""What holds for every input: bounds, bounded steps, silence, repeatability; whatever the signals say."""

from __future__ import annotations

import random
from dataclasses import replace
from math import ceil, inf, nan

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.autoscaler.vertical.models import cpu
from tests.autoscaler.vertical.world import REVISION, Loop, World
from trimtab.autoscaler.vertical import (
    DEFAULT,
    Learned,
    LimitSignals,
    LimitState,
    decide_limit,
    learned,
    resume,
)
from trimtab.core.names import EndpointName
from trimtab.core.revision import RevisionKey
from trimtab.core.signals import GpuSignal, PodSignal, RevisionSignal

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
numbers = st.none() | st.sampled_from([0.0, -1.0, nan, inf, -inf, 1e300, 1e-300]) | st.floats(0, 200)
gpus = st.none() | st.builds(
    GpuSignal,
    utilisation=numbers,
    engine_active=numbers,
    memory_used_bytes=numbers,
    memory_free_bytes=numbers,
    memory_bandwidth=numbers,
    tensor_active=numbers,
    fp16_active=numbers,
    pods=st.integers(1, 3),
)
pods = st.builds(
    PodSignal,
    revision=st.sampled_from([REVISION, RevisionKey(EndpointName("default", "other"), 2)]),
    pod=st.sampled_from(["a", "b", "c", "d"]),
    at_s=st.floats(-50, 40) | st.sampled_from([nan, inf, 30.0]),
    period_s=st.sampled_from([5.0, 5.0, 5.0, 1.0, 0.0, -5.0, nan, inf]),
    in_flight=numbers,
    queued=numbers,
    completions=numbers,
    request_time_s=numbers,
    failed=numbers,
    cpu_cores=numbers,
    memory_bytes=numbers,
    io_wait=numbers,
    cache_used=numbers,
    gpu=gpus,
)
counts = st.sampled_from([0, 1, 5, 100, 10_000_000])
envoys = st.builds(
    RevisionSignal,
    revision=st.just(REVISION),
    envoy=st.sampled_from(["e1", "e2"]),
    at_s=st.floats(0, 40),
    period_s=st.sampled_from([1.0, 1.0, 0.0, nan]),
    arrivals=counts,
    completions=counts,
    rejected=counts,
    failed=counts,
    in_flight=counts,
    queued=counts,
    request_time_s=st.floats(0, 1e6),
)
windows = st.lists(
    st.tuples(st.lists(pods, max_size=12), st.lists(envoys, max_size=8)), min_size=1, max_size=25
)


@quick
@given(windows, st.integers(1, 20), st.integers(0, 200), st.integers(1, 300), st.integers(0, 4))
def test_bounds_and_steps_whatever_comes(
    script: list[tuple[list[PodSignal], list[RevisionSignal]]], floor: int, more: int, limit: int, ready: int
) -> None:
    ceiling = floor + more
    limit = min(max(limit, floor), ceiling)
    state = LimitState()
    for number, (of_pods, of_envoys) in enumerate(script):
        begin_s = 30.0 * number
        signals = LimitSignals(
            REVISION,
            tuple(replace(each, at_s=each.at_s + begin_s) for each in of_pods),
            tuple(each._replace(at_s=each.at_s + begin_s) for each in of_envoys),
            ready_pods=ready,
            limit=limit,
            memory_limit_bytes=1e9,
            floor=floor,
            ceiling=ceiling,
        )
        after, decision = decide_limit(state, signals, begin_s + 30.0)
        assert (after, decision) == decide_limit(state, signals, begin_s + 30.0)
        assert floor <= decision.limit <= ceiling
        assert limit / DEFAULT.step_down <= max(decision.limit, 1) <= max(1, ceil(limit * DEFAULT.step_up))
        assert decision.reason
        kept = Learned.from_json(learned(after).to_json()).limit
        assert min(max(kept, floor), ceiling) == decision.limit
        state, limit = after, decision.limit


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 12), st.integers(1, 30))
def test_silence_changes_nothing(before: int, windows_without: int) -> None:
    loop = Loop(World(cpu(4, 0.1), limit=1)).run(before)
    limit, levels = loop.limit, loop.state.levels
    state = loop.state
    for number in range(windows_without):
        silent = LimitSignals(REVISION, ready_pods=2, limit=limit)
        state, decision = decide_limit(state, silent, loop.world.now_s + 30.0 * (number + 1))
        assert (decision.limit, decision.rule, decision.binds) == (limit, "unknown", "missing signals")
        assert state.levels == levels


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000))
def test_duplicates_and_disorder_change_nothing(seed: int) -> None:
    rng = random.Random(seed)

    def muddle(signals: LimitSignals) -> LimitSignals:
        twice = [*signals.pod_signals, *rng.sample(signals.pod_signals, k=5)]
        late = [replace(each, at_s=each.at_s - 60.0) for each in rng.sample(signals.pod_signals, k=3)]
        rng.shuffle(twice)
        return replace(signals, pod_signals=(*twice, *late))

    plain = Loop(World(cpu(4, 0.1), pods=3, limit=1)).run(8)
    muddled = Loop(World(cpu(4, 0.1), pods=3, limit=1)).run(8, muddle)
    assert muddled.limits() == plain.limits()


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000))
def test_a_tenth_of_the_signals_wild_or_lost(seed: int) -> None:
    rng = random.Random(seed)

    def spoil(each: PodSignal) -> PodSignal | None:
        fate = rng.random()
        if fate < 0.04:
            return None
        if fate < 0.07:
            return replace(each, in_flight=1e7)
        return replace(each, in_flight=nan, completions=None, memory_bytes=inf) if fate < 0.1 else each

    loop = Loop(World(cpu(4, 0.1), pods=3, limit=1))
    loop.run(12, lambda s: replace(s, pod_signals=tuple(x for p in s.pod_signals if (x := spoil(p)))))
    assert loop.limit == 4


@settings(max_examples=40, deadline=None)
@given(
    st.text(max_size=40)
    | st.sampled_from(['{"limit":0}', "[]", "null", '{"limit":4,"phase":"x","levels":[]}'])
)
def test_what_was_not_stored_by_us_is_refused(text: str) -> None:
    try:
        state = resume(Learned.from_json(text))
    except ValueError:
        return
    raise AssertionError(f"{text!r} was taken for {state}")
