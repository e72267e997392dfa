"""Whatever happens in whatever order, a ReplicaSet takes only pods that leave."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from trimtab.core.names import EndpointName
from trimtab.core.revision import RevisionKey
from trimtab.fleet.kubernetes import counts
from trimtab.fleet.kubernetes.counts import HEARD_AFTER_S, HEARD_WITHIN_S, Lowering
from trimtab.fleet.kubernetes.seen import SeenDeployment, SeenPod

KEY = RevisionKey(EndpointName("default", "iris"), 1)
STEP_S = 0.1


def pod(name: str, *, serves: bool = True, leaves: bool = False) -> SeenPod:
    gate = serves and not leaves
    return SeenPod(name, KEY, 0.0, answers=serves, gate=gate, ready=gate, leaving=leaves)


def deployment(replicas: int, ready: int) -> SeenDeployment:
    return SeenDeployment(KEY, "u", "7", replicas, ready=ready)


def test_the_count_holds_what_leaves_until_it_is_marked_and_nothing_starts() -> None:
    stays, starts, goes = pod("a"), pod("b", serves=False), pod("c", leaves=True)
    unmarked = pod("c")
    assert counts.replicas(1, [stays, goes], {"c"}) == 1
    assert counts.replicas(1, [stays, unmarked], {"c"}) == 2, "it looks like the other one"
    assert counts.replicas(1, [stays, replace(goes, gate=True)], {"c"}) == 2
    assert counts.replicas(2, [stays, starts, goes], {"c"}) == 3, "the pending one would be taken"
    assert counts.replicas(2, [stays, goes], {"c"}) == 3, "one is not even there yet"
    assert counts.replicas(0, [starts], {"b"}) == 1, "not marked yet"
    assert counts.replicas(0, [goes, replace(goes, name="d")], {"c", "d"}) == 0


@pytest.mark.parametrize("lowered", [False, True])
def test_what_was_wanted_is_read_from_the_count_and_the_marks(lowered: bool) -> None:
    pods = [pod("a"), pod("b"), pod("c", leaves=True)]
    assert counts.wanted_before(2 if lowered else 3, pods) == 2


def test_the_count_is_lowered_once_the_replica_set_has_heard_which_pod_leaves() -> None:
    pods, two = [pod("a"), pod("b", leaves=True)], 2.0
    unheard, known = deployment(2, ready=2), deployment(2, ready=1)
    lowering = Lowering()
    assert lowering.replicas(1, pods, {"b"}, unheard, two) == (2, HEARD_WITHIN_S)
    assert lowering.replicas(1, pods, {"b"}, unheard, two + 50.0) == (2, HEARD_WITHIN_S - 50.0)
    assert lowering.replicas(1, pods, {"b"}, known, two + 50.0) == (1, 0.0)
    still_ready = [pods[0], replace(pods[1], ready=True)]
    assert Lowering().replicas(1, still_ready, {"b"}, known, two) == (2, HEARD_WITHIN_S)
    assert Lowering().replicas(1, pods, {"b"}, known, two) == (2, HEARD_AFTER_S)


def test_a_pod_of_which_nothing_is_heard_any_more_is_not_waited_for_without_end() -> None:
    """Its node is dead: to the ReplicaSet it is ready, and it goes first by its deletion cost alone."""
    pods = [pod("a"), replace(pod("b", leaves=True), ready=True)]
    lowering = Lowering()
    assert lowering.replicas(1, pods, {"b"}, deployment(2, ready=2), 0.0) == (2, HEARD_WITHIN_S)
    assert lowering.replicas(1, pods, {"b"}, deployment(2, ready=2), HEARD_WITHIN_S) == (1, 0.0)


def test_another_one_that_leaves_is_waited_for_anew() -> None:
    both, lowering = [pod("a"), pod("b", leaves=True), pod("c")], Lowering()
    lowering.replicas(2, both, {"b"}, deployment(3, ready=2), 0.0)
    assert lowering.replicas(1, both, {"b", "c"}, deployment(3, ready=2), 5.0) == (3, 0.0), "not marked yet"
    both[2] = pod("c", leaves=True)
    assert lowering.replicas(1, both, {"b", "c"}, deployment(3, ready=1), 6.0) == (3, HEARD_AFTER_S)


def test_where_all_leave_none_need_be_heard_of() -> None:
    pods = [pod("a", leaves=True), pod("b", leaves=True)]
    assert Lowering().replicas(0, pods, {"a", "b"}, deployment(2, ready=2), 0.0) == (0, 0.0)


def test_a_count_that_was_lowered_stays_so() -> None:
    """Though a pod that stays is not ready for a moment: another start would be in vain."""
    pods = [replace(pod("a"), ready=False), pod("b", leaves=True)]
    assert Lowering().replicas(1, pods, {"b"}, deployment(1, ready=0), 0.0) == (1, 0.0)


@pytest.mark.parametrize("seed", range(100))
def test_only_pods_that_leave_are_taken(seed: int) -> None:
    """The ReplicaSet may be behind by less than the rest, whatever starts and leaves meanwhile."""
    world = lived(seed, late_s=HEARD_AFTER_S - 2 * STEP_S)
    assert world.taken_wrongly == []
    assert len(world.pods) == world.wanted
    assert all(each.ready for each in world.pods.values())


@pytest.mark.parametrize("seed", range(100))
def test_a_replica_set_that_is_far_behind_takes_only_pods_that_leave(seed: int) -> None:
    """Where none starts its number of ready pods says it all, however long it takes to hear of them."""
    world = lived(seed, late_s=HEARD_WITHIN_S / 2, pods=6)
    assert world.taken_wrongly == []
    assert len(world.pods) == world.wanted


@pytest.mark.parametrize("lost", ["marks", "rest", "heard"])
def test_each_condition_is_needed(lost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks above can fail."""
    late_s, pods = HEARD_AFTER_S - 2 * STEP_S, 0
    if lost == "marks":
        monkeypatch.setattr(counts, "replicas", lambda wanted, _pods, _leaving: wanted)
    elif lost == "rest":
        monkeypatch.setattr(counts, "HEARD_AFTER_S", 0.0)
    else:
        monkeypatch.setattr(counts, "heard", lambda *_: True)
        late_s, pods = HEARD_WITHIN_S / 2, 6
    assert any(lived(seed, late_s, pods).taken_wrongly for seed in range(100))


def lived(seed: int, late_s: float, pods: int = 0) -> World:
    """A model of a ReplicaSet and of us, each acting on what it sees; steps drawn at random, then rest.

    The ReplicaSet hears of pods up to `late_s` late. With `pods` there are so many, which it has heard of,
    and no more are asked for.
    """
    world = World(random.Random(seed), late_s, pods)
    for _ in range(100):
        world.step()
    world.rest()
    return world


class World:
    def __init__(self, random: random.Random, late_s: float, pods: int) -> None:
        self.random = random
        self.late_s = late_s
        self.grows = not pods
        self.least = pods // 2
        self.pods = {f"p{number}": replace(pod(f"p{number}"), created_at_s=number) for number in range(pods)}
        self.leaving: set[str] = set()
        self.wanted = self.replicas = self.made = pods
        self.lowering = Lowering()
        self.told_ready = pods  # by the ReplicaSet
        self.now_s = 0.0
        self.history = [(0.0, dict(self.pods))]
        self.heard = 0  # how far of it by the ReplicaSet
        self.own = 0  # what it did itself it knows
        self.taken_wrongly: list[str] = []

    def step(self) -> None:
        we = [self.ask, self.leave, self.ready, self.fold, self.mark, self.write]
        self._do([*we, self.hear, self.tell, self.replica_set])

    def rest(self) -> None:
        """Nobody asks any more: all that is left is carried out."""
        for _ in range(5_000):
            if len(self.pods) == self.wanted and all(each.ready for each in self.pods.values()):
                return
            self._do([self.ready, self.fold, self.mark, self.write, self.hear, self.tell, self.replica_set])

    def _do(self, what: list[Callable[[], None]]) -> None:
        self.now_s += STEP_S
        self.random.choice(what)()
        if self.pods != self.history[-1][1]:
            self.history.append((self.now_s, dict(self.pods)))
        while self.heard + 1 < len(self.history) and self._next_at_s() <= self.now_s - self.late_s:
            self.heard += 1

    def _next_at_s(self) -> float:
        return self.history[self.heard + 1][0]

    def ask(self) -> None:
        self.wanted += self.grows and self.wanted < 6

    def leave(self) -> None:
        """Of pods that are there, ready or not."""
        staying = sorted(self.pods.keys() - self.leaving)
        if staying and self.wanted > self.least:
            self.leaving.add(self.random.choice(staying))
            self.wanted -= 1

    def ready(self) -> None:
        for name in self._some(each.name for each in self.pods.values() if not each.answers):
            self.pods[name] = replace(self.pods[name], answers=True)

    def fold(self) -> None:
        """As the kubelet does."""
        for name in self._some(self.pods):
            self.pods[name] = replace(self.pods[name], ready=self.pods[name].answers and self.pods[name].gate)

    def mark(self) -> None:
        for name in self._some(self.pods):
            leaves, seen = name in self.leaving, self.pods[name]
            if self.random.random() < 0.5:
                self.pods[name] = replace(seen, leaving=leaves)
            else:
                self.pods[name] = replace(seen, gate=not leaves and (seen.answers or seen.gate))

    def write(self) -> None:
        seen = deployment(self.replicas, self.told_ready)
        pods = list(self.pods.values())
        self.replicas, _ = self.lowering.replicas(self.wanted, pods, self.leaving, seen, self.now_s)

    def hear(self) -> None:
        self.heard += self.heard + 1 < len(self.history) and self.random.random() < 0.2

    def tell(self) -> None:
        self.told_ready = sum(each.ready for each in self.history[self.heard][1].values())

    def replica_set(self) -> None:
        """It acts on what it has heard, once it has heard of what it did itself."""
        if self.heard < self.own:
            return
        known = self.history[self.heard][1]
        for _ in range(self.replicas - len(known)):
            self.made += 1
            self.pods[f"p{self.made}"] = SeenPod(f"p{self.made}", KEY, self.made)
        for victim in sorted(known.values(), key=_rank)[: max(0, len(known) - self.replicas)]:
            if victim.name not in self.leaving:
                self.taken_wrongly.append(victim.name)
            del self.pods[victim.name]
            self.leaving.discard(victim.name)
        if self.replicas != len(known):
            self.own = len(self.history)

    def _some(self, names: object) -> list[str]:
        found = sorted(names)  # type: ignore[call-overload]
        return self.random.sample(found, min(1, len(found)))


def _rank(each: SeenPod) -> tuple[object, ...]:
    """As `ActivePodsWithRanks` sorts: pending, then unready, then cheap, then young pods go first."""
    return (each.answers, each.ready, -1 if each.leaving else 0, -each.created_at_s)
