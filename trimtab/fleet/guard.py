"""Memory held in check: what each pod takes, what its like is expected to take, and who must go."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection

from trimtab.core.clock import Clock
from trimtab.core.pod import PodPhase
from trimtab.fleet.appetite import Appetites
from trimtab.fleet.life import LocalPod
from trimtab.fleet.memory import Memory
from trimtab.fleet.room import floor_bytes, to_blame
from trimtab.fleet.usage import Meter, Usage, held_bytes
from trimtab.fleet.words import size

GUARD_REST_S = 3.0  # memory of a killed pod takes a moment to come back


class MemoryGuard:
    """Measures pods, ends those that take too much, remembers what ready ones take."""

    def __init__(self, memory: Callable[[], Memory | None], appetites: Appetites, clock: Clock) -> None:
        self._memory = memory
        self._appetites = appetites
        self._clock = clock
        self._meter = Meter()
        self._rest_until_s = 0.0

    async def measure(self, pods: Collection[LocalPod]) -> None:
        """Read what each pod uses, then act where one uses too much."""
        alive = {pod.process.pid: pod for pod in pods if pod.process and pod.process.alive()}
        usages = await asyncio.to_thread(self._meter.read, tuple(alive), self._clock.now_s())
        for leader, pod in alive.items():
            usage = usages.get(leader) if pod.process and pod.process.alive() else None
            pod.measured(usage)
            if usage is not None:
                await self._hold_to_limit(pod, usage)
        self._guard_machine(pods)

    async def learn(self, pods: Collection[LocalPod]) -> None:
        """Remember what ready pods take, the hungriest of each revision."""
        seen: dict[str, int] = defaultdict(int)
        for pod in pods:
            taken = pod.appetite().memory_bytes
            if pod.phase is PodPhase.READY and taken:
                seen[pod.record.hash] = max(seen[pod.record.hash], taken)
        for revision_hash, taken in seen.items():
            self._appetites.saw(revision_hash, taken)
        unsaved = self._appetites.unsaved()
        if unsaved is not None:
            await asyncio.to_thread(self._appetites.save, unsaved)

    async def _hold_to_limit(self, pod: LocalPod, usage: Usage) -> None:
        limit = pod.record.memory_limit_bytes
        if not limit or usage.memory_bytes <= limit:
            return
        held = await asyncio.to_thread(held_bytes, usage.processes)
        used = usage.memory_bytes if held is None else held
        if used > limit:
            pod.condemn(f"used {size(used)}, its limit is {size(limit)} (resources.memory)")

    def _guard_machine(self, pods: Collection[LocalPod]) -> None:
        """Below the floor, end the most excessive pod, before the kernel picks a victim."""
        memory = self._memory()
        now_s = self._clock.now_s()
        if memory is None or now_s < self._rest_until_s:
            return
        if memory.available_bytes >= floor_bytes(memory.total_bytes):
            return
        serving = {pod.record.id: pod for pod in pods if pod.phase in (PodPhase.STARTING, PodPhase.READY)}
        worst = to_blame(pod.appetite() for pod in serving.values())
        if worst is None:
            return
        self._rest_until_s = now_s + GUARD_REST_S
        used, expected = size(worst.memory_bytes or 0), size(worst.expected_bytes)
        left = size(memory.available_bytes)
        cause = f"used {used} where {expected} was expected, and this machine had only {left} left"
        serving[worst.pod_id].condemn(cause)
