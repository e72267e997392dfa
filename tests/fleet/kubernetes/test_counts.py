"""Whatever happens in whatever order, a ReplicaSet takes only pods that leave."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from trimtab.core.names import EndpointName
from trimtab.core.revision import RevisionKey
from trimtab.fleet.kubernetes import counts
from trimtab.fleet.kubernetes.seen import SeenPod

KEY = RevisionKey(EndpointName("default", "iris"), 1)


def pod(name: str, *, serves: bool = True, leaves: bool = False) -> SeenPod:
    return SeenPod(name, KEY, 0.0, answers=serves, gate=serves and not leaves, leaving=leaves)


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


@pytest.mark.parametrize("seed", range(100))
def test_only_pods_that_leave_are_taken(seed: int) -> None:
    world = lived(seed)
    assert world.taken_wrongly == []
    assert len(world.pods) == world.wanted
    assert all(each.gate for each in world.pods.values())


def test_a_count_that_is_lowered_at_once_would_take_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above can fail."""
    monkeypatch.setattr(counts, "replicas", lambda wanted, _pods, _leaving: wanted)
    assert any(lived(seed).taken_wrongly for seed in range(100))


def lived(seed: int) -> World:
    """A model of a ReplicaSet and of us, each acting on what it sees; steps drawn at random, then rest."""
    world = World(random.Random(seed))
    for _ in range(60):
        world.step()
    world.rest()
    return world


class World:
    def __init__(self, random: random.Random) -> None:
        self.random = random
        self.pods: dict[str, SeenPod] = {}
        self.leaving: set[str] = set()
        self.wanted = 0
        self.replicas = 0
        self.made = 0
        self.taken_wrongly: list[str] = []

    def step(self) -> None:
        self.random.choice([self.ask, self.leave, self.ready, self.mark, self.write, self.replica_set])()

    def rest(self) -> None:
        """Nobody asks any more: all that is left is carried out."""
        for _ in range(2_000):
            if len(self.pods) == self.wanted and all(each.gate for each in self.pods.values()):
                return
            self.random.choice([self.ready, self.mark, self.write, self.replica_set])()

    def ask(self) -> None:
        self.wanted += self.wanted < 6

    def leave(self) -> None:
        """Of pods that are there, ready or not."""
        staying = sorted(self.pods.keys() - self.leaving)
        if staying and self.wanted:
            self.leaving.add(self.random.choice(staying))
            self.wanted -= 1

    def ready(self) -> None:
        for name in self._some(each.name for each in self.pods.values() if not each.answers):
            self.pods[name] = replace(self.pods[name], answers=True)

    def mark(self) -> None:
        for name in self._some(self.pods):
            leaves, seen = name in self.leaving, self.pods[name]
            if self.random.random() < 0.5:
                self.pods[name] = replace(seen, leaving=leaves)
            else:
                self.pods[name] = replace(seen, gate=not leaves and (seen.answers or seen.gate))

    def write(self) -> None:
        self.replicas = counts.replicas(self.wanted, list(self.pods.values()), self.leaving)

    def replica_set(self) -> None:
        while len(self.pods) < self.replicas:
            self.made += 1
            name = f"p{self.made}"
            self.pods[name] = SeenPod(name, KEY, self.made)
        while len(self.pods) > self.replicas:
            victim = min(self.pods.values(), key=_rank)
            if victim.name not in self.leaving:
                self.taken_wrongly.append(victim.name)
            del self.pods[victim.name]
            self.leaving.discard(victim.name)

    def _some(self, names: object) -> list[str]:
        found = sorted(names)  # type: ignore[call-overload]
        return self.random.sample(found, min(1, len(found)))


def _rank(each: SeenPod) -> tuple[object, ...]:
    """As `ActivePodsWithRanks` sorts: pending, then unready, then cheap, then young pods go first."""
    ready = each.answers and each.gate
    return (each.answers, ready, -1 if each.leaving else 0, -each.created_at_s)
