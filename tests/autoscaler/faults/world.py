"""The world of one seed: load, requests, Envoys, pods and a machine, and the settings that others change."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from tests.autoscaler.faults.channel import Channel
from tests.autoscaler.faults.fleet import Fleet
from tests.autoscaler.faults.load import draw_load
from tests.autoscaler.faults.plan import Plan
from tests.autoscaler.faults.traffic import Envoy, Second, Traffic
from trimtab.autoscaler.horizontal import Signals
from trimtab.core.names import EndpointName
from trimtab.core.revision import RevisionKey
from trimtab.core.signals import RevisionSignal
from trimtab.core.spec import ConcurrencyRange

NAME = EndpointName("default", "iris")


@dataclass(frozen=True)
class Settings:
    """What the user and the vertical axis have set, and the revision that serves."""

    target: int
    range: ConcurrencyRange
    max_pods: int = 0
    revision: int = 1


class World:
    """All that is there but for the controller. Times are seconds since the begin of the seed."""

    def __init__(self, plan: Plan) -> None:
        self.rng = rng = random.Random(f"world {plan.seed}")
        target = rng.choice((1, 1, 2, 4, 8, 32, 100))
        peak = target * 10 ** rng.uniform(-0.5, 1.7)
        low, high = rng.choice((0, 1, 1, target, 3 * target)), rng.choice((3, 30, 100, 100)) * target
        service_s, spread = 10 ** rng.uniform(-1.7, 1.0), rng.choice((0.0, 0.5, 1.0))
        self.settings = Settings(target, ConcurrencyRange(low, max(low, high)))
        self.load = draw_load(rng, plan.faulty_s, plan.last_s, peak)
        self.traffic = Traffic(rng, service_s, spread, retry=rng.choice((0.0, 0.9)))
        self.fleet = Fleet(rng, rng.choice((0.0, 2.0, 10.0, 40.0)), rng.choice((None, None, 10, 150)))
        self.begin_s = float(rng.randrange(1, 10**6))
        self.channel = Channel(plan, rng, self.begin_s)
        self.now_s = 0
        self.listening = True  # a paused control plane reads nothing
        self.kept_in_socket = False  # while it does not, signals wait for it rather than being lost
        self.arrivals = 0  # of the last second
        self._names = 0
        self.envoys: list[Envoy] = []
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            self.add_envoy()

    def add_envoy(self) -> None:
        """One more Envoy, never with the name of another, and a share of the traffic for it."""
        self._names += 1
        weight, phase_s = self.rng.uniform(0.3, 1.0), self.rng.uniform(0.0, 0.6)
        self.envoys.append(Envoy(f"envoy-{self._names}", weight, phase_s))

    def set(self, **changed: object) -> None:
        self.settings = replace(self.settings, **changed)  # type: ignore[arg-type]

    def tick(self) -> None:
        """One second: pods, requests, signals."""
        self.now_s += 1
        fleet, target = self.fleet, self.settings.target
        fleet.tick(self.now_s)
        slots = (fleet.ready - fleet.hung) * target
        second = self.traffic.tick(self.load[self.now_s], slots, fleet.hung * target)
        self.arrivals = second.arrivals
        weight = sum([envoy.weight for envoy in self.envoys])
        begin = 0.0
        for envoy in self.envoys:
            end = min(1.0, begin + envoy.weight / weight) if envoy is not self.envoys[-1] else 1.0
            self._flush(envoy, second, begin, end)
            begin = end

    def heal(self) -> None:
        """The end of all faults, on a machine that is large enough."""
        self.fleet.heal()
        self.fleet.machine = None
        self.traffic.slow = 1.0
        self.traffic.give_up(self.fleet.ready * self.settings.target)
        for envoy in self.envoys:
            envoy.mute_until_s = 0

    def signals(self, told: tuple[RevisionSignal, ...] = ()) -> Signals:
        """What a decision is made from now."""
        return Signals(
            revision=self._revision(),
            revision_signals=told,
            ready_pods=self.fleet.ready,
            starting_ages_s=self.fleet.ages_s(self.now_s),
            start_time_s=self.fleet.seen_start_s,
            target_concurrency=self.settings.target,
            concurrency=self.settings.range,
            max_pods=self.settings.max_pods,
            room=self.fleet.room,
        )

    def _flush(self, envoy: Envoy, second: Second, begin: float, end: float) -> None:
        arrivals, completions, rejected, in_flight, queued, time_s = second.of(envoy, begin, end)
        if self.now_s < envoy.mute_until_s or not (self.listening or self.kept_in_socket):
            self.channel.lose(self.now_s)
            return
        signal = RevisionSignal(
            revision=self._revision(),
            envoy=envoy.name,
            at_s=self.begin_s + self.now_s - envoy.phase_s,
            period_s=1.0,
            arrivals=arrivals,
            completions=completions,
            rejected=rejected,
            failed=0,
            in_flight=in_flight,
            queued=queued,
            request_time_s=time_s,
        )
        if self.listening:
            self.channel.send(signal, self.now_s)
        else:
            self.channel.hold(signal, self.now_s)

    def _revision(self) -> RevisionKey:
        return RevisionKey(NAME, self.settings.revision)
