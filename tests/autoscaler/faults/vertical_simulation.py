"""One seed of the vertical axis under faults: `decide_limit` each 30 s, and what must always hold."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf, isfinite, sqrt

from tests.autoscaler.faults.simulation import Violated
from tests.autoscaler.faults.vertical_world import UNFORGOTTEN, PodsWorld
from trimtab.autoscaler.vertical import (
    Learned,
    LimitSignals,
    LimitState,
    LimitTuning,
    decide_limit,
    learned,
    resume,
)
from trimtab.core.decision import LimitDecision

DecideLimit = Callable[[LimitState, LimitSignals, float, LimitTuning], tuple[LimitState, LimitDecision]]

EACH_S = 30
TOLD = 8
SELDOM = 8  # one decision in so many is asked again
LEARNED_BYTES_MAX = 2_000  # a row of the store
STATE_BYTES_MAX = 16_000
CALM_S = 1200  # at the end, in which the limit must rest
CHANGES_MAX = 1  # in it: as promised for an hour of stationary traffic
GOOD_SHARE = 0.8  # of the best throughput that the limit reaches then; how near it comes is tested elsewhere
DOUBT = 2.0
"""Standard errors of a window's completions by which that share may be missed: exploring tells limits apart
by a window or two each. Of 25 completions in 30 s it is 0.2, and of neighbouring limits chance takes one."""


@dataclass(frozen=True)
class LimitMoment:
    """One decision, and what the world knows of it. Times in seconds."""

    signals: LimitSignals
    now_s: float
    before: LimitState
    after: LimitState
    decision: LimitDecision
    news: bool  # some signal has come whose period began after the last change, true or passing for it
    loose: bool  # every signal that came was true and showed pods far from their limit

    @property
    def kept(self) -> int:
        """The limit that is kept when nothing is decided: wanted last, within its bounds."""
        return bounded(self.before.limit or self.signals.limit, self.signals)


LimitInvariant = Callable[[LimitMoment, LimitTuning], str]


def bounded(limit: int, signals: LimitSignals) -> int:
    floor = max(1, signals.floor)
    return max(floor, min(limit, signals.ceiling))


def limit_within_bounds(moment: LimitMoment, tuning: LimitTuning) -> str:
    """Below one request a pod serves nobody; beyond the range is the user's to say."""
    limit = moment.decision.limit
    return f"a limit of {limit}" if limit != bounded(limit, moment.signals) else ""


def limit_steps_bounded(moment: LimitMoment, tuning: LimitTuning) -> str:
    """One wrong decision must cost no more than a factor of latency or of throughput."""
    base = (moment.signals.limit, moment.before.limit or moment.signals.limit)
    low, high = int(min(base) / tuning.step_down), max(base) * tuning.step_up
    least, most = bounded(low, moment.signals), bounded(int(high), moment.signals)
    if not least <= moment.decision.limit <= most:
        return f"a limit of {moment.decision.limit} after {base}"
    return ""


def silence_changes_no_limit(moment: LimitMoment, tuning: LimitTuning) -> str:
    """Unknown is neither stress nor room: without evidence from after the last change, nothing changes."""
    allowed = {moment.kept, bounded(moment.signals.limit, moment.signals)}
    if not moment.news and moment.decision.limit not in allowed:
        return f"a limit of {moment.decision.limit} instead of {sorted(allowed)} without a new signal"
    return ""


def load_raises_no_limit(moment: LimitMoment, tuning: LimitTuning) -> str:
    """Where load, not the limit, holds concurrency down, a higher limit is not known to be any good."""
    most = max(moment.kept, bounded(moment.signals.limit, moment.signals))
    if moment.loose and moment.decision.limit > most:
        return f"a limit of {moment.decision.limit}, where {most} was not used"
    return ""


def limit_told_as_it_is(moment: LimitMoment, tuning: LimitTuning) -> str:
    """`why` must not say one thing while another happens."""
    decision = moment.decision
    if decision.limit_before != moment.signals.limit or decision.at_s != moment.now_s:
        return "a decision about another limit or time"
    if not (decision.rule and decision.reason and decision.inputs):
        return "a decision without rule, reason or inputs"
    if decision.limit not in [each.limit for each in decision.candidates if each.rule == decision.rule]:
        return f"{decision.rule!r} won, but not with {decision.limit}"
    if any(value is not None and not isfinite(value) for _, value in decision.inputs):
        return f"inputs hold a number that is none: {decision.inputs}"
    return ""


def learned_is_kept(moment: LimitMoment, tuning: LimitTuning) -> str:
    """What is stored must be small, be read again as it was, and begin where it ended."""
    stored = learned(moment.after)
    text = stored.to_json()
    if len(text) > LEARNED_BYTES_MAX or (size := len(pickle.dumps(moment.after))) > STATE_BYTES_MAX:
        return f"{len(text)} bytes to store, or a state of more than {STATE_BYTES_MAX}"
    try:
        again = Learned.from_json(text)
    except ValueError as error:
        return f"what was stored cannot be read: {error}: {text} ({size} bytes of state)"
    if again.limit != moment.after.limit or again.to_json() != text:
        return f"stored as {text}, read as {again}"
    return ""


AT_EACH = (
    limit_within_bounds,
    limit_steps_bounded,
    silence_changes_no_limit,
    load_raises_no_limit,
    limit_told_as_it_is,
    learned_is_kept,
)


class LimitSimulation:
    """A world of pods and the vertical axis. `decide` may be replaced by one with a bug in it."""

    def __init__(self, seed: int, decide: DecideLimit = decide_limit) -> None:
        self.seed = seed
        self.world = PodsWorld(seed)
        self.state = LimitState()
        self._decide = decide
        self._tuning = LimitTuning()
        self._changed_s = -inf  # by the controller's clock
        self._decisions: deque[LimitDecision] = deque(maxlen=TOLD)
        self._calm: list[int] = []
        self._count = 0

    def run(self) -> None:
        """All of it. Raises Violated."""
        world = self.world
        starts = {
            h.begin_s // EACH_S: h.kind for h in world.happenings if h.kind in ("restart", "lost store")
        }
        while world.now_s < world.last_s:
            world.tick()
            if world.now_s % EACH_S:
                continue
            kind = starts.get(world.now_s // EACH_S)
            if kind:
                self._restart(keeping=kind == "restart")
            if not world.on("pause"):
                self._look()
            if world.on("new pods"):
                world.pods = [f"pod-{world.now_s}-{index}" for index in range(len(world.pods))]
        self._check_rest()

    def _restart(self, *, keeping: bool) -> None:
        """The controller comes back with what the store holds under the revision's hash, or with nothing."""
        stored = Learned.from_json(learned(self.state).to_json())
        self.state = resume(stored) if keeping and self.state.limit else LimitState()
        self.world.inbox.clear()
        self.world.late.clear()

    def _look(self) -> None:
        world = self.world
        signals, now_s = world.take(), world.begin_s + world.now_s
        after, decision = self._decide(self.state, signals, now_s, self._tuning)
        self._decisions.append(decision)
        told = signals.pod_signals
        true = world.now_s - world.false_s > EACH_S + 1
        moment = LimitMoment(
            signals,
            now_s,
            self.state,
            after,
            decision,
            news=not true or any(s.at_s - s.period_s >= self._changed_s - 1.0 for s in told),
            loose=true and all((s.in_flight or 0.0) < 0.5 * signals.limit for s in told),
        )
        for invariant in AT_EACH:
            if wrong := invariant(moment, self._tuning):
                self._fail(invariant.__name__, wrong, (invariant.__doc__ or "").strip())
        self._count += 1
        if self._count % SELDOM == 0:
            self._check_same(moment)
        if decision.limit != moment.kept:
            self._changed_s = now_s
        self.state = after
        world.want(decision.limit)
        if world.now_s > world.last_s - CALM_S:
            self._calm.append(decision.limit)

    def _check_same(self, moment: LimitMoment) -> None:
        """The same answer to the same question, also if the signals come twice and in another order."""
        again = self._decide(moment.before, moment.signals, moment.now_s, self._tuning)
        if again != (moment.after, moment.decision):
            self._fail("same_answer", f"now {again[1].limit}", "What cannot be replayed cannot be explained.")
        told = [*moment.signals.pod_signals] * 2
        self.world.rng.shuffle(told)
        other = replace(moment.signals, pod_signals=tuple(told))
        limit = self._decide(moment.before, other, moment.now_s, self._tuning)[1].limit
        if limit != moment.decision.limit:
            why = "A message that comes again, or overtakes another, is no news."
            self._fail("order_and_repetition", f"{limit} if signals come twice in another order", why)

    def _check_rest(self) -> None:
        """Faults leave no trace: long after them the limit rests, and where throughput is good."""
        world = self.world
        best = max(world.rate(float(n)) for n in range(world.floor, max(world.floor, world.ceiling) + 1))
        share = world.rate(float(self._calm[-1])) / best
        changes = sum(before != after for before, after in pairwise(self._calm))
        spoilt = UNFORGOTTEN & {each.kind for each in world.happenings}
        good = GOOD_SHARE - DOUBT / sqrt(best * len(world.pods) * EACH_S)
        if changes > CHANGES_MAX or (share < good and not spoilt):
            found = f"{changes} changes in {CALM_S} s, {share:.0%} of the best throughput at {self._calm[-1]}"
            self._fail(
                "limit_comes_to_rest", found, "A fault that is over must not cost throughput for ever."
            )

    def _fail(self, invariant: str, wrong: str, why: str) -> None:
        world = self.world
        faults = [f"{h.begin_s:5}..{h.end_s} s  {h.kind} {h.chance:.2g}" for h in world.happenings]
        lines = [
            f"{d.at_s - world.begin_s:7.0f} s  {d.limit:4}  {d.rule}: {d.reason}" for d in self._decisions
        ]
        text = f"""seed {self.seed}, {world.now_s} s: {invariant}: {wrong}
{why}
Bounds: {world.floor}..{world.ceiling}, {len(world.pods)} pods, a limit of {world.limit} in force
Faults:
{chr(10).join(faults)}
Last decisions:
{chr(10).join(lines)}
Again: TRIMTAB_FAULT_SEEDS=1 TRIMTAB_FAULT_FIRST={self.seed} make test ARGS=tests/autoscaler/faults"""
        raise Violated(invariant, text)
