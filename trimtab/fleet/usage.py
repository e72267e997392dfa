"""CPU, memory and waits of pods: all processes of each, cheaply, once or twice a second.

A pod is a session of its own (`host.process.spawn`), so one look at every process's session
finds the members of all pods: 0.3 ms for 80 processes, where following parents to children took 6 ms.
Resident memory costs 20 us a process, but counts pages that forked workers share once for each of
them; the proportional share is exact and costs 3.5 ms for 300 MB. So the exact value is read now and
then, and what was counted twice is subtracted from the cheap one in between.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import psutil

from trimtab.fleet.pressure import Pressure

EXACT_EACH_S = 15.0
VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Usage:
    """CPU seconds since the start and memory now, of one pod; `processes` are its members' ids.

    Read at `at_s`, monotonic. `io_stalled_s` is as in `Pressure`; `gpus` are those
    that its leader's environment names.
    """

    cpu_seconds: float
    memory_bytes: int
    processes: tuple[int, ...]
    io_stalled_s: float | None = None
    gpus: tuple[str, ...] = ()
    at_s: float | None = None


@dataclass(frozen=True)
class _Shared:
    """Bytes that the cheap sum counts more than once, as found at `at_s` for `processes`."""

    excess_bytes: int
    at_s: float
    processes: tuple[int, ...]


class Meter:
    """Reads the usage of pods; remembers what each counts twice. Used by one thread at a time."""

    def __init__(self) -> None:
        self._shared: dict[int, _Shared] = {}
        self._gpus: dict[int, tuple[str, ...]] = {}
        self._pressure = Pressure()

    def read(self, leaders: Collection[int], now_s: float) -> dict[int, Usage]:
        """The usage of each leader's session; a session without processes is missing in the answer."""
        self._shared = {leader: self._shared[leader] for leader in leaders if leader in self._shared}
        self._gpus = {leader: self._gpus[leader] for leader in leaders if leader in self._gpus}
        found: dict[int, Usage] = {}
        for leader, processes in sessions(leaders).items():
            cpu_seconds, resident = _sum(processes)
            excess = self._excess(leader, processes, resident, now_s)
            stalled_s = self._pressure.io_stalled_s(processes)
            gpus = self._gpus_of(leader)
            memory = max(0, resident - excess)
            found[leader] = Usage(cpu_seconds, memory, processes, stalled_s, gpus, now_s)
        return found

    def _gpus_of(self, leader: int) -> tuple[str, ...]:
        """As the pod began; read once, for a process's environment does not change under it."""
        if leader not in self._gpus:
            try:
                named = psutil.Process(leader).environ().get(VISIBLE_GPUS, "")
            except psutil.Error:
                return ()  # not there yet, or no more
            self._gpus[leader] = tuple(part for part in map(str.strip, named.split(",")) if part)
        return self._gpus[leader]

    def _excess(self, leader: int, processes: tuple[int, ...], resident: int, now_s: float) -> int:
        if len(processes) < 2:
            return 0
        known = self._shared.get(leader)
        if known is None or known.processes != processes or now_s - known.at_s >= EXACT_EACH_S:
            proportional = sum(_rollup(process).get("Pss", 0) for process in processes)
            excess = max(0, resident - proportional) if proportional else 0
            known = self._shared[leader] = _Shared(excess, now_s, processes)
        return known.excess_bytes


def sessions(leaders: Collection[int]) -> dict[int, tuple[int, ...]]:
    """The living processes of each leader's session, as far as there are any."""
    wanted = frozenset(leaders)
    found: dict[int, list[int]] = defaultdict(list)
    for process in psutil.pids():
        try:
            session = os.getsid(process)
        except OSError:
            continue
        if session in wanted:
            found[session].append(process)
    return {leader: tuple(sorted(processes)) for leader, processes in found.items()}


def held_bytes(processes: Collection[int]) -> int | None:
    """Memory that only ending these processes would free; None where the system does not tell.

    Unlike the resident sum it has no pages counted twice and no pages of files, such as mapped
    weights, which the kernel drops by itself when memory is short.
    """
    rollups = [_rollup(process) for process in processes]
    if not any("Pss_Anon" in rollup for rollup in rollups):
        return None
    return sum(r.get("Pss_Anon", 0) + r.get("Pss_Shmem", 0) + r.get("SwapPss", 0) for r in rollups)


def _sum(processes: tuple[int, ...]) -> tuple[float, int]:
    """CPU seconds, those of reaped children included, and resident bytes."""
    cpu_seconds, resident = 0.0, 0
    for process in processes:
        try:
            info = psutil.Process(process)
            with info.oneshot():
                cpu_seconds += sum(info.cpu_times()[:4])
                resident += info.memory_info().rss
        except psutil.Error:
            continue  # it ended while we looked
    return cpu_seconds, resident


def _rollup(process: int) -> dict[str, int]:
    """Bytes by name from /proc/PID/smaps_rollup; empty where there is none."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return {}
    return {name: int(rest.split()[0]) << 10 for name, _, rest in (line.partition(":") for line in lines)}
