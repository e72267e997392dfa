"""One seed from begin to end: the same `decide` as in the control plane, in a world where things go wrong.

A second of the world is one step: faults, pods, requests, signals; each fifth, and whenever a spec changes,
a decision, checked against every invariant. When all faults are over the load rests, and so must the pods.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from math import ceil, sqrt

from tests.autoscaler.faults.events import happen
from tests.autoscaler.faults.invariants import (
    AT_EACH,
    DECIDE_EACH_S,
    NOW_AND_THEN,
    Invariant,
    Moment,
    bounds,
    broken,
    held_to,
)
from tests.autoscaler.faults.plan import Plan, draw_plan
from tests.autoscaler.faults.truth import Truth
from tests.autoscaler.faults.world import World
from trimtab.autoscaler.horizontal import Signals, State, Tuning, decide, inherit
from trimtab.autoscaler.horizontal.state import window_in_force_s
from trimtab.core.decision import Decision

Decide = Callable[[State, Signals, float, Tuning], tuple[State, Decision]]

CALM_S = 60  # at the end, in which the pods must be what the load needs
TOLD = 8  # decisions that a failure shows
FORGET_S = 800  # after which an Envoy must be forgotten: longer than any outage here, though 30 s would do
SELDOM_ASKED = 20  # requests in a down window: with fewer, one without any is not far
SELDOM = 16  # one decision in so many is checked for what costs more than deciding
PHASE_S = 0.7  # of the decisions within the second; all flushes of it have come by then


class Violated(AssertionError):
    """An invariant does not hold; the message is all that one needs to see it again."""

    def __init__(self, invariant: str, text: str) -> None:
        super().__init__(text)
        self.invariant = invariant


TUNING = Tuning(surge_recent_s=120.0, surge_window_s=120.0, rhythm_window_s=600.0)
"""The constants, with a memory for surges that ends before a seed does: what is held for them has to go. Two
that are further apart than the load rests would announce a third for when it is to have come to rest."""


class Simulation:
    """A world and its controller. `decide` may be replaced by one with a bug in it."""

    def __init__(self, seed: int, decide: Decide = decide) -> None:
        self.plan: Plan = draw_plan(seed)
        self.world: World = World(self.plan)
        self.state = State()
        self.told = 1  # pods, by the last decision: what the store keeps
        self.paused_until_s = 0
        self.next_s = 5
        self._decide = decide
        self._tuning = TUNING
        self._truth = Truth(self._tuning)
        self._known_since_s = 0  # when the controller began to watch this revision
        self._first_pods = self.told  # that were there then
        self._accepted = 0.0  # demand of the last decision
        self._took_over: float | None = None
        self._decisions: deque[Decision] = deque(maxlen=TOLD)
        self._heard_s: dict[str, int] = {}  # when each Envoy last told something
        self._count = 0
        self._calm: list[int] = []

    def run(self) -> None:
        """All seconds. Raises Violated."""
        events = deque(self.plan.events)
        while self.world.now_s < self.plan.last_s:
            while events and events[0].at_s <= self.world.now_s:
                happen(self, events.popleft().kind)
            if self.world.now_s == self.plan.faulty_s:
                self.paused_until_s = 0
                self.world.heal()
            self.world.listening = self.world.now_s + 1 >= self.paused_until_s
            self.world.tick()
            self._truth.second(self.world.arrivals, seen=self._clean_s() > DECIDE_EACH_S)
            if self.world.listening and self.world.now_s >= self.next_s:
                self._look()
        self._check_rest()

    def restart(self) -> None:
        """The controller is gone and comes back with what the store holds: the pods wanted last."""
        self.state = State(pods=self.told or None)
        self.world.channel.forget(self.world.now_s)
        self._truth.forget()
        self._accepted, self._took_over = 0.0, None
        self._known_since_s, self._first_pods = self.world.now_s, self.told

    def roll_out(self, target: int) -> None:
        """A new revision with the old one's number of pods, or its own floor, takes over the traffic."""
        world = self.world
        held = float(self.told * world.settings.target)
        world.set(target=target, revision=world.settings.revision + 1)
        self.told = max(self.told, bounds(world.signals())[0])
        self.state = inherit(self.state)._replace(pods=self.told)
        self._took_over = min(self._truth.asked(world.now_s), held)
        world.channel.forget(world.now_s)
        self._first_pods = self.told
        self._known_since_s, self.next_s = world.now_s, world.now_s + int(DECIDE_EACH_S)

    def _look(self) -> None:
        """One decision, and what follows from it."""
        world, tuning = self.world, self._tuning
        self.next_s = world.now_s + int(DECIDE_EACH_S)
        clock_s = world.begin_s + world.now_s + PHASE_S
        signals = world.signals(world.channel.take(world.now_s + PHASE_S))
        self._heard_s |= dict.fromkeys([told.envoy for told in signals.revision_signals], world.now_s)
        self._truth.look(world.now_s, world.traffic.service_s, self._clean_s())
        after, decision = self._decide(self.state, signals, clock_s, tuning)
        self._decisions.append(decision)
        moment = self._moment(signals, after, decision, clock_s)
        self._check(moment, AT_EACH)
        self._count += 1
        if self._count % SELDOM == 0:
            self._check(moment, NOW_AND_THEN)
            self._check_same(moment)
        if decision.rule == "load" and decision.pods > self.told:
            self._truth.rose(world.now_s, min(decision.pods, _lasting(decision)), world.settings.target)
        self._accepted = dict(decision.inputs).get("demand") or self._accepted
        self._took_over = None
        self.state, self.told = after, decision.pods
        world.fleet.wanted = decision.pods
        if world.now_s > self.plan.last_s - CALM_S:
            self._calm.append(decision.pods)

    def _clean_s(self) -> float:
        """How long every signal has come as it was."""
        channel = self.world.channel
        since_s = max(channel.lossy_s, channel.false_s, float(self._known_since_s))
        return self.world.now_s - since_s

    def _moment(self, signals: Signals, after: State, decision: Decision, clock_s: float) -> Moment:
        world, truth = self.world, self._truth
        now_s = world.now_s
        heard_s = self._heard_s
        self._heard_s = {name: at_s for name, at_s in heard_s.items() if now_s - at_s <= FORGET_S}
        window_s = window_in_force_s(after, signals, self._tuning)
        return Moment(
            at_s=now_s,
            now_s=clock_s,
            signals=signals,
            before=self.state,
            after=after,
            decision=decision,
            pods=self.told,
            fresh=now_s + PHASE_S - world.channel.newest_s <= self._tuning.fresh_s,
            known_s=now_s - self._known_since_s,
            first_pods=self._first_pods,
            demand=self._accepted,
            took_over=self._took_over,
            window_s=window_s,
            asked=truth.requests(),
            needed=truth.needed(now_s, window_s),
            rose_to=truth.rose_to(now_s, signals.target_concurrency, window_s),
            envoys=len(self._heard_s),
        )

    def _check(self, moment: Moment, which: tuple[Invariant, ...]) -> None:
        if found := broken(moment, self._tuning, which):
            self._fail(*found)

    def _check_same(self, moment: Moment) -> None:
        """The same answer to the same question, also if the signals come twice and in another order."""
        again = self._decide(moment.before, moment.signals, moment.now_s, self._tuning)
        if again != (moment.after, moment.decision):
            self._fail(
                "same_answer", f"now {again[1].pods} pods", "What cannot be replayed cannot be explained."
            )
        told = [*moment.signals.revision_signals] * 2
        self.world.rng.shuffle(told)
        other = replace(moment.signals, revision_signals=tuple(told))
        pods = self._decide(moment.before, other, moment.now_s, self._tuning)[1].pods
        if pods != moment.decision.pods:
            why = "A message that comes again, or overtakes another, is no news."
            self._fail("order_and_repetition", f"{pods} pods if signals come twice in another order", why)

    def _check_rest(self) -> None:
        """Faults leave no trace: on a steady load that came through clean, pods are what it needs."""
        world = self.world
        load, target = world.load[-1], world.settings.target
        asked = load / world.traffic.service_s * self._tuning.down_window_s
        low = held_to(ceil(load / target - 1e-9) if asked > SELDOM_ASKED else 0, world.signals())
        # the largest of 300 s, of requests that vary about the load and gauges that vary about these in this
        # world (see `Traffic`), both to the upper side where they are few; how tight is tested elsewhere
        enough = ceil((load + 3 * sqrt(2 * load) + 1) / target)
        high = held_to(enough + max(1, round(enough / 5)), world.signals())
        if not low <= min(self._calm) <= max(self._calm) <= high:
            seen = f"{min(self._calm)} to {max(self._calm)} pods at the end"
            found = f"{seen}, a load of {load:.1f} needs {low}..{high}"
            self._fail("comes_to_rest", found, "A fault that is over must not cost pods or latency for ever.")

    def _fail(self, invariant: str, wrong: str, why: str) -> None:
        seed, settings, load = self.plan.seed, self.world.settings, self.world.load[self.world.now_s]
        lines = [
            f"{d.at_s - self.world.begin_s:7.1f} s  {d.pods:3} pods  {d.rule}: {d.reason}"
            for d in self._decisions
        ]
        text = f"""seed {seed}, {self.world.now_s} s: {invariant}: {wrong}
{why}
{settings}, load {load:.1f}, service time {self.world.traffic.service_s:.3f} s
Faults:
{self.plan.described(self.world.now_s)}
Last decisions:
{chr(10).join(lines)}
Again: TRIMTAB_FAULT_SEEDS=1 TRIMTAB_FAULT_FIRST={seed} make test ARGS=tests/autoscaler/faults"""
        raise Violated(invariant, text)


def _lasting(decision: Decision) -> int:
    """Pods that the load asked for, without those that only work a backlog off."""
    inputs = dict(decision.inputs)
    load, headroom = inputs.get("load") or 0.0, inputs.get("headroom") or 0.0
    return ceil((load + headroom) / (inputs.get("target_concurrency") or 1.0) - 1e-9)
