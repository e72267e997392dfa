"""CPU and memory of pods, as the kubelet of each node tells them, through the API server.

A node's page has a few lines for each of its pods: what is asked is nodes, not pods. They have turns of
their own in a round, so that no crowd of them is asked at one instant.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from math import floor
from zlib import crc32

from trimtab.core.clock import Clock
from trimtab.core.errors import TrimtabError
from trimtab.fleet.kubernetes.template import CONTAINER
from trimtab.kube import Api, Resource

NODES = Resource("v1", "nodes")
EACH_S = 15.0  # kubelets themselves look about each 10 s
LOOK_EACH_S = 0.5
AT_ONCE_MAX = 16
SILENCE_MAX_S = 5.0
LINES_MAX = 100_000  # a node of 250 pods has 3,000

CPU, MEMORY = "container_cpu_usage_seconds_total", "container_memory_working_set_bytes"
_LINE = re.compile(rf"({CPU}|{MEMORY})\{{([^}}]*)\}} (\S+) (\d+)")
_LABEL = re.compile(r'(\w+)="([^"]*)"')

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Used:
    """By one pod: CPU seconds since its container began, memory that cannot be taken back, and when."""

    cpu_seconds: float | None = None
    memory_bytes: int | None = None
    at_s: float | None = None  # monotonic


UNKNOWN = Used()


class Usage:
    """Reads the nodes that `nodes` names, each once per EACH_S, for as long as `run` does.

    `changed` is called with a node of which something else is known now.
    """

    def __init__(
        self,
        api: Api,
        clock: Clock,
        nodes: Callable[[], Collection[str]],
        changed: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._api = api
        self._clock = clock
        self._nodes = nodes
        self._changed = changed
        self._due_at_s: dict[str, float] = {}  # while a node is being read, never
        self._found: dict[str, dict[str, Used]] = {}  # by node, then by pod id
        self._told: dict[str, str] = {}  # why a node could not be read

    def of(self, node: str, pod_id: str) -> Used:
        """What was last read; nothing is known of a node that cannot be read."""
        return self._found.get(node, {}).get(pod_id, UNKNOWN)

    async def run(self) -> None:
        """Until cancelled."""
        at_once = asyncio.Semaphore(AT_ONCE_MAX)
        async with asyncio.TaskGroup() as reading:
            while True:
                for node in self._due():
                    reading.create_task(self._look(node, at_once))
                await asyncio.sleep(LOOK_EACH_S)

    def _due(self) -> list[str]:
        nodes, now_s = set(self._nodes()), self._clock.now_s()
        for gone in self._found.keys() - nodes:
            self._forget(gone)
        # A node that is new to us is read at once: a pod that has just come is looked at early.
        self._due_at_s = {node: self._due_at_s.get(node, now_s) for node in nodes}
        due = [node for node, at_s in self._due_at_s.items() if at_s <= now_s]
        self._due_at_s.update(dict.fromkeys(due, float("inf")))
        return due

    async def _look(self, node: str, at_once: asyncio.Semaphore) -> None:
        try:
            async with at_once:
                self._found[node] = await self._read(node)
            self._told.pop(node, None)
            self._changed(node)
        except (TrimtabError, ValueError, ArithmeticError) as error:
            self._forget(node)
            if self._told.get(node) != str(error):  # once, not each round
                self._told[node] = str(error)
                log.warning("CPU and memory of pods on %s are unknown: %s", node, error)
        finally:
            self._due_at_s[node] = self._turn_s(node, self._clock.now_s())

    def _forget(self, node: str) -> None:
        if self._found.pop(node, None) is not None:
            self._changed(node)

    async def _read(self, node: str) -> dict[str, Used]:
        path, lines = NODES.path(name=node, subresource="proxy/metrics/resource"), []
        async with self._api.stream(path, {}, SILENCE_MAX_S) as page:
            while line := await page.readline():
                lines.append(line.decode())
                if len(lines) > LINES_MAX:
                    raise ValueError(f"its page has more than {LINES_MAX} lines")
        return read_page(lines, self._clock.now_s() - self._clock.wall_s())

    @staticmethod
    def _turn_s(node: str, now_s: float) -> float:
        """Its next turn after `now_s`: rounds stay spread whenever they began."""
        turn = crc32(node.encode()) / 2**32
        return EACH_S * (floor(now_s / EACH_S - turn) + 1 + turn)


def read_page(lines: Iterable[str], offset_s: float) -> dict[str, Used]:
    """By pod id what a kubelet's /metrics/resource tells of our container.

    `offset_s` is what the monotonic clock is ahead of the wall's. Raises ValueError for what is no number.
    """
    found: dict[str, Used] = {}
    for line in lines:
        match = _LINE.match(line)
        if match is None:
            continue
        labels = dict(_LABEL.findall(match[2]))
        if labels.get("container") != CONTAINER:
            continue
        pod_id = f"{labels.get('namespace', '')}/{labels.get('pod', '')}"
        known, value = found.get(pod_id, UNKNOWN), float(match[3])
        if match[1] == CPU:
            found[pod_id] = Used(value, known.memory_bytes, int(match[4]) / 1e3 + offset_s)
        else:
            found[pod_id] = Used(known.cpu_seconds, int(value), known.at_s)
    return found
