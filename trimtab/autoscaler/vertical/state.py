"""What a decision on a limit is made from, what is remembered between two, and what is stored."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from trimtab.core.revision import RevisionKey
from trimtab.core.signals import PodSignal, RevisionSignal

ONBOARDING = "onboarding"  # the knee is looked for, for the first time or again
RESTING = "resting"
_LEVELS_MAX = 24  # limits that are stored: doubling from 1 to 1024 and a dozen between


@dataclass(frozen=True, slots=True)
class LimitSignals:
    """All that one decision on a limit is made from: what came since the last one."""

    revision: RevisionKey
    pod_signals: tuple[PodSignal, ...] = ()
    revision_signals: tuple[RevisionSignal, ...] = ()
    ready_pods: int = 0
    pods_seen: tuple[tuple[float, int], ...] = ()  # (time, ready then), oldest first; (): as many
    limit: int = 1  # in force now
    cores: float = 1.0  # of one pod
    memory_limit_bytes: float = 0.0  # of one pod; 0: none or unknown
    floor: int = 1
    ceiling: int = 1000


@dataclass(frozen=True, slots=True)
class Level:
    """What one limit gave, summed over pods and windows in which it was held."""

    limit: int
    in_flight_s: float  # request-seconds in flight
    completions: float  # that did not fail
    pod_s: float  # pod-seconds
    windows: float

    @property
    def in_flight(self) -> float:
        """Mean requests in flight per pod."""
        return self.in_flight_s / self.pod_s

    @property
    def rate(self) -> float:
        """Completions per second and pod."""
        return self.completions / self.pod_s

    @property
    def time_s(self) -> float:
        """Time of one request in the pod, by Little's law."""
        return self.in_flight_s / self.completions


@dataclass(frozen=True, slots=True)
class Pressed:
    """A metric beyond its band: for how many windows, and its value when the limit was lowered for it."""

    metric: str
    windows: int
    lowered_at: float | None = None


@dataclass(frozen=True, slots=True)
class LimitState:
    """What is remembered between two decisions on a revision's limit."""

    limit: int = 0  # wanted last, whatever the range lets come into force of it; 0: not yet
    applied: int = 0  # what it let come into force at the last decision; 0: not known
    phase: str = ONBOARDING
    levels: tuple[Level, ...] = ()  # by limit
    cap: int = 0  # no higher, since a metric pressed there; 0: none
    dispersion: float = 0.0  # sum of squares over mean, see `evidence`
    dispersion_periods: float = 0.0
    unloaded_s: float = 0.0  # time per request at the least concurrency seen; 0: unknown
    unloaded_in_flight: float = 0.0
    explored: int = 0  # decisions of this exploration in which the limit bound
    down_first: bool = False  # it began because throughput fell
    suspect: int = 0  # a limit at which throughput collapsed, to be confirmed
    odd: int = 0  # windows in a row that did not fit
    waited: int = 0  # windows of this exploration in which only what had begun before the change completed
    contradicted: bool = False  # windows of this exploration spoke against each other beyond chance
    doubted: int = 0  # explorations in a row of which that holds; 0: what was found is believed
    spread: float = 0.0  # mean distance of throughput at rest from its mean (logarithm)
    residuals: tuple[float, ...] = ()  # of the last windows at rest, in units of what counts as changed
    pressed: tuple[Pressed, ...] = ()
    gpu_memory_least: float = 1.0  # share in use where it was least
    memory: tuple[tuple[int, float], ...] = ()  # share in use at the last limits that were held, by limit
    decided_s: float | None = None
    changed_s: float | None = None
    settled_s: float | None = None  # evidence counts from here
    rested_s: float | None = None  # the last exploration ended
    looked_s: float | None = None  # the limit was last put in question
    held_at: int = 0  # the ceiling that held the limit down; 0: none did


@dataclass(frozen=True, slots=True)
class Learned:
    """What is stored under a revision's hash, below 2 kB as JSON."""

    limit: int
    phase: str
    levels: tuple[Level, ...] = ()
    cap: int = 0
    dispersion: float = 0.0
    dispersion_periods: float = 0.0
    unloaded_s: float = 0.0
    unloaded_in_flight: float = 0.0
    explored: int = 0
    spread: float = 0.0
    held_at: int = 0
    gpu_memory_least: float = 1.0
    contradicted: bool = False
    doubted: int = 0

    def to_json(self) -> str:
        """As compact JSON."""
        content = asdict(self)
        content["levels"] = [
            [
                level.limit,
                *[_rounded(x) for x in (level.in_flight_s, level.completions, level.pod_s, level.windows)],
            ]
            for level in self.levels
        ]
        return json.dumps({key: _rounded(value) for key, value in content.items()}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Learned:
        """Read what `to_json` wrote, whatever fields it has beside. Raises ValueError if it is not that."""
        try:
            content = json.loads(text)
            known = {key: content[key] for key in cls.__dataclass_fields__ if key in content}
            levels = tuple(
                Level(int(limit), *[_positive(x) for x in rest]) for limit, *rest in known["levels"]
            )
            learned = cls(**known | {"levels": levels})
            numbers = [v for k, v in known.items() if k not in {"levels", "phase"}]
            if not all(isfinite(x) and x >= 0 for x in numbers) or learned.limit < 1:
                raise ValueError("a number is out of range")
            if learned.phase not in {ONBOARDING, RESTING}:
                raise ValueError(f"there is no phase {learned.phase!r}")
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not what a vertical axis stored: {error}") from error
        return learned


def learned(state: LimitState) -> Learned:
    """What is worth storing of a state: all but what belongs to this minute."""
    levels = sorted(state.levels, key=lambda level: abs(level.limit - state.limit))[:_LEVELS_MAX]
    return Learned(
        limit=max(1, state.limit),
        phase=state.phase,
        levels=tuple(sorted(levels, key=lambda level: level.limit)),
        cap=state.cap,
        dispersion=state.dispersion,
        dispersion_periods=state.dispersion_periods,
        unloaded_s=state.unloaded_s,
        unloaded_in_flight=state.unloaded_in_flight,
        explored=state.explored,
        spread=state.spread,
        held_at=state.held_at,
        gpu_memory_least=state.gpu_memory_least,
        contradicted=state.contradicted,
        doubted=state.doubted,
    )


def resume(stored: Learned) -> LimitState:
    """The state to go on from: at the limit that was learned, and as quiet as it was."""
    return LimitState(
        limit=stored.limit,
        phase=stored.phase,
        levels=stored.levels,
        cap=stored.cap,
        dispersion=stored.dispersion,
        dispersion_periods=stored.dispersion_periods,
        unloaded_s=stored.unloaded_s,
        unloaded_in_flight=stored.unloaded_in_flight,
        explored=stored.explored,
        spread=stored.spread,
        held_at=stored.held_at,
        gpu_memory_least=stored.gpu_memory_least,
        contradicted=stored.contradicted,
        doubted=stored.doubted,
    )


def _rounded(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _positive(value: float) -> float:
    if not isfinite(value) or value <= 0:
        raise ValueError(f"{value} is not a positive number")
    return float(value)
