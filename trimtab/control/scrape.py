"""What the pods say of themselves on /metrics: how many requests they had, and how many their model failed.

Envoy cannot tell: a model that raises is answered with 400 under MLflow's protocol, like a caller's
own mistake. Unreachable or unreadable pages are unknown, and no news.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from trimtab.core.clock import Clock
from trimtab.core.pod import Pod, PodPhase
from trimtab.core.revision import RevisionKey
from trimtab.fleet.protocol import Fleet
from trimtab.runtime.catalog import MLFLOW

EACH_S = 5.0
WINDOW_S = 60.0
TIMEOUT_S = 2.0
AT_ONCE_MAX = 16
ENOUGH_REQUESTS = 5
PAGE_BYTES_MAX = 1 << 20
REQUESTS = "http_server_request_duration_seconds_count"
FAULTS = "trimtab_request_faults_total"

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
    """Reads every ready pod's page each EACH_S, and keeps the sums of the last WINDOW_S per revision."""

    def __init__(self, fleet: Fleet, clock: Clock) -> None:
        self._fleet = fleet
        self._clock = clock
        self._last: dict[str, Counts] = {}
        self._recent: dict[RevisionKey, deque[tuple[float, Counts]]] = {}

    async def run(self) -> None:
        """Until cancelled."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        connector = aiohttp.TCPConnector(limit=AT_ONCE_MAX)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            while True:
                ready = [pod for pod in self._fleet.pods() if pod.phase is PodPhase.READY]
                pages = await asyncio.gather(*(_page(session, pod) for pod in ready))
                self.take(zip(ready, pages, strict=True))
                await asyncio.sleep(EACH_S)

    def take(self, pages: Iterable[tuple[Pod, str | None]]) -> None:
        """One round of pages, None where there was none."""
        now_s = self._clock.now_s()
        seen: dict[str, Counts] = {}
        for pod, page in pages:
            counts = _counts(page) if page is not None else None
            before = self._last.get(pod.id, NO_COUNTS)
            seen[pod.id] = counts or before
            if counts is not None:
                added = counts.since(before)
                self._recent.setdefault(pod.revision, deque()).append((now_s, added))
        self._last = seen
        for key, recent in list(self._recent.items()):
            while recent and now_s - recent[0][0] > WINDOW_S:
                recent.popleft()
            if not recent:
                del self._recent[key]

    def counts(self, revision: RevisionKey) -> Counts:
        """The sums of the last WINDOW_S."""
        return sum((counts for _, counts in self._recent.get(revision, ())), NO_COUNTS)


async def _page(session: aiohttp.ClientSession, pod: Pod) -> str | None:
    try:
        async with session.get(f"http://{pod.address}{MLFLOW.metrics_path}") as answer:
            page = await answer.content.read(PAGE_BYTES_MAX)
            return page.decode(errors="replace") if answer.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, OSError):
        return None


def _counts(page: str) -> Counts | None:
    try:
        samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    except ValueError:
        log.debug("a pod's metrics cannot be read", exc_info=True)
        return None
    requests = sum(
        s.value for s in samples if s.name == REQUESTS and s.labels.get("http_route") == "/invocations"
    )
    faults = sum(s.value for s in samples if s.name == FAULTS and s.labels.get("fault") == "model")
    return Counts(int(requests), int(faults))
