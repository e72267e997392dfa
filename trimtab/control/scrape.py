"""What the pods say of themselves on /metrics, read from each every EACH_S: signals for the autoscaler,
and how many requests they had and how many their model failed, for people.

Envoy cannot tell the latter: a model that raises is answered with 400 under MLflow's protocol, like a
caller's own mistake. Unreachable or unreadable pages are unknown, and no news. DCGM exporters, if there
are any, are read at the same pace.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import chain
from math import floor, inf
from zlib import crc32

import aiohttp

from trimtab.control.latency import Latencies
from trimtab.control.signals.dcgm import Gpu, merged, read_gpus
from trimtab.control.signals.gpus import gpu_signals
from trimtab.control.signals.pods import Look, PodSignals
from trimtab.control.signals.reading import Reading, Totals, read
from trimtab.core.clock import Clock
from trimtab.core.names import EndpointName
from trimtab.core.pod import Pod, PodPhase
from trimtab.core.revision import RevisionKey
from trimtab.core.signals import GpuSignal, PodSignal
from trimtab.core.turns import Pace, Seldom
from trimtab.fleet.protocol import Fleet
from trimtab.runtime.catalog import RUNTIMES, Runtime

EACH_S = 5.0
TICKS = 10
"""Steps into which a round is cut: 0.5 s, so that no more than a tenth of the pods is read at once."""

WINDOW_S = 60.0
TIMEOUT_S = 2.0
AT_ONCE_MAX = 16
PER_S = 200  # pods' pages; of more than a thousand pods each is read less often
ENOUGH_REQUESTS = 5
PAGE_BYTES_MAX = 1 << 20
GPUS_FRESH_S = 15.0
"""What an exporter said longer ago is unknown: three rounds, so that one lost answer costs nothing."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Counts:
    """Predictions that were answered, and those among them that the model failed."""

    requests: int = 0
    model_faults: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.requests + other.requests, self.model_faults + other.model_faults)

    @property
    def only_faults(self) -> bool:
        """Whether there were enough answers to tell, and the model failed every one of them."""
        return self.requests >= ENOUGH_REQUESTS and self.model_faults >= self.requests

    def since(self, before: Counts) -> Counts:
        """What was added; counters that went back began anew."""
        if self.requests < before.requests:
            return self
        return Counts(self.requests - before.requests, self.model_faults - before.model_faults)


NO_COUNTS = Counts()


class Scraper:
    """Reads every ready pod's page each `each_s`, and keeps what was told until it is asked for.

    Pods have turns of their own in the round, by their ids: no crowd of requests at one instant, and no
    crowd of pages to parse. `dcgm` are the addresses of DCGM exporters' pages; they may come and go.
    """

    def __init__(
        self,
        fleet: Fleet,
        clock: Clock,
        *,
        dcgm: Collection[str] = (),
        runtimes: Mapping[str, Runtime] = RUNTIMES,
        each_s: float = EACH_S,
    ) -> None:
        self._fleet = fleet
        self._clock = clock
        self._dcgm = dcgm
        self._runtimes = runtimes
        self._each_s = each_s
        self._at_once = asyncio.Semaphore(AT_ONCE_MAX)
        self._pace = Pace(PER_S)
        self._pods: Mapping[EndpointName, tuple[Pod, ...]] = {}  # the last that the fleet told of,
        self._ready: dict[str, Pod] = {}  # and those of them that are ready
        self._exporters: frozenset[str] = frozenset()
        self._all_kept = False  # whether what has gone is forgotten
        self._forgets = Seldom(each_s)
        self._due_at_s: dict[str, float] = {}  # by pod id or exporter; while it is being read, never
        self._turns: list[tuple[float, str]] = []  # a heap; what is another there by now counts no more
        self._last: dict[str, Counts] = {}
        self._recent: dict[RevisionKey, deque[tuple[float, Counts]]] = {}
        self._gpus: dict[str, tuple[float, tuple[Gpu, ...]]] = {}
        self._gpu_signals: Mapping[str, GpuSignal] = {}
        self._signals = PodSignals()
        self.latencies = Latencies()  # what pods tell of them; whoever hears Envoy adds its part

    async def run(self) -> None:
        """Until cancelled."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        connector = aiohttp.TCPConnector(limit=AT_ONCE_MAX)
        async with (
            aiohttp.ClientSession(timeout=timeout, connector=connector) as session,
            asyncio.TaskGroup() as looks,
        ):
            while True:
                for name, pod in self._due().items():
                    looks.create_task(self._look(session, name, pod))
                await asyncio.sleep(self._each_s / TICKS)

    def take(self, pages: Iterable[tuple[Pod, str | None]]) -> None:
        """Pages of some pods as they are now, None where there was none."""
        for pod, text in pages:
            runtime = self._runtimes.get(pod.runtime)
            reading = read(text, runtime.metrics) if runtime and text is not None else None
            now_s = self._clock.now_s()
            self._count(pod, reading, now_s)
            if runtime and text is not None:
                self.latencies.look(pod, text, runtime.metrics, now_s)
            self._signals.look(Look(now_s, pod, reading, self._gpu_signals.get(pod.id)))

    def take_gpus(self, exporter: str, text: str | None) -> None:
        """An exporter's page as it is now; without one what it said before holds for GPUS_FRESH_S."""
        gpus = read_gpus(text) if text is not None else None
        if gpus is not None:
            self._gpus[exporter] = (self._clock.now_s(), gpus)
            self._match_gpus(self._fleet.by_endpoint())

    def counts(self, revision: RevisionKey) -> Counts:
        """The sums of the last WINDOW_S."""
        since_s = self._clock.now_s() - WINDOW_S
        recent = self._recent.get(revision, ())
        return sum((counts for at_s, counts in recent if at_s >= since_s), NO_COUNTS)

    def pod_signals(self, revision: RevisionKey) -> tuple[PodSignal, ...]:
        """What was seen of the revision's pods since the last call, which forgets it."""
        return self._signals.take(revision)

    def _due(self) -> dict[str, Pod | None]:
        """Whose turn has come: pods by id, exporters (None) by address. What has gone is forgotten."""
        now_s, before = self._clock.now_s(), self._pods
        self._pods = now = self._fleet.by_endpoint()
        if now is not before:
            self._all_kept = False
            for name in now.keys() | before.keys():
                if now.get(name) is not before.get(name):
                    self._see(before.get(name, ()), now.get(name, ()), now_s)
        if not self._all_kept and self._forgets.is_due(now_s):
            self._all_kept = True
            self._keep_only()
            self._forgets.done(now_s, self._clock.now_s())
        self._match_gpus(now)
        self._see_exporters(frozenset(self._dcgm), now_s)
        due: dict[str, Pod | None] = {}
        while self._turns and self._turns[0][0] <= now_s:
            at_s, asked = heappop(self._turns)
            if self._due_at_s.get(asked) == at_s:
                self._due_at_s[asked], due[asked] = inf, self._ready.get(asked)
        return due

    def _see(self, before: Iterable[Pod], now: Iterable[Pod], now_s: float) -> None:
        """The pods of one endpoint as they were and are."""
        ready = {pod.id: pod for pod in now if pod.phase is PodPhase.READY}
        for pod_id in {pod.id for pod in before} - ready.keys():
            self._ready.pop(pod_id, None)
            self._due_at_s.pop(pod_id, None)
        self._ready |= ready
        for pod_id, pod in ready.items():
            self._in_turn(pod_id, now_s, tells=self._tells(pod))

    def _see_exporters(self, now: frozenset[str], now_s: float) -> None:
        for exporter in self._exporters ^ now:
            self._in_turn(exporter, now_s, tells=exporter in now)
        self._exporters = now

    def _in_turn(self, name: str, now_s: float, *, tells: bool) -> None:
        """Read it from now on, or no more."""
        if not tells:
            self._due_at_s.pop(name, None)
        elif name not in self._due_at_s:
            self._take_turn(name, now_s)

    def _take_turn(self, name: str, now_s: float) -> None:
        at_s = self._due_at_s[name] = self._turn_s(name, now_s)
        heappush(self._turns, (at_s, name))

    def _tells(self, pod: Pod) -> bool:
        """Whether anything of it may be known: by its own page, its fleet, or an exporter."""
        runtime = self._runtimes.get(pod.runtime)
        measured = pod.cpu_seconds is not None or pod.memory_bytes is not None or pod.io_stalled_s is not None
        return measured or pod.id in self._gpu_signals or bool(runtime and runtime.metrics_path)

    def _turn_s(self, name: str, now_s: float) -> float:
        """The next turn of its own after `now_s`: whenever it is asked for, the turns stay spread."""
        turn = crc32(name.encode()) / 2**32
        return self._each_s * (floor(now_s / self._each_s - turn) + 1 + turn)

    async def _look(self, session: aiohttp.ClientSession, name: str, pod: Pod | None) -> None:
        """At one pod, or at an exporter. An error in it is logged, and harms no other."""
        try:
            if pod is None:
                self.take_gpus(name, await self._page(session, name))
            else:
                runtime = self._runtimes.get(pod.runtime)
                path = runtime.metrics_path if runtime else ""
                self.take([(pod, await self._page_of(session, pod, path) if path else None)])
        except Exception:
            log.exception("reading the metrics of %s", name)
        finally:
            if name in self._due_at_s:
                self._take_turn(name, self._clock.now_s())

    async def _page_of(self, session: aiohttp.ClientSession, pod: Pod, path: str) -> str | None:
        await self._pace.turn()
        return await self._page(session, f"http://{pod.metrics_address}{path}")

    async def _page(self, session: aiohttp.ClientSession, url: str) -> str | None:
        """The whole page; None if there is none within TIMEOUT_S and PAGE_BYTES_MAX: half of one misleads."""
        body = bytearray()
        try:
            async with self._at_once, session.get(url, allow_redirects=False) as answer:
                if answer.status != 200:
                    return None
                async for chunk in answer.content.iter_any():
                    body += chunk
                    if len(body) > PAGE_BYTES_MAX:
                        return None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return None
        return body.decode(errors="replace")

    def _count(self, pod: Pod, reading: Reading | None, now_s: float) -> None:
        counts = _counts(reading.totals) if reading else None
        if counts is None:
            return
        recent = self._recent.setdefault(pod.revision, deque())
        recent.append((now_s, counts.since(self._last.get(pod.id, NO_COUNTS))))
        self._last[pod.id] = counts
        while now_s - recent[0][0] > WINDOW_S:
            recent.popleft()

    def _match_gpus(self, pods: Mapping[EndpointName, tuple[Pod, ...]]) -> None:
        """What the exporters said of late, by pod; one that failed holds no GPU any more."""
        if not self._gpus:
            return
        now_s, before = self._clock.now_s(), self._gpu_signals
        fresh = merged(gpus for at_s, gpus in self._gpus.values() if at_s >= now_s - GPUS_FRESH_S)
        alive = [pod for pod in chain.from_iterable(pods.values()) if pod.phase is not PodPhase.FAILED]
        self._gpu_signals = gpu_signals(fresh, alive) if fresh else {}
        for pod_id in (before.keys() ^ self._gpu_signals.keys()) & self._ready.keys():
            self._in_turn(pod_id, now_s, tells=self._tells(self._ready[pod_id]))

    def _keep_only(self) -> None:
        pods = tuple(chain.from_iterable(self._pods.values()))
        self._signals.keep_only(pods)
        self.latencies.keep_only({pod.revision for pod in pods}, pods)
        ids = {pod.id for pod in pods}
        for pod_id in self._last.keys() - ids:
            del self._last[pod_id]
        since_s = self._clock.now_s() - WINDOW_S
        for revision in [key for key, recent in self._recent.items() if recent[-1][0] < since_s]:
            del self._recent[revision]


def _counts(totals: Totals) -> Counts | None:
    if totals.completions is None or totals.model_faults is None:
        return None
    return Counts(int(totals.completions), int(totals.model_faults))
