"""Pods as the fault simulation has them: they start, fail, stall, hang and die, on a machine of some size."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from math import inf

NEVER = inf


@dataclass
class Start:
    """A pod that is starting."""

    began_s: float
    ready_s: float  # NEVER for one that stalls
    fails: bool = False  # instead of being ready


@dataclass
class Fleet:
    """Starts and ends pods as it is told, one look a second. `machine` holds so many pods; None: any."""

    rng: random.Random
    start_s: float
    machine: int | None = None
    timeout_s: float = 90.0  # after which a start is given up
    wanted: int = 1
    ready: int = 1
    hung: int = 0  # of the ready ones
    starting: list[Start] = field(default_factory=list)
    failing_until_s: float = 0.0
    stalling_until_s: float = 0.0
    seen_start_s: float | None = None

    @property
    def alive(self) -> int:
        return self.ready + len(self.starting)

    @property
    def room(self) -> int | None:
        return None if self.machine is None else max(0, self.machine - self.alive)

    def ages_s(self, now_s: float) -> tuple[float, ...]:
        return tuple([now_s - start.began_s for start in self.starting])

    def tick(self, now_s: float) -> None:
        """One second: starts end, well or not; pods are started and ended until they are as wanted."""
        if self.starting:
            self._end_starts(now_s)
        missing = self.wanted - self.alive
        if missing > 0:
            room = self.room
            for _ in range(missing if room is None else min(missing, room)):
                self.starting.append(self._start(now_s))
        elif missing < 0:
            self._remove(-missing)

    def die(self, count: int) -> None:
        """Ready pods end by themselves."""
        self.ready = max(0, self.ready - count)
        self.hung = min(self.hung, self.ready)

    def shrink(self, machine: int, *, with_pods: bool) -> None:
        """The machine holds fewer pods, or more; those beyond stay unless they go `with_pods`."""
        self.machine = machine
        if with_pods and self.alive > machine:
            self._remove(self.alive - machine)

    def heal(self) -> None:
        """Nothing goes wrong from now on; what hangs or stalls has been replaced by its liveness probe."""
        self.failing_until_s = self.stalling_until_s = 0.0
        self.ready -= self.hung
        self.hung = 0
        self.starting = [start for start in self.starting if start.ready_s < NEVER and not start.fails]

    def _start(self, now_s: float) -> Start:
        takes_s = self.start_s * self.rng.uniform(0.7, 1.5)
        if now_s < self.stalling_until_s:
            takes_s = NEVER
        return Start(now_s, now_s + takes_s, fails=now_s < self.failing_until_s)

    def _end_starts(self, now_s: float) -> None:
        still: list[Start] = []
        for start in self.starting:
            if now_s >= start.ready_s:
                if not start.fails:
                    self.ready += 1
                    self.seen_start_s = max(self.seen_start_s or 0.0, start.ready_s - start.began_s)
            elif now_s - start.began_s < self.timeout_s:
                still.append(start)
        self.starting = still

    def _remove(self, count: int) -> None:
        """The youngest starts first, then ready ones."""
        kept = max(0, len(self.starting) - count)
        count -= len(self.starting) - kept
        del self.starting[kept:]
        self.die(count)
