"""The life of one local pod, from its process's start to the end of the last process of its group."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psutil

from trimtab.core.clock import Clock
from trimtab.core.errors import TrimtabError
from trimtab.core.pod import Pod, PodPhase, Stage
from trimtab.fleet.liveness import Liveness
from trimtab.fleet.logs import tail
from trimtab.fleet.readiness import Answer, Prober, on_exit, owns_port
from trimtab.fleet.records import PodFolder, PodRecord
from trimtab.fleet.room import Appetite
from trimtab.fleet.threads import finish_in_thread
from trimtab.fleet.usage import Usage, sessions
from trimtab.fleet.words import failure
from trimtab.host.process import Mark, Process, marked_with

LOOK_EACH_S = {  # a process's end wakes us at once where the system can tell (readiness.on_exit)
    PodPhase.STARTING: 0.1,
    PodPhase.READY: 1.0,
    PodPhase.STOPPING: 0.1,
    PodPhase.FAILED: 0.1,
}
LISTEN_EACH_S = 5.0
ADOPTED_GRACE_S = 30.0  # for a pod that an earlier control plane had told to stop
SWEEPS_MAX = 50
LOG_LINES_FOR_CAUSE = 200

_logger = logging.getLogger(__name__)


class LocalPod:
    """One pod: what is known of it, and what to do about it next.

    Without a `process` it is a record whose process ended unseen. `notify` is called on each change.
    """

    def __init__(
        self,
        record: PodRecord,
        folder: PodFolder,
        process: Process | None,
        clock: Clock,
        notify: Callable[[], None],
        request_timeout_s: Callable[[], float],
    ) -> None:
        record = _with_start_time(record)
        self.record = record if process is None else record.with_changes(process_id=process.pid)
        self.folder = folder
        self.process = process
        self.phase = _phase_found(record, process)
        self.usage: Usage | None = None
        self.condemned = False  # killed by us for what it did
        self.ended = asyncio.Event()  # nothing of it is left, and nobody writes in its folder
        self._unsaved = process is not None  # its process id
        self._told = False  # to end
        self._clock = clock
        self._notify = notify
        self._stages = folder.read_stages()
        self._wake = asyncio.Event()
        self._deadline_s = clock.now_s() + ADOPTED_GRACE_S  # of a stop
        self._began_s = clock.now_s() - self._age_s()
        self._listen_at_s = clock.now_s() + LISTEN_EACH_S
        self._liveness = Liveness(self.record, request_timeout_s, clock)

    @property
    def started_at_s(self) -> float:
        """When it was made, as written down then: the kernel's time of its process moves with the clock."""
        return self.record.created_at_s or (self.process.created_at_s if self.process else 0.0)

    @property
    def start_time_s(self) -> float | None:
        """What its start took, or has taken so far; None is unknown."""
        if self.phase is PodPhase.STARTING:
            return self._clock.now_s() - self._began_s
        return self.record.start_time_s

    def view(self) -> Pod:
        """The pod as the fleet reports it."""
        record, usage = self.record, self.usage
        return Pod(
            id=record.id,
            revision=record.revision,
            phase=self.phase,
            host=record.host,
            port=record.port,
            process_id=record.process_id,
            started_at_s=self.started_at_s,
            ready_at_s=record.ready_at_s,
            start_time_s=self.start_time_s,
            stages=self._all_stages(),
            cause=record.cause,
            exit_status=record.exit_status,
            cpu_seconds=usage.cpu_seconds if usage else None,
            memory_bytes=usage.memory_bytes if usage and usage.processes else None,
            io_stalled_s=usage.io_stalled_s if usage else None,
            measured_at_s=usage.at_s if usage else None,
            gpus=usage.gpus if usage else (),
            runtime=record.runtime,
            grpc_port=record.grpc_port,
            metrics_port=record.metrics_port,
            python=record.python,
        )

    def appetite(self) -> Appetite:
        """What it takes and what it was expected to take."""
        taken = self.usage.memory_bytes if self.usage else None
        return Appetite(self.record.id, taken, self.record.expected_bytes)

    def measured(self, usage: Usage | None) -> None:
        """Take note of its usage; None: it has no process any more. CPU time never runs backwards."""
        before = self.usage.cpu_seconds if self.usage else 0.0
        if usage is None:
            self.usage = Usage(before, 0, ()) if self.usage else None
        else:
            self.usage = replace(usage, cpu_seconds=max(before, usage.cpu_seconds))

    def stop(self, grace_s: float) -> None:
        """Ask it to end, and kill it after `grace_s`. A pod that is ending already is left to it."""
        if self.phase in (PodPhase.STOPPING, PodPhase.FAILED) or self.process is None:
            return
        self._deadline_s = self._clock.now_s() + grace_s
        self._enter(PodPhase.STOPPING, stopping=True)

    def condemn(self, cause: str) -> None:
        """Kill it; it shows as FAILED with `cause`, unless it was stopping anyway."""
        if self.process is None or self.phase is PodPhase.FAILED:
            return
        if self.phase is not PodPhase.STOPPING:
            self.condemned = True
            self._enter(PodPhase.FAILED, cause=cause)
        self.process.signal_group(signal.SIGKILL)

    async def tend(self, prober: Prober, mark: Mark) -> None:
        """Watch it until nothing that carries its `mark` is left."""
        if self.process is not None:
            await self._watch(self.process, prober)
        await self._sweep(mark)
        await self._save()
        self.ended.set()

    async def settle(self) -> None:
        """Write down what changed, then pass on an order to stop: a stop that was begun is remembered."""
        await self._save()
        if self.phase is PodPhase.STOPPING and self.process is not None and not self._told:
            self._told = True
            self.process.signal_group(signal.SIGTERM)

    async def _watch(self, process: Process, prober: Prober) -> None:
        """Until the leader ends. An error in one look is logged and the next one comes."""
        with on_exit(process.pid, self._wake.set):
            while process.alive():
                try:
                    await self.settle()
                    await self._look(process, prober)
                except Exception:  # one pod's trouble stays its own
                    _logger.exception("looking after pod %s", self.record.id)
                await self._pause()
        self._ended(process)

    async def _look(self, process: Process, prober: Prober) -> None:
        if self.phase is PodPhase.STARTING:
            await self._look_at_start(prober)
        elif self.phase is PodPhase.READY:
            await self._look_at_life(process, prober)
        elif self.phase is PodPhase.FAILED or self._clock.now_s() >= self._deadline_s:
            process.signal_group(signal.SIGKILL)

    async def _look_at_start(self, prober: Prober) -> None:
        self._read_stages()
        record = self.record
        answer = await prober.ask(record.host, record.port, record.ready_path)
        own = answer is Answer.READY and await asyncio.to_thread(self._owns_port)
        if self.phase is not PodPhase.STARTING:
            return  # told to stop while we asked
        if own:
            self._read_stages()
            taken = self.usage.memory_bytes if self.usage else 0
            expected = max(record.expected_bytes, taken)
            self._change(
                ready_at_s=self._clock.wall_s(), start_time_s=self.start_time_s, expected_bytes=expected
            )
            await self._save()  # first: whoever adopts it must not take it for a starting one
            if self.phase is PodPhase.STARTING:
                self._enter(PodPhase.READY)
        elif (self.start_time_s or 0.0) >= record.start_timeout_s:
            stage = self._last_stage()
            self.condemn(
                f"did not become ready within {record.start_timeout_s:g} s; last stage reached: {stage}"
            )

    async def _look_at_life(self, process: Process, prober: Prober) -> None:
        if self._clock.now_s() < self._listen_at_s:
            return
        self._listen_at_s = self._clock.now_s() + LISTEN_EACH_S
        processes = self.usage.processes if self.usage else ()
        cause = await self._liveness.look(prober, process.pid, processes)
        if cause and self.phase is PodPhase.READY:
            self.condemn(cause)

    def _owns_port(self) -> bool:
        leader = self.process.pid if self.process else 0
        return owns_port(sessions((leader,)).get(leader, ()), self.record.port)

    def _ended(self, process: Process) -> None:
        """The leader is gone: note how, unless that was wanted or is known already."""
        self.measured(None)
        status = process.exit_status()
        if self.phase in (PodPhase.STARTING, PodPhase.READY):
            self._read_stages()
            stage = self._last_stage() if self.phase is PodPhase.STARTING else ""
            cause = failure(status, stage, tail(self.folder.log, LOG_LINES_FOR_CAUSE))
            self._enter(PodPhase.FAILED, cause=cause, exit_status=status)
        elif self.phase is PodPhase.FAILED:
            self._enter(PodPhase.FAILED, exit_status=status)

    async def _sweep(self, mark: Mark) -> None:
        """Kill what the leader left behind, wherever it moved to, until nothing carries the mark."""
        for _ in range(SWEEPS_MAX):
            left = await asyncio.to_thread(_left_behind, mark, self.process)
            if not left:
                break
            for member in left:
                try:
                    member.kill()
                except psutil.Error:
                    continue
            await asyncio.sleep(LOOK_EACH_S[PodPhase.STOPPING])
        else:
            _logger.error("pod %s: processes that cannot be killed are left", self.record.id)

    def _enter(self, phase: PodPhase, **changes: Any) -> None:
        """Change phase; the record is written by and by."""
        if self.phase is PodPhase.STARTING and phase is PodPhase.FAILED:
            changes["start_time_s"] = self.start_time_s
        self.phase = phase
        if changes:
            self._change(**changes)
        self._notify()

    def _change(self, **changes: Any) -> None:
        self.record = self.record.with_changes(**changes)
        self._unsaved = True
        self._wake.set()

    async def _save(self) -> None:
        """Write the record if it changed; on a full disk go on without."""
        if not self._unsaved:
            return
        self._unsaved = False
        try:
            await finish_in_thread(self.folder.write, self.record)
        except (OSError, TrimtabError) as error:
            _logger.warning("pod %s: its record was not written: %s", self.record.id, error)

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(LOOK_EACH_S[self.phase]):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    def _read_stages(self) -> None:
        found = self.folder.read_stages()
        if found != self._stages:
            self._stages = found
            self._notify()

    def _all_stages(self) -> tuple[Stage, ...]:
        """The runtime's stages between ours: `start` and, once we saw it, `ready`."""
        told = {stage.name for stage in self._stages}
        first = () if "start" in told else (Stage("start", self.started_at_s),)
        ready_at_s = self.record.ready_at_s
        last = () if "ready" in told or ready_at_s is None else (Stage("ready", ready_at_s),)
        return (*first, *self._stages, *last)

    def _last_stage(self) -> str:
        return self._all_stages()[-1].name

    def _age_s(self) -> float:
        """How long its process has been there: no time at all if we have just started it.

        Of one that we found, the kernel tells when it began by the wall clock as it stands now, so that a
        step before now does not count. No start is believed to have taken longer than it may.
        """
        if self.process is None or self.process.is_child:
            return 0.0
        age_s = self._clock.wall_s() - self.process.created_at_s
        return min(max(0.0, age_s), self.record.start_timeout_s)


def _left_behind(mark: Mark, leader: Process | None) -> list[psutil.Process]:
    """What still carries the mark, and, of a leader that we saw end, what is left of its session.

    The latter finds a process in the middle of its exec, which shows no environment. While a session
    has members its id is given to nobody else; a living process of that id would be a stranger's.
    """
    found = {process.pid: process for process in marked_with(mark)}
    if leader is not None and not psutil.pid_exists(leader.pid):
        for member in sessions((leader.pid,)).get(leader.pid, ()):
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(member)
                if process.status() != psutil.STATUS_ZOMBIE:
                    found[member] = process
    return list(found.values())


def _with_start_time(record: PodRecord) -> PodRecord:
    """What its start took by the wall clock, if another version wrote the record, and if that may be true."""
    if record.start_time_s is not None or record.ready_at_s is None:
        return record
    took_s = record.ready_at_s - record.created_at_s
    believed = 0.0 <= took_s <= record.start_timeout_s
    return record.with_changes(start_time_s=took_s) if believed else record


def _phase_found(record: PodRecord, process: Process | None) -> PodPhase:
    """Where a pod stands by its record. One that was ready is ready while its process lives.

    It may be too busy to answer a probe just now, and taking it for a starting one would take it
    out of Envoy under load.
    """
    if record.stopping:
        return PodPhase.STOPPING
    if process is None or record.cause:
        return PodPhase.FAILED
    return PodPhase.STARTING if record.ready_at_s is None else PodPhase.READY
