"""Is a ready pod still well? Looked at each few seconds, for as long as it serves.

A pod hangs in ways that its process does not show: it is stopped, its event loop no longer turns, what
predicts waits for ever. A pod that is busy with a slow prediction looks the same from outside, so what
decides is for how long: nobody waits for an answer longer than the endpoint's `request_timeout_s`, by which
Envoy has told the caller. Ended sooner, a pod would take requests along that are still waited for, and one
that makes pods hang would be tried on the next of them. What cannot be slow work is given up sooner: a port
that refuses connections, a process that somebody stopped, a server whose front is apart from its models and
says nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from trimtab.core.clock import Clock
from trimtab.fleet.readiness import Answer, Heard, Prober, dead_children, stopped, turns
from trimtab.fleet.records import PodRecord

LOOKS_MIN = 3  # in a row that must agree: one look may meet a moment
UNWELL_LOOKS_MIN = 2  # of a pod that says so itself, of which the first may meet the end of it
MARGIN_S = 15.0  # after which no request that timed out is on its way any more
SILENT_MIN_S = (
    60.0  # however short its requests: on a machine that is overloaded three looks in a row may fail
)


class Waits:
    """How long a prediction may take. A lower bound holds only once no request of the higher is left."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held = (0.0, 0.0)  # the bound in force, and until when it is whatever is asked for since

    def within_s(self, request_timeout_s: float) -> float:
        asked_s, now_s = request_timeout_s + MARGIN_S, self._clock.now_s()
        held_s, until_s = self._held
        if asked_s >= held_s or now_s >= until_s:
            self._held = (asked_s, now_s + asked_s)
        return self._held[0]


class Liveness:
    """What the looks at one pod have found so far."""

    def __init__(self, record: PodRecord, request_timeout_s: Callable[[], float], clock: Clock) -> None:
        """`request_timeout_s` is asked anew each time: a change of it restarts no pod."""
        self._record = record
        self._request_timeout_s = request_timeout_s
        self._waits = Waits(clock)
        self._clock = clock
        self._told: tuple[Answer, int] = (Answer.READY, 0)  # the latest answer, and how often in a row
        self._silent_since_s: float | None = None
        self._stopped_looks: tuple[int, int] = (
            0,
            0,
        )  # the process that was found stopped, and how often in a row
        self._turns = 0  # as of the last look that met silence
        self._dead_workers: frozenset[int] = frozenset()

    async def look(self, prober: Prober, leader: int, processes: Sequence[int]) -> str:
        """Why the pod must be given up, in a person's words; empty if it need not.

        `processes` are all that it has, its `leader` among them.
        """
        record = self._record
        within_s = self._waits.within_s(self._request_timeout_s())
        path = record.live_path.format(within_s=within_s) or record.ready_path
        began_s = self._clock.now_s()
        heard = await prober.hear(record.host, record.port, path)
        known, times = self._told
        self._told = (heard.answer, times + 1 if heard.answer is known else 1)
        if heard.answer is not Answer.SILENT:
            self._silent_since_s = None
        elif self._silent_since_s is None or await self._works_on(processes):
            self._silent_since_s = began_s
        return (
            self._refused(heard)
            or self._unwell(heard)
            or await asyncio.to_thread(self._stopped, leader, processes)
            or self._silent(within_s)
            or await self._lost_worker(leader)
        )

    async def _works_on(self, processes: Sequence[int]) -> bool:
        """Whether a server that nobody knows did anything since the last look.

        One that serves a connection at a time has none for us for as long as it is busy, with one short
        request after the other.
        """
        if self._record.live_path:
            return False
        before, self._turns = self._turns, await asyncio.to_thread(turns, processes)
        return before != self._turns

    def _refused(self, heard: Heard) -> str:
        if heard.answer is not Answer.DEAD or self._told[1] < LOOKS_MIN:
            return ""
        return f"its process lives, but port {self._record.port} refuses connections"

    def _unwell(self, heard: Heard) -> str:
        if not self._record.live_path or heard.answer is not Answer.BUSY or self._told[1] < UNWELL_LOOKS_MIN:
            return ""
        said = heard.words.partition("\n")[0] or "it calls itself not live"
        return f"it hangs: {said}"

    def _stopped(self, leader: int, processes: Sequence[int]) -> str:
        """Somebody sent SIGSTOP. Of a pod that answers all the same only its leader counts."""
        silent = self._silent_since_s is not None
        found = stopped((leader, *processes) if silent else (leader,))
        known, times = self._stopped_looks
        self._stopped_looks = (found, times + 1 if found == known else 1)
        if not found or self._stopped_looks[1] < LOOKS_MIN:
            return ""
        return f"it hangs: its process {found} is stopped (SIGSTOP)"

    def _silent(self, within_s: float) -> str:
        if self._silent_since_s is None or self._told[1] < LOOKS_MIN:
            return ""
        bound_s = self._record.answers_within_s or max(within_s, SILENT_MIN_S)
        silent_s = self._clock.now_s() - self._silent_since_s
        if silent_s < bound_s:
            return ""
        return f"it hangs: its port is open, but nothing was answered for {silent_s:.0f} s"

    async def _lost_worker(self, leader: int) -> str:
        """Two looks in a row: a server that starts a worker anew leaves its dead one for a moment too."""
        if not self._record.loses_workers:
            return ""
        dead = await asyncio.to_thread(dead_children, leader)
        lost, self._dead_workers = dead & self._dead_workers, dead
        return (
            f"its server lives, but lost its worker process {min(lost)} and starts no other" if lost else ""
        )
