"""How many pods fit into memory, and which one must go when it runs out. Pure arithmetic.

An example: 8 GiB machine, 3 GiB available, reserve 512 MiB, one pod of 400 MiB starting that has
taken 100 MiB so far: 3072 - 512 - 300 = 2260 MiB are free, so 5 more pods of 400 MiB fit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from trimtab.fleet.memory import Memory
from trimtab.fleet.protocol import Room
from trimtab.fleet.words import size

RESERVE_BYTES_MIN = 512 << 20  # for Envoy, the control plane and the person at the keyboard
RESERVE_SHARE = 0.05
FOLDER_FACTOR = 1.5  # weights once, plus what a loader holds beside them
EXCESS_FACTOR = 1.25  # a pod this far above what was expected may be blamed for want of memory
FALL_SHARE = 0.001  # per observation (2 s): believed at once on the way up, half in 23 min on the way down


@dataclass(frozen=True)
class Appetite:
    """What a pod takes, and what it was expected to take."""

    pod_id: str
    memory_bytes: int | None
    expected_bytes: int


def reserve_bytes(total_bytes: int) -> int:
    """Memory that pods are never started into."""
    return max(RESERVE_BYTES_MIN, int(total_bytes * RESERVE_SHARE))


def floor_bytes(total_bytes: int) -> int:
    """Below this much available memory a pod is killed, before the kernel chooses a victim."""
    return reserve_bytes(total_bytes) // 2


def estimate_bytes(learned: int | None, typical: int, folder: int, limit: int) -> int:
    """What one more pod will take: as learned from its like, else by its runtime and its model's files.

    A pod with a `limit` (> 0) takes no more than that.
    """
    guess = learned if learned is not None else max(typical, int(folder * FOLDER_FACTOR))
    return min(guess, limit) if limit else guess


def learn(known: int | None, seen: int) -> int:
    """The appetite to expect after `seen` bytes in a ready pod: up at once, down by 0.1 % of the gap."""
    if known is None or seen >= known:
        return seen
    return known - int((known - seen) * FALL_SHARE)


def pending_bytes(starting: Iterable[Appetite]) -> int:
    """What pods that are starting have yet to take."""
    return sum(max(0, pod.expected_bytes - (pod.memory_bytes or 0)) for pod in starting)


def room_for(memory: Memory | None, pending: int, each: int) -> Room:
    """How many pods of `each` bytes fit beside what runs and what `pending` pods will take."""
    if memory is None:
        return Room(None, "this machine's free memory is unknown")
    free = max(0, memory.available_bytes - reserve_bytes(memory.total_bytes) - pending)
    why = f"this machine: {size(free)} free, a pod takes {size(each)}"
    return Room(free // max(1, each), why, free, max(1, each))


def to_blame(pods: Iterable[Appetite]) -> Appetite | None:
    """The pod that exceeds its expectation most; None if none does by a quarter."""
    excessive = [pod for pod in pods if (pod.memory_bytes or 0) > pod.expected_bytes * EXCESS_FACTOR]
    return max(excessive, key=lambda pod: (pod.memory_bytes or 0) - pod.expected_bytes, default=None)
