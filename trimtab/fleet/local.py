"""The local fleet: each pod is a process group of its own on a loopback port of its own.

Under its home it keeps `pods/ID/` (see `records`), `logs/pods/ID.log` of the last that have gone, and
`appetites.json`. Pods survive the control plane: whoever opens a fleet on the same home finds them again
by the mark in their environment and the record in their folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

from trimtab.core.clock import Clock
from trimtab.core.errors import Exhausted, Failed
from trimtab.core.names import EndpointName
from trimtab.core.pod import Pod, PodPhase
from trimtab.core.revision import Revision, RevisionKey
from trimtab.core.spec import REQUEST_TIMEOUT_MAX_S
from trimtab.fleet import logs
from trimtab.fleet.appetite import Appetites
from trimtab.fleet.guard import MemoryGuard
from trimtab.fleet.launch import ModelFolders, launch_pod, pod_mark, prepare, take_over
from trimtab.fleet.life import LocalPod
from trimtab.fleet.memory import Memory, machine_memory
from trimtab.fleet.protocol import Room, by_endpoint
from trimtab.fleet.records import FleetFolders, PodFolder, PodRecord, endpoint_of, new_pod_id
from trimtab.fleet.room import estimate_bytes, pending_bytes, room_for
from trimtab.fleet.watch import Watch
from trimtab.host.ports import free_port
from trimtab.host.process import Process, find
from trimtab.runtime.catalog import RUNTIMES, Launch, Runtime

MEASURE_EACH_S = 0.5
KEEP_HOUSE_EACH_S = 2.0
FORGET_WAIT_S = 1.0
LOG_LINES_MAX = 10_000

_MORE_MEMORY = "stop something, or set resources.memory to what the model really needs"
_LOST = "ended while the control plane was away"

_logger = logging.getLogger(__name__)


class LocalFleet:
    """Pods as processes of this machine. See `fleet.protocol.Fleet`.

    `home` and `models` are absolute; `models/sha256-…/` holds the files of the model `sha256:…`.
    `changed` tells of pods, phases and stages, not of each measurement. Between `open` and
    `close` one background task watches the pods.
    """

    def __init__(
        self,
        home: Path,
        models: Path,
        clock: Clock,
        *,
        host: str = "127.0.0.1",
        runtimes: Mapping[str, Runtime] = RUNTIMES,
        memory: Callable[[], Memory | None] = machine_memory,
        python: Callable[[Revision], Path] = lambda _: Path(sys.executable),
        request_timeout_s: Callable[[EndpointName], float] = lambda _: REQUEST_TIMEOUT_MAX_S,
    ) -> None:
        """`python(revision)` is the interpreter of the environment that its pods start in.

        `request_timeout_s(endpoint)` is how long callers wait for an answer: see `liveness`.
        """
        self.changed = asyncio.Event()
        self._folders = FleetFolders(home)
        self._models = ModelFolders(models)
        self._clock = clock
        self._host = host
        self._runtimes = runtimes
        self._memory = memory
        self._python = python
        self._request_timeout_s = request_timeout_s
        self._appetites = Appetites(self._folders.appetites)
        self._guard = MemoryGuard(memory, self._appetites, clock)
        self._pods: dict[str, LocalPod] = {}
        self._starting = asyncio.Lock()
        self._watch: Watch | None = None

    async def open(self) -> None:
        """Adopt what runs already and begin to watch it.

        Raises InvalidInput, Unauthorised or Exhausted if the folders under `home` cannot be had.
        """
        self._folders.make()
        self._appetites.load()
        watch = self._watch = await Watch.begin()
        try:
            await self._adopt(watch)
        except BaseException:
            await self.close()
            raise
        watch.repeat(self._measure, MEASURE_EACH_S)
        watch.repeat(self._keep_house, KEEP_HOUSE_EACH_S)

    async def close(self) -> None:
        """Stop watching; pods go on serving, and one that was stopping goes on only if it obeys."""
        if self._watch is not None:
            await self._watch.end()
            self._watch = None
            for pod in self._pods.values():
                await pod.settle()

    def pods(self) -> tuple[Pod, ...]:
        """Every pod that is there or that failed and was not yet forgotten, oldest first."""
        by_age = sorted(self._pods.values(), key=lambda pod: pod.started_at_s)
        return tuple(pod.view() for pod in by_age)

    def by_endpoint(self) -> Mapping[EndpointName, tuple[Pod, ...]]:
        """The same of each endpoint that has any."""
        return by_endpoint(self.pods())

    async def start_pod(self, revision: Revision) -> str:
        """Begin to start one pod; returns its id once its process is there, one pod at a time.

        Not one await lies between the process's start and its being known: a cancelled caller
        leaves no pod that nobody watches. Raises Exhausted if it does not fit, and Failed or
        Exhausted if its process or files cannot be made.
        """
        async with self._starting:
            return await self._start(revision)

    async def _start(self, revision: Revision) -> str:
        model_folder, python = self._models.of(revision), self._python(revision)
        room = self.room(revision)
        if room.pods == 0:
            raise Exhausted(
                f"one more pod does not fit; {room.why}", where=str(revision.key), hint=_MORE_MEMORY
            )
        runtime = self._runtime(revision)
        record = self._new_record(revision, runtime).with_changes(python=str(python))
        folder = self._folders.pod(record.id)
        await prepare(folder, record)
        if self._watch is None:
            folder.remove()
            raise Failed("the fleet is not open", where=str(revision.key))
        launch = _launch(revision, record, model_folder, folder, python)
        self._tend(record, launch_pod(self._folders, record, runtime, launch), self._watch)
        return record.id

    async def stop_pod(self, pod_id: str, grace_s: float) -> None:
        """Ask the pod to end, and kill it after `grace_s`. Returns at once; an unknown id is no error."""
        pod = self._pods.get(pod_id)
        if pod is not None:
            pod.stop(grace_s)

    async def forget_pod(self, pod_id: str) -> None:
        """Drop the record of a FAILED pod (its log is kept for a while).

        Waits until its last process has gone: milliseconds, or a second if the kernel holds one.
        """
        pod = self._pods.get(pod_id)
        if pod is None or pod.phase is not PodPhase.FAILED:
            return
        del self._pods[pod_id]
        self.changed.set()
        with contextlib.suppress(TimeoutError):  # then `_life` does it
            async with asyncio.timeout(FORGET_WAIT_S):
                await pod.ended.wait()
                self._retire(pod.folder)

    def room(self, revision: Revision) -> Room:
        """How many more pods of this revision fit beside all that runs and starts.

        Raises Failed if its runtime is not known here.
        """
        starting = [pod.appetite() for pod in self._pods.values() if pod.phase is PodPhase.STARTING]
        return room_for(self._memory(), pending_bytes(starting), self._estimate(revision))

    def log_tail(self, pod_id: str, lines: int) -> tuple[str, ...]:
        """The last lines of a pod's log, oldest first, at most 10,000 and 1 MiB; empty if there is none."""
        if "/" in pod_id:
            return ()
        folder = self._folders.pod(pod_id)
        path = folder.log if folder.log.exists() else self._folders.old_log(pod_id)
        return logs.tail(path, min(lines, LOG_LINES_MAX))

    def follow_log(self, revision: RevisionKey, lines: int, follow: bool) -> AsyncIterator[tuple[str, str]]:
        """(pod id, line) of each pod of a revision: its last `lines`, then new ones while `follow`.

        Where no pod is left, the log of the last one that was there: it tells why.
        """

        def present() -> dict[str, Path]:
            pods = [pod for pod in self._pods.values() if pod.record.revision == revision]
            if pods:
                return {pod.record.id: pod.folder.log for pod in pods}
            gone = self._folders.old_logs_of(revision)
            return {gone[-1].stem: gone[-1]} if gone else {}

        return logs.follow(present, min(lines, LOG_LINES_MAX), follow)

    def prune_logs(self, keep: frozenset[EndpointName], dry_run: bool) -> tuple[tuple[str, ...], int]:
        """Remove logs of pods that have gone, unless their endpoint is in `keep`: names, and bytes in all."""
        unused = [log for log in self._folders.old_logs.glob("*.log*") if endpoint_of(log.name) not in keep]
        size = sum(log.stat().st_size for log in unused)
        for log in () if dry_run else unused:
            log.unlink(missing_ok=True)
        return tuple(sorted(log.name for log in unused)), size

    def _runtime(self, revision: Revision) -> Runtime:
        name = revision.model.runtime
        if name not in self._runtimes:
            known = ", ".join(sorted(self._runtimes))
            raise Failed(f"`{name}` is not a runtime here", where=str(revision.key), hint=f"known: {known}")
        runtime = self._runtimes[name]
        return runtime.adapted(runtime, revision.model)

    def _new_record(self, revision: Revision, runtime: Runtime) -> PodRecord:
        pod_id = new_pod_id(revision.key)
        while pod_id in self._pods or self._folders.old_log(pod_id).exists():
            pod_id = new_pod_id(revision.key)
        port, grpc_port, metrics_port = self._free_ports((True, runtime.grpc_port, runtime.metrics_port))
        return PodRecord(
            id=pod_id,
            revision=revision.key,
            port=port,
            grpc_port=grpc_port,
            metrics_port=metrics_port,
            loses_workers=runtime.loses_workers,
            live_path=runtime.live_path,
            answers_within_s=runtime.answers_within_s,
            host=self._host,
            hash=revision.hash,
            runtime=runtime.name,
            ready_path=runtime.ready_path,
            digest=revision.model.source.digest,
            memory_limit_bytes=revision.model.resources.memory_bytes,
            expected_bytes=self._estimate(revision),
            start_timeout_s=revision.model.start_timeout_s,
            created_at_s=self._clock.wall_s(),
        )

    def _free_ports(self, wanted: Sequence[bool]) -> list[int]:
        """A port of its own for each that is wanted, 0 for the others. Raises Exhausted."""
        records = [pod.record for pod in self._pods.values()]
        taken = {port for record in records for port in (record.port, record.grpc_port, record.metrics_port)}
        found = []
        for one in wanted:
            found.append(free_port(self._host, frozenset(taken)) if one else 0)
            taken.add(found[-1])
        return found

    def _estimate(self, revision: Revision) -> int:
        typical = self._runtime(revision).typical_memory_bytes
        folder = self._models.size_bytes(revision)
        limit = revision.model.resources.memory_bytes
        return estimate_bytes(self._appetites.of(revision.hash), typical, folder, limit)

    async def _adopt(self, watch: Watch) -> None:
        """Take over what an earlier control plane left: processes, records, and their remains."""
        leaders: dict[str, list[Process]] = defaultdict(list)
        for process in await asyncio.to_thread(find, self._folders.home, "pod"):
            leaders[process.mark.id].append(process)
        for path in sorted(self._folders.pods.iterdir()):
            folder = PodFolder(path)
            record = folder.read()
            if record is None:
                self._retire(folder)
                continue
            self._adopt_pod(record, _leader_of(record, leaders.pop(path.name, [])), watch)
        for process in chain.from_iterable(leaders.values()):
            _logger.warning("killing process %d: a pod without a record", process.pid)
            process.signal_group(signal.SIGKILL)

    def _adopt_pod(self, record: PodRecord, process: Process | None, watch: Watch) -> None:
        if process is not None:
            take_over(process)
        elif not record.stopping and not record.cause:
            record = record.with_changes(cause=_LOST)
        if not record.ready_path and record.runtime in self._runtimes:
            record = record.with_changes(ready_path=self._runtimes[record.runtime].ready_path)
        self._tend(record, process, watch)

    def _tend(self, record: PodRecord, process: Process | None, watch: Watch) -> None:
        """Know a pod from now on, and look after it until it has gone."""
        folder = self._folders.pod(record.id)
        waits_s = partial(self._request_timeout_s, record.revision.endpoint)
        pod = LocalPod(record, folder, process, self._clock, self.changed.set, waits_s)
        self._pods[record.id] = pod
        watch.add(self._life(pod, watch))
        self.changed.set()

    async def _life(self, pod: LocalPod, watch: Watch) -> None:
        await pod.tend(watch.prober, pod_mark(self._folders, pod.record.id))
        if pod.phase is PodPhase.STOPPING:
            self._pods.pop(pod.record.id)
            self.changed.set()
        elif pod.condemned or pod.record.exit_status == -signal.SIGKILL:
            self._appetites.correct(pod.record.hash, pod.record.expected_bytes)
        if pod.record.id not in self._pods:
            self._retire(pod.folder)

    async def _measure(self) -> None:
        await self._guard.measure(tuple(self._pods.values()))

    async def _keep_house(self) -> None:
        paths = [pod.folder.log for pod in self._pods.values()]
        await asyncio.to_thread(logs.bound, paths)
        await self._guard.learn(tuple(self._pods.values()))

    def _retire(self, folder: PodFolder) -> None:
        logs.retire(folder.log, self._folders.old_log(folder.path.name))
        folder.remove()


def _launch(
    revision: Revision, record: PodRecord, model_folder: Path, folder: PodFolder, python: Path
) -> Launch:
    return Launch(
        model=revision.model,
        model_folder=model_folder,
        host=record.host,
        port=record.port,
        stages_path=folder.stages,
        grpc_port=record.grpc_port,
        metrics_port=record.metrics_port,
        python=python,
        called=(revision.key.endpoint.name, str(revision.key.endpoint)),
    )


def _leader_of(record: PodRecord, found: Sequence[Process]) -> Process | None:
    """The pod among group leaders with its mark, oldest first: a pod may have made groups of its own."""
    if not record.process_id:
        return found[0] if found else None
    return next((process for process in found if process.pid == record.process_id), None)
