"""What goes wrong in one seed, and when: drawn once, from the seed alone, before anything runs.

Each seed draws which kinds of fault it has at all. Were all of them on in every seed, each would hide
behind the others: pods that leave too soon are not seen while a mute Envoy keeps any from leaving.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

KINDS = (
    "mute",  # an Envoy serves on, but nothing of it arrives
    "outage",  # nothing of any Envoy arrives
    "replace envoy",
    "add envoy",
    "remove envoy",
    "pause",  # the control plane stands still: no decision, and of the signals meanwhile none or all at once
    "restart",  # the controller knows only what its store holds
    "die",  # ready pods end
    "failing starts",
    "stalling starts",  # a start that never ends
    "hang",  # a ready pod that holds its requests and completes none
    "slow",  # a shared dependency: every pod takes longer
    "machine",  # room shrinks or grows, with or without the pods in it
    "range",
    "ceiling",
    "target",  # the vertical axis
    "rollout",
    "hasty",  # a decision out of turn, as after each change of a spec
)
ON_SIGNALS = ("lost", "repeated", "late", "bunched", "shuffled", "wild", "jump")
FAULTY_S = (600, 1200)
CLEAN_S = 960  # the down window, that of a lull which begins at its end, and what decays with them


@dataclass(frozen=True)
class Event:
    """One thing that happens to the world or the controller."""

    at_s: int
    kind: str


@dataclass(frozen=True)
class Spell:
    """Seconds in which each signal meets a fault with a chance of its own per kind."""

    begin_s: int
    end_s: int
    chances: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Plan:
    """All faults of a seed. From `faulty_s` on nothing goes wrong any more, and the load is steady."""

    seed: int
    faulty_s: int
    events: tuple[Event, ...]
    spells: tuple[Spell, ...]
    last_s: int = field(default=0)

    def described(self, until_s: float) -> str:
        """The faults before a time, the last ones last."""
        told = [(e.at_s, f"{e.at_s:5} s  {e.kind}") for e in self.events if e.at_s <= until_s]
        for spell in self.spells:
            if spell.begin_s <= until_s:
                chances = ", ".join(f"{kind} {chance:.2g}" for kind, chance in spell.chances)
                told.append((spell.begin_s, f"{spell.begin_s:5} s  signals until {spell.end_s} s: {chances}"))
        return "\n".join(text for _, text in sorted(told)[-12:]) or "none"


def draw_plan(seed: int) -> Plan:
    """The plan of a seed, always the same."""
    rng = random.Random(f"plan {seed}")
    faulty_s = rng.randint(*FAULTY_S)
    kinds = [kind for kind in KINDS if rng.random() < 0.35]
    events = [
        Event(rng.randrange(20, faulty_s - 10), kind) for kind in kinds for _ in range(rng.randint(1, 4))
    ]
    spells = [_spell(rng, faulty_s) for _ in range(rng.choice((0, 1, 2, 4)))]
    return Plan(
        seed=seed,
        faulty_s=faulty_s,
        events=tuple(sorted(events, key=lambda event: (event.at_s, event.kind))),
        spells=tuple(sorted(spells, key=lambda spell: spell.begin_s)),
        last_s=faulty_s + CLEAN_S,
    )


def _spell(rng: random.Random, faulty_s: int) -> Spell:
    begin_s = rng.randrange(5, faulty_s - 10)
    kinds = rng.sample(ON_SIGNALS, rng.randint(1, 3))
    chances = tuple((kind, rng.choice((0.01, 0.05, 0.3, 1.0))) for kind in kinds)
    return Spell(begin_s, min(faulty_s, begin_s + rng.randint(5, 240)), chances)
