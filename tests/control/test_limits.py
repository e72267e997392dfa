"""What becomes of the vertical axis's decisions: in Envoy, in the number of pods, in the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from trimtab.autoscaler.vertical import Learned, LimitSignals, LimitState, resume
from trimtab.autoscaler.vertical.state import Level
from trimtab.control import limits
from trimtab.control.limits import CONFIRMED_EACH_S, LIMIT_EACH_S
from trimtab.control.records import LearnedLimit, Outcome
from trimtab.core.decision import LimitDecision
from trimtab.core.errors import Exhausted
from trimtab.core.names import EndpointName
from trimtab.core.revision import RevisionKey
from trimtab.core.signals import PodSignal, RevisionSignal
from trimtab.v1 import control_pb2 as v1

IRIS, WINE = EndpointName("default", "iris"), EndpointName("default", "wine")
Spec = Callable[..., Any]


class Axis:
    """In place of the vertical axis: wants what the test says, and keeps what it was given."""

    def __init__(self) -> None:
        self.wants = 0  # 0: what there is
        self.given: list[LimitSignals] = []
        self.times_s: list[float] = []
        self.states: list[LimitState] = []
        self.knows: LimitState | None = None  # None: nothing but the limit

    def decide(self, state: LimitState, signals: LimitSignals, now_s: float) -> tuple[Any, LimitDecision]:
        self.given.append(signals)
        self.times_s.append(now_s)
        self.states.append(state)
        state = self.knows or state
        limit = min(self.wants or state.limit or signals.limit, signals.ceiling)
        decision = LimitDecision(signals.revision, now_s, signals.limit, limit, "test", "because")
        return replace(state, limit=limit), decision


@pytest.fixture
def axis(monkeypatch: pytest.MonkeyPatch) -> Axis:
    made = Axis()
    monkeypatch.setattr(limits, "decide_limit", made.decide)
    return made


async def served(plane: Any, spec: Any, name: EndpointName = IRIS) -> None:
    plane.apply(spec, name)
    await plane.until(lambda: plane.record(name).outcome is Outcome.SERVING)
    plane.load.setdefault(name, 0.5)  # what nobody asks rests


def told_to_envoy(plane: Any, number: int = 1) -> int:
    (view,) = [view for view in plane.reconciler._views() if view.name == IRIS]
    return next(r.target_concurrency for r in view.revisions if r.key.number == number)


def log(plane: Any) -> list[v1.Decision]:
    return plane.store.log.latest(IRIS, 1_000, 1e12, axis=v1.AXIS_LIMIT)


async def test_one_decision_each_half_minute_from_all_that_came_meanwhile(
    plane: Any, axis: Axis, spec: Spec
) -> None:
    await served(plane, spec(1))
    await plane.until(lambda: axis.given, within_s=int(LIMIT_EACH_S) + 10)
    key = RevisionKey(IRIS, 1)
    plane.pod_news[key] = (PodSignal(key, "p", 1.0, 5.0, in_flight=2.0),)
    await plane.seconds(300)
    apart = [later - sooner for sooner, later in pairwise(axis.times_s)]
    assert len(apart) == 10
    assert all(LIMIT_EACH_S <= each < LIMIT_EACH_S + 5.0 for each in apart)
    seconds = [signal.at_s for signals in axis.given[1:] for signal in signals.revision_signals]
    assert seconds == sorted(set(seconds)), "each once"
    assert all(later - sooner == 1.0 for sooner, later in pairwise(seconds)), "none lost"
    assert [len(signals.pod_signals) for signals in axis.given[1:]] == [1] + [0] * 9
    looks = [signals.pods_seen for signals in axis.given[1:]]
    assert all(later[0] == sooner[-1] for sooner, later in pairwise(looks)), "a window begins with as many"
    assert all(len(each) >= 6 and {pods for _, pods in each} == {1} for each in looks)
    assert (axis.given[-1].ready_pods, axis.given[-1].cores, axis.given[-1].ceiling) == (1, 1.0, 64)
    assert {d.limit for d in log(plane)} == {1}


async def test_endpoints_do_not_decide_at_the_same_instant(plane: Any, axis: Axis, spec: Spec) -> None:
    names = [EndpointName("default", f"e{index}") for index in range(12)]
    for name in names:
        plane.apply(spec(1), name)
        plane.load[name] = 0.5
    await plane.seconds(60)
    first: dict[RevisionKey, float] = {}
    for given, at_s in zip(axis.given, axis.times_s, strict=True):
        first.setdefault(given.revision, at_s)
    assert len(first) == 12
    assert len(set(first.values())) >= 4, "a horizontal decision each 5 s is when they may"


async def test_a_new_limit_reaches_envoy_and_the_number_of_pods_at_once(
    plane: Any, axis: Axis, spec: Spec
) -> None:
    await served(plane, spec(1))
    plane.load[IRIS] = 12.0
    await plane.until(lambda: plane.phases(1).count("ready") >= 12)
    axis.wants = 4
    await plane.until(lambda: plane.endpoints.revisions(IRIS)[1].learned_limit == 4)
    decision = plane.store.log.latest(IRIS, 1, 1e12)[0]
    target = next(each.value for each in decision.inputs if each.name == "target_concurrency")
    assert target == 4, "the decision on pods of the same look has it"
    assert (told_to_envoy(plane), log(plane)[0].limit_before, log(plane)[0].limit) == (4, 1, 4)
    assert [
        d.limit for d in plane.store.log.latest(IRIS, 9, 1e12, axis=v1.AXIS_LIMIT, changes_only=True)
    ] == [4]
    labels = {"axis": "limit", "rule": "test"}
    assert plane.metrics.registry.get_sample_value("trimtab_decisions_total", labels) == len(log(plane))
    await plane.until(lambda: plane.phases(1).count("ready") <= 6, within_s=900)
    published = plane.envoy.publications
    await plane.look(3)
    assert plane.envoy.publications == published, "a limit that stays is no news to Envoy"


async def test_status_tells_what_was_learned(plane: Any, platform: Any, axis: Axis, spec: Spec) -> None:
    await served(plane, spec(1))
    (before,) = platform.endpoint(IRIS).status.revisions
    assert (before.target_concurrency, before.target_learned) == (1, False)
    axis.wants = 8
    await plane.seconds(int(LIMIT_EACH_S) + 6)
    (after,) = platform.endpoint(IRIS).status.revisions
    assert (after.target_concurrency, after.target_learned) == (8, True)


async def test_the_ranges_maximum_holds_even_for_what_was_learned(plane: Any, axis: Axis, spec: Spec) -> None:
    await served(plane, spec(1))
    axis.wants = 40
    await plane.seconds(int(LIMIT_EACH_S) + 6)
    assert told_to_envoy(plane) == 40
    plane.apply(spec(1, high=16))
    await plane.look()
    assert told_to_envoy(plane) == 16
    await plane.seconds(int(LIMIT_EACH_S) + 6)
    assert (axis.given[-1].limit, axis.given[-1].ceiling) == (16, 16)
    plane.apply(spec(1, high=64))
    await plane.seconds(int(LIMIT_EACH_S) + 6)
    assert told_to_envoy(plane) == 40, "it was not forgotten"


async def test_nothing_is_learned_while_no_limit_has_shown_what_it_gives(
    plane: Any, axis: Axis, spec: Spec
) -> None:
    await served(plane, spec(1))
    await plane.seconds(200)
    assert plane.store.learned(plane.endpoints.revisions(IRIS)[1].revision.hash) is None
    assert plane.endpoints.revisions(IRIS)[1].learned_limit == 0


async def test_a_restart_goes_on_from_what_was_learned(plane: Any, axis: Axis, spec: Spec) -> None:
    await served(plane, spec(1))
    axis.wants = 8
    await plane.seconds(int(LIMIT_EACH_S) + 6)
    axis.wants = 0
    plane.kill()
    plane.start()
    plane.envoy.connected = True
    await plane.look()
    assert told_to_envoy(plane) == 8, "from the first look on, before anything is decided"
    seen = len(axis.given)
    await plane.seconds(int(LIMIT_EACH_S) + 6)
    assert (axis.given[seen].limit, axis.states[seen].limit) == (8, 8)


async def test_another_endpoint_of_the_same_hash_begins_with_it(plane: Any, axis: Axis, spec: Spec) -> None:
    await served(plane, spec(1))
    axis.wants = 8
    await plane.seconds(int(LIMIT_EACH_S) + 6)
    axis.wants = 0
    await served(plane, spec(1), WINE)
    assert plane.endpoints.revisions(WINE)[1].learned_limit == 8
    assert [pod.revision.endpoint for pod in plane.fleet.pods()] == [IRIS, WINE]
    plane.apply(spec(2))
    await plane.until(lambda: plane.record().outcome is Outcome.SERVING)
    assert plane.endpoints.revisions(IRIS)[2].learned_limit == 0, "of another model nothing is known"


def known(limit: int, phase: str = "resting", held_at: int = 0) -> Learned:
    levels = tuple(Level(n, 600.0 * n, 1000.0 * n, 600.0, 20.0) for n in (4, 8, 16) if n <= limit)
    return Learned(
        limit, phase, levels, dispersion=10.0, dispersion_periods=40.0, explored=10, held_at=held_at
    )


def put(plane: Any, learned: Learned, name: EndpointName = IRIS) -> str:
    """Stores it for the model of an endpoint, as if it had been learned before; the hash."""
    revision_hash: str = plane.endpoints.revisions(name)[1].revision.hash
    entry = LearnedLimit(revision_hash, learned.limit, learned.to_json(), plane.clock.wall_s())
    plane.store.record([], [entry])
    return revision_hash


def restart(plane: Any) -> None:
    plane.kill()
    plane.start()
    plane.envoy.connected = True


async def test_another_endpoints_narrow_range_leaves_what_was_learned(plane: Any, spec: Spec) -> None:
    plane.apply(spec(1, high=1000))
    revision_hash = put(plane, known(16))
    restart(plane)
    await plane.until(lambda: plane.record().outcome is Outcome.SERVING)
    await served(plane, spec(1, high=4), WINE)
    await plane.seconds(60)
    assert plane.store.learned(revision_hash).target == 16
    restart(plane)
    await plane.seconds(60)
    assert told_to_envoy(plane) == 16


async def test_a_range_that_was_narrow_for_a_while_costs_nothing(plane: Any, spec: Spec) -> None:
    plane.apply(spec(1, high=1000))
    revision_hash = put(plane, known(16))
    restart(plane)
    await plane.until(lambda: plane.record().outcome is Outcome.SERVING)
    await plane.seconds(40)
    plane.apply(spec(1, high=4))
    await plane.seconds(2 * int(CONFIRMED_EACH_S))
    assert (told_to_envoy(plane), plane.store.learned(revision_hash).target) == (4, 16)
    plane.apply(spec(1, high=1000))
    await plane.look()
    assert told_to_envoy(plane) == 16, "at once"
    await plane.seconds(60)
    assert told_to_envoy(plane) == 16


@pytest.mark.parametrize(
    ("there", "mine", "stays"),
    [
        (known(16), known(4, held_at=4), True),
        (known(16), known(8, "onboarding"), True),
        (known(16), known(8), False),
        (known(16, held_at=16), known(32, held_at=32), False),
        (known(16, "onboarding"), known(4, held_at=4), False),
    ],
)
async def test_of_two_endpoints_with_the_same_hash_what_knows_more_is_kept(
    plane: Any, axis: Axis, spec: Spec, there: Learned, mine: Learned, stays: bool
) -> None:
    await served(plane, spec(1, high=1000))
    revision_hash = put(plane, there)
    axis.knows = resume(mine)
    await plane.seconds(int(LIMIT_EACH_S) + 6)
    assert plane.store.learned(revision_hash).target == (there if stays else mine).limit
    assert told_to_envoy(plane) == mine.limit, "its own pods go by what they have shown"


async def test_what_changes_a_little_each_time_is_stored_now_and_then(
    plane: Any, axis: Axis, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored: list[LearnedLimit] = []
    record = plane.store.record

    def counting(logged: Any, learned: Any = ()) -> None:
        stored.extend(learned)
        record(logged, learned)

    monkeypatch.setattr(plane.store, "record", counting)
    await served(plane, spec(1))
    plane.load[IRIS] = 0.5
    axis.wants = 8
    await plane.seconds(2 * int(CONFIRMED_EACH_S) + 60)
    assert [each.target for each in stored] == [8, 8, 8]
    assert Learned.from_json(stored[-1].content).limit == 8
    axis.wants = 6
    await plane.seconds(int(LIMIT_EACH_S) + 6)
    assert stored[-1].target == 6


async def test_what_was_learned_on_a_full_disk_is_stored_later(
    plane: Any, axis: Axis, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    await served(plane, spec(1))
    axis.wants = 8

    def full(logged: Any, learned: Any) -> None:
        raise Exhausted("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(plane.store, "record", full)
        await plane.seconds(int(LIMIT_EACH_S) + 6)
    revision = plane.endpoints.revisions(IRIS)[1]
    assert (revision.learned_limit, told_to_envoy(plane)) == (8, 8)
    await plane.look()
    assert plane.store.learned(revision.revision.hash).target == 8


@pytest.mark.parametrize("content", ["", "{}", "nonsense", '{"limit": -3}'])
async def test_what_another_version_learned_is_learned_anew(
    plane: Any, axis: Axis, spec: Spec, content: str
) -> None:
    plane.apply(spec(1))
    revision_hash = plane.endpoints.revisions(IRIS)[1].revision.hash
    plane.store.record([], [LearnedLimit(revision_hash, 8, content, 5.0)])
    plane.kill()
    plane.start()
    plane.envoy.connected = True
    plane.load[IRIS] = 0.5
    await plane.until(lambda: plane.record().outcome is Outcome.SERVING)
    await plane.seconds(int(LIMIT_EACH_S) + 6)
    assert axis.states[0] == LimitState()
    assert axis.given[0].limit == 8, "the limit itself is known"


async def test_with_the_real_axis_a_pod_that_bears_more_is_given_more(
    new_plane: Callable[..., Any], tmp_path: Path, spec: Spec
) -> None:
    """One pod, whose throughput grows up to eight requests at a time, under twenty callers that wait."""
    plane = new_plane(tmp_path)
    await served(plane, spec(1, max_pods=1))
    key = RevisionKey(IRIS, 1)
    changes = []
    for _ in range(8 * int(LIMIT_EACH_S)):
        limit = told_to_envoy(plane)
        changes += [limit] if changes[-1:] != [limit] else []
        rate, now_s = 10.0 * min(limit, 8), plane.clock.now_s()
        flush = RevisionSignal(
            key, "e", now_s, 1.0, int(rate), int(rate), 0, 0, limit, 20 - min(limit, 20), 20.0
        )
        plane.observations.add((flush,), None, ())
        if not plane.clock.now_s() % 5:
            told = PodSignal(key, "p", now_s, 5.0, float(limit), 0.0, 5 * rate, 5.0 * limit, 0.0, 0.5)
            plane.pod_news[key] = (*plane.pod_news.get(key, ()), told)
        await plane.seconds()
    assert changes[:4] == [1, 2, 4, 8], "it doubles while it onboards"
    assert 7 <= told_to_envoy(plane) <= 10
    stored = plane.store.learned(plane.endpoints.revisions(IRIS)[1].revision.hash)
    assert stored.target == told_to_envoy(plane)
    plane.close()
