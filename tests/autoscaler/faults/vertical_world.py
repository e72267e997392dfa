"""Pods of an unknown model, for the vertical axis: what they tell every 5 s, and what is lost of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf, nan

from tests.autoscaler.faults.load import poisson
from trimtab.autoscaler.vertical import LimitSignals
from trimtab.core.names import EndpointName
from trimtab.core.revision import RevisionKey
from trimtab.core.signals import PodSignal

REVISION = RevisionKey(EndpointName("default", "iris"), 1)
PERIOD_S = 5
LATEST_S = 90
CLEAN_S = 4500  # a rest of 15 minutes, 5 to notice that something changed, 15 to look for the knee; twice
FIELDS = (
    "in_flight",
    "queued",
    "completions",
    "request_time_s",
    "failed",
    "cpu_cores",
    "memory_bytes",
    "io_wait",
)
WILD = (nan, inf, -inf, -1.0, 1e12, 1e300)
WILD_TIMES_S = (nan, inf, 60.0, 1e9, -1e3, -1e9)
KINDS = (
    "outage",
    "pause",
    "restart",
    "lost store",
    "poison",
    "bad pod",
    "idle",
    "ceiling",
    "stuck",
    "new pods",
)
UNFORGOTTEN = {"wild"}
"""Kinds after which the limit is not asked to come back to the best. A wild number that passes for a true
one, such as a tenth of the completions for minutes, is evidence like any other: an exploration that met it
may have ended elsewhere, and at rest only a changed throughput, or an hour, starts another look."""
ON_SIGNALS = ("lost", "repeated", "late", "shuffled", "wild", "unknown")


@dataclass(frozen=True)
class Happening:
    """A fault from one time until another."""

    begin_s: int
    end_s: int
    kind: str
    chance: float = 1.0


def draw_rate(rng: random.Random) -> Callable[[float], float]:
    """Completions per second with n in flight: cores, a batching GPU, or what thrashes beyond its knee."""
    knee, service_s = 10 ** rng.uniform(0.0, 2.3), 10 ** rng.uniform(-1.3, 0.7)
    kind, alone = rng.choice(("cpu", "batching", "thrashing")), rng.uniform(0.1, 0.8)
    if kind == "batching":
        return lambda n: min(n / (alone + (1 - alone) * n / knee), knee) / service_s
    if kind == "thrashing":
        return lambda n: min(n, knee) / service_s * min(1.0, knee / n) ** alone
    return lambda n: min(n, knee) / service_s


class PodsWorld:
    """Pods, their limit in force, and the way of their signals. Times are seconds since the seed began."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(f"vertical {seed}")
        self.rate = draw_rate(rng)
        self.pods = [f"pod-{index}" for index in range(rng.choice((1, 2, 3, 7)))]
        self.limit = self.floor = rng.choice((1, 1, 4))
        self.ceiling = rng.choice((8, 64, 1000))
        self.faulty_s = rng.randrange(1200, 4800, 30)
        self.last_s = self.faulty_s + CLEAN_S
        self.happenings = self._draw()
        self.begin_s = float(rng.randrange(10**6))
        self.now_s = 0
        self.bad = rng.choice(self.pods)
        self.inbox: list[PodSignal] = []
        self.late: list[tuple[float, PodSignal]] = []
        self.false_s = -inf  # when a signal last came with false numbers
        self._pending: tuple[int, int] | None = None

    def on(self, kind: str) -> Happening | None:
        """The happening of this kind that is on now."""
        for each in self.happenings:
            if each.kind == kind and each.begin_s <= self.now_s < each.end_s:
                return each
        return None

    def tick(self) -> None:
        """Five seconds of every pod."""
        self.now_s += PERIOD_S
        if self._pending and self._pending[0] <= self.now_s and not self.on("stuck"):
            self.limit, self._pending = self._pending[1], None
        for pod in self.pods:
            self._send(self._period(pod))

    def want(self, limit: int) -> None:
        """A limit that comes into force at the next period, or later if Envoy is slow to acknowledge it."""
        if limit != self.limit:
            self._pending = (self.now_s + self.rng.choice((0, 0, PERIOD_S)), limit)
        else:
            self._pending = None

    def take(self) -> LimitSignals:
        """What one decision is made from now."""
        due = [signal for at_s, signal in self.late if at_s <= self.now_s]
        self.late = [entry for entry in self.late if entry[0] > self.now_s]
        told, self.inbox = self.inbox + due, []
        if self.on("shuffled"):
            self.rng.shuffle(told)
        ceiling = max(self.floor, self.ceiling // 4) if self.on("ceiling") else self.ceiling
        return LimitSignals(
            REVISION,
            tuple(told),
            ready_pods=len(self.pods),
            limit=self.limit,
            cores=4.0,
            memory_limit_bytes=1e9,
            floor=self.floor,
            ceiling=ceiling,
        )

    def _draw(self) -> tuple[Happening, ...]:
        rng = self.rng
        found = []
        for kind in (*KINDS, *ON_SIGNALS):
            for _ in range(rng.randint(1, 3) if rng.random() < 0.35 else 0):
                begin_s = rng.randrange(30, self.faulty_s)
                lasts_s = rng.choice((35, 90) if kind == "poison" else (35, 90, 300, 900))
                end_s = min(self.faulty_s, begin_s + lasts_s)
                found.append(Happening(begin_s, end_s, kind, rng.choice((0.02, 0.2, 1.0))))
        return tuple(sorted(found, key=lambda each: (each.begin_s, each.kind)))

    def _period(self, pod: str) -> PodSignal:
        """One period of one pod, as it was."""
        rng = self.rng
        flying = 0.3 * rng.random() * self.limit if self.on("idle") else float(self.limit)
        slow = 30.0 if self.on("poison") else 1.0
        if self.on("bad pod") and pod == self.bad:
            slow *= 10.0
        done = poisson(rng, self.rate(flying) / slow * PERIOD_S) if flying else 0
        return PodSignal(
            REVISION,
            pod,
            self.begin_s + self.now_s - 0.5,
            float(PERIOD_S),
            in_flight=flying,
            completions=float(done),
            request_time_s=flying * PERIOD_S,
            failed=0.0,
            cpu_cores=min(4.0, 0.1 * flying),
            memory_bytes=3e8,
        )

    def _send(self, signal: PodSignal) -> None:
        """Let the faults that are on happen to a signal."""
        rng = self.rng
        if self.on("outage") or self.on("pause"):
            return
        for kind in ON_SIGNALS:
            fault = self.on(kind)
            if fault is None or kind == "shuffled" or rng.random() >= fault.chance:
                continue
            if kind == "lost":
                return
            if kind in ("late", "repeated"):
                self.late.append((self.now_s + rng.uniform(1, LATEST_S), signal))
                if kind == "late":
                    return
            elif kind == "unknown":
                signal = replace(signal, **dict.fromkeys(rng.sample(FIELDS, 3)))  # type: ignore[arg-type]
            elif kind == "wild":
                signal = self._wild(signal)
        self.inbox.append(signal)

    def _wild(self, signal: PodSignal) -> PodSignal:
        rng = self.rng
        self.false_s = self.now_s
        field = rng.choice((*FIELDS, "at_s", "period_s"))
        if field == "at_s":
            return replace(signal, at_s=signal.at_s + rng.choice(WILD_TIMES_S))
        return replace(signal, **{field: rng.choice(WILD)})  # type: ignore[arg-type]
