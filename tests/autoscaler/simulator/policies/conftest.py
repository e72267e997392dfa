"""A world without randomness for policies: a load that flows, pods with an exact limit, cold starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil

import pytest

from trimtab.autoscaler.simulator.policies.base import TICK_S, Policy, Setting, Tick, Wish

Load = Callable[[float], float]  # concurrency offered at a time


def setting_of(**changed: object) -> Setting:
    """The class cpu with a wide range, decisions on the tick's grid; some fields changed."""
    given: dict[str, object] = {
        "knee": 4,
        "first_limit": 4,
        "pods_min": 1,
        "pods_max": 100_000,
        "concurrency_min": 1,
        "concurrency_max": 400_000,
        "service_time_s": 0.2,
        "cold_start_s": 0.0,
        "phase_s": 0.0,
        "kind": "cpu",
    }
    return Setting(**(given | changed))  # type: ignore[arg-type]


@pytest.fixture
def setting() -> Callable[..., Setting]:
    return setting_of


def tick_of(
    at_s: float, in_flight: float = 0.0, queued: float = 0.0, ready: int = 1, starting: int = 0
) -> Tick:
    """A tick in which these numbers stayed as they are."""
    busy = in_flight + queued > 0
    return Tick(
        at_s=at_s,
        arrivals=int(busy),
        completions=int(busy),
        rejected=0,
        in_flight=round(in_flight),
        queued=ceil(queued),
        in_flight_s=in_flight * TICK_S,
        queued_s=queued * TICK_S,
        request_time_s=0.0,
        ready=ready,
        starting_ages_s=(1.0,) * starting,
    )


@pytest.fixture
def tick() -> Callable[..., Tick]:
    return tick_of


@dataclass
class Flow:
    """Pods and a queue through which requests flow; pods take `cold_start_s` to start.

    With `queueless`, all that is offered counts as in flight whatever the pods: what an autoscaler
    sees of demand alone.
    """

    knee: int = 4
    service_time_s: float = 0.2
    cold_start_s: float = 0.0
    ready: int = 1
    queueless: bool = False
    queued: float = 0.0
    in_flight: float = 0.0
    now_s: float = 0.0
    starting: list[float] = field(default_factory=list)  # when each will be ready
    wishes: list[tuple[float, int]] = field(default_factory=list)  # (at_s, pods)

    def run(self, policy: Policy, load: Load, until_s: float) -> Flow:
        """Pass time, and do what the policy wants as soon as it says so."""
        while self.now_s < until_s:
            wish = policy.step(self._pass(load), ())
            if wish is not None:
                self.wishes.append((self.now_s, wish.pods))
                self._follow(wish)
        return self

    def pods_at(self, at_s: float) -> int:
        return [pods for made_s, pods in self.wishes if made_s <= at_s][-1]

    def first_with(self, pods: int, after_s: float) -> float:
        """Seconds after `after_s` until at least `pods` were wanted."""
        return next(at_s for at_s, wanted in self.wishes if at_s > after_s and wanted >= pods) - after_s

    def _pass(self, load: Load) -> Tick:
        steps = 50  # per tick: 10 ms, a small part of any service time used here
        step_s = TICK_S / steps
        in_flight_s = queued_s = 0.0
        begin_s = self.now_s
        for i in range(1, steps + 1):
            at_s = begin_s + i * step_s
            self._serve(load(at_s), at_s, step_s)
            in_flight_s += self.in_flight * step_s
            queued_s += self.queued * step_s
        self.now_s = begin_s + TICK_S
        made = tick_of(self.now_s, self.in_flight, self.queued, self.ready, len(self.starting))
        return made._replace(in_flight_s=in_flight_s, queued_s=queued_s)

    def _serve(self, offered: float, at_s: float, step_s: float) -> None:
        self.ready += sum(1 for ready_s in self.starting if ready_s <= at_s)
        self.starting = [ready_s for ready_s in self.starting if ready_s > at_s]
        if self.queueless:
            self.in_flight = offered
            return
        self.in_flight -= self.in_flight * step_s / self.service_time_s
        self.queued += offered * step_s / self.service_time_s
        begun = min(self.queued, max(0.0, self.ready * self.knee - self.in_flight))
        self.in_flight, self.queued = self.in_flight + begun, self.queued - begun

    def _follow(self, wish: Wish) -> None:
        have = self.ready + len(self.starting)
        if self.cold_start_s == 0.0:
            self.ready = wish.pods
        elif wish.pods > have:
            self.starting += [self.now_s + self.cold_start_s] * (wish.pods - have)
        elif wish.pods < have:
            spared = min(len(self.starting), have - wish.pods)
            self.starting = self.starting[: len(self.starting) - spared]
            self.ready = wish.pods - len(self.starting)


@pytest.fixture
def flow() -> Callable[..., Flow]:
    return Flow


def step_load(low: float, high: float, at_s: float) -> Load:
    """`low` up to and with `at_s`, `high` from then on."""
    return lambda now_s: low if now_s <= at_s + 1e-9 else high


@pytest.fixture
def step() -> Callable[..., Load]:
    return step_load
