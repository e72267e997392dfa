"""Who gets pods when not all that are asked for fit: floors first, then the least served next.

Max-min fairness by progressive filling (Bertsekas and Gallager, Data Networks, 1992, section 6.5.2),
all endpoints alike, in the unit that runs out: bytes, when a pod of one takes more than a pod of another.

An example: 8 pods fit; A holds 6 and asks for 9, B asks for 4, C for 1, each with a floor of 1. C gets its
1, then A and B fill up side by side: 4 and 3. The odd pod goes to A, which holds it already.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Any, TypeVar

K = TypeVar("K", bound=Any)  # what can be ordered, so that the same asks are always answered alike


@dataclass(frozen=True, slots=True)
class Ask:
    """What one endpoint asks for, in pods; `size` is what one pod of it takes of the room."""

    floor: int
    held: int
    wanted: int
    size: int = 1


def share(room: int, asks: Mapping[K, Ask]) -> dict[K, int]:
    """How many pods each may have of `room`, which is what is free plus what their pods hold already.

    Nobody gets more than the larger of its floor and what it wants, and the sum of pods × size is
    at most `room`. If not even the floors fit, they are filled side by side, and nothing beyond them.
    One that asks for more never makes another's share larger.
    """
    given = dict.fromkeys(asks, 0)
    left = _fill(room, asks, given, {key: ask.floor for key, ask in asks.items()})
    if all(given[key] == ask.floor for key, ask in asks.items()):
        _fill(left, asks, given, {key: max(ask.floor, ask.wanted) for key, ask in asks.items()})
    return given


def _fill(left: int, asks: Mapping[K, Ask], given: dict[K, int], upto: Mapping[K, int]) -> int:
    """Raise `given` toward `upto`, a pod at a time to whoever has least with it; returns the room left."""
    queue = [_rank(key, asks[key], given[key]) for key in asks if given[key] < upto[key]]
    heapify(queue)
    while queue:
        key = heappop(queue)[-1]
        size = asks[key].size
        if size > left:
            continue  # for this one it is over; a smaller pod may still fit
        left -= size
        given[key] += 1
        if given[key] < upto[key]:
            heappush(queue, _rank(key, asks[key], given[key]))
    return left


def _rank(key: K, ask: Ask, given: int) -> tuple[int, bool, K]:
    """The lower, the sooner it gets its next pod: what it would have then; of two, who holds that pod."""
    return ((given + 1) * ask.size, given >= ask.held, key)
