"""How much room to keep warm, so that the pods of the next growth need not wait for a node. Pure.

Recent growth is the measure: a node takes `lead_s` until it holds pods, so what was asked for within any such
time should have been there when it began. The most of it in the last `over_s` is held, in placeholders of
given shapes, and no more than their bound. Worked example: shapes of 1 core, a lead of 120 s, half an hour
back. A quarter of an hour ago 12 pods of 0.3 cores were asked for within a minute, three of which fit in a
placeholder: 4 are held; and none half an hour later, if nothing else came.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor

from trimtab.core.spec import Resources


@dataclass(frozen=True)
class Shape:
    """A placeholder that there may be `pods_max` of."""

    name: str
    holds: Resources
    pods_max: int


@dataclass(frozen=True)
class Start:
    """A pod that was asked for. Wall clock, as pods tell it."""

    at_s: float
    takes: Resources


@dataclass(frozen=True)
class Room:
    """How many placeholders of a shape to have, and why."""

    shape: str
    pods: int
    why: str


def room(
    starts: Sequence[Start], shapes: Sequence[Shape], now_s: float, *, lead_s: float, over_s: float
) -> tuple[Room, ...]:
    """Of each shape, in their order.

    A pod is counted with the first shape that holds it, so shapes come from small to large. Starts in the
    future were told by another clock, and count as now.
    """
    recent = [(min(start.at_s, now_s), start) for start in starts if start.at_s > now_s - over_s]
    by_shape: dict[str, list[tuple[float, Fraction]]] = defaultdict(list)
    too_large = 0
    for at_s, start in sorted(recent, key=lambda each: each[0]):
        fits = next(((shape, n) for shape in shapes if (n := fit(start.takes, shape.holds))), None)
        if fits is None:
            too_large += 1
        else:
            by_shape[fits[0].name].append((at_s, Fraction(1, fits[1])))
    return tuple(_room(shape, by_shape[shape.name], too_large, lead_s, over_s) for shape in shapes)


def fit(takes: Resources, holds: Resources) -> int:
    """How many pods that take so much fit in what is held; 0: not one."""
    found = [floor(holds.cpu / takes.cpu + 1e-9)] if takes.cpu > 0 else []
    if takes.memory_bytes:
        found.append(holds.memory_bytes // takes.memory_bytes)
    has = dict(holds.extended)
    found += [has.get(name, 0) // count for name, count in takes.extended if count]
    return min(found, default=1)


def _room(
    shape: Shape, starts: list[tuple[float, Fraction]], too_large: int, lead_s: float, over_s: float
) -> Room:
    most, pods = _most_within(starts, lead_s)
    needed = ceil(most)
    held = min(needed, shape.pods_max)
    why = f"of the last {over_s / 60:.0f} min at most {pods} such pods were asked for within {lead_s:.0f} s"
    if pods:
        why += f", which take {needed}"
    if held < needed:
        why += f"; its bound is {shape.pods_max}"
    if too_large:
        why += f"; {too_large} pods were larger than any placeholder"
    return Room(shape.name, held, why)


def _most_within(starts: list[tuple[float, Fraction]], lead_s: float) -> tuple[Fraction, int]:
    """The largest sum of parts of a placeholder within any `lead_s`, and the pods it is of."""
    most, first, inside = (Fraction(0), 0), 0, Fraction(0)
    for last, (at_s, part) in enumerate(starts):
        inside += part
        while starts[first][0] <= at_s - lead_s:
            inside -= starts[first][1]
            first += 1
        most = max(most, (inside, last - first + 1))
    return most
