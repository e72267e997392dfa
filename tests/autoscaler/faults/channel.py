"""The way of the signals from Envoy to the decision, and what can happen to them on it."""

from __future__ import annotations

import random
from math import inf, isfinite, nan

from tests.autoscaler.faults.plan import Plan, Spell
from trimtab.core.signals import RevisionSignal

COUNTS = ("arrivals", "completions", "rejected", "in_flight", "queued")
WILD = (nan, inf, -inf, -1, -1e6, 1e9, 1e18)
WILD_TIMES_S = (nan, inf, -inf, 2.0, 60.0, 1e6, 1e9, -31.0, -1e3, -1e9)  # beside the true one
WILD_PERIODS_S = (nan, inf, 0.0, -1.0, 1e-320, 1e-9, 0.3, 60.0, 1e9)
JUMP_MAX = 30.0  # times what was counted, and a hundred: what passes for a true second of another load
BATCH_MAX = 600  # signals that wait for a decision, as in the control plane
LATEST_S = 45  # that a signal may come late


class Channel:
    """Delivers signals, most at once and as they are, and knows when one last did not come through so.

    All times are seconds since the begin of the seed, but for those within signals: there the begin is
    `begin_s`, since no clock has a zero that means anything.
    """

    def __init__(self, plan: Plan, rng: random.Random, begin_s: float) -> None:
        self._rng = rng
        self._begin_s = begin_s
        self._spells = list(plan.spells)
        self._waiting: list[tuple[float, RevisionSignal]] = []  # (comes at, signal)
        self._inbox: list[RevisionSignal] = []
        self._bunch: list[RevisionSignal] = []
        self.lossy_s = -inf  # when a signal last came not, late, or other than it was
        self.false_s = -inf  # when one last came with false numbers
        self.newest_s = -inf  # of the signals delivered that were true, or may pass for it

    def send(self, signal: RevisionSignal, now_s: float) -> None:
        """One signal starts at Envoy."""
        for spell in self._spells:
            if spell.begin_s <= now_s < spell.end_s and self._fault(signal, spell, now_s):
                return
        self._deliver(signal)

    def lose(self, now_s: float) -> None:
        """One signal that never starts."""
        self.lossy_s = now_s

    def hold(self, signal: RevisionSignal, now_s: float) -> None:
        """One that waits in a socket until the control plane reads again: it is stamped then."""
        self.lossy_s = now_s
        self._bunch.append(signal)

    def take(self, now_s: float) -> tuple[RevisionSignal, ...]:
        """What has come since the last call."""
        self._unbunch(now_s)
        if self._waiting:
            due = [signal for at_s, signal in self._waiting if at_s <= now_s]
            if due:
                self._waiting = [entry for entry in self._waiting if entry[0] > now_s]
                self.lossy_s = now_s
                for signal in due:
                    self._deliver(signal)
        taken = self._inbox[-BATCH_MAX:]
        self._inbox = []
        for spell in self._spells:
            chances = dict(spell.chances)
            if spell.begin_s <= now_s < spell.end_s and self._rng.random() < chances.get("shuffled", 0.0):
                self._rng.shuffle(taken)
        return tuple(taken)

    def forget(self, now_s: float) -> None:
        """The controller is gone, and with it what it had not yet read."""
        self._inbox, self._waiting, self._bunch = [], [], []
        self.lossy_s = now_s

    def _deliver(self, signal: RevisionSignal) -> None:
        self._inbox.append(signal)
        self.newest_s = max(self.newest_s, signal.at_s - self._begin_s)

    def _unbunch(self, now_s: float) -> None:
        """What waited is read at once: a millisecond apart, each with the period that Envoy states."""
        bunch, self._bunch = self._bunch, []
        for index, signal in enumerate(bunch):
            stamped_s = self._begin_s + now_s - 1e-3 * (len(bunch) - index)
            self._deliver(signal._replace(at_s=stamped_s))

    def _fault(self, signal: RevisionSignal, spell: Spell, now_s: float) -> bool:
        """Let one of the spell's faults happen to a signal, perhaps; True if that has taken it away."""
        rng = self._rng
        for kind, chance in spell.chances:
            if kind == "shuffled" or rng.random() >= chance:
                continue
            if kind == "repeated":
                again_s = now_s + rng.choice((0, 0, 3, 10, LATEST_S))
                self._waiting.append((again_s, signal))
                continue
            self.lossy_s = now_s
            if kind == "late":
                self._waiting.append((now_s + rng.uniform(1, LATEST_S), signal))
            elif kind == "bunched":
                self._bunch.append(signal)
            elif kind in ("wild", "jump"):
                self._falsify(signal, kind, now_s)
            return True
        return False

    def _falsify(self, signal: RevisionSignal, kind: str, now_s: float) -> None:
        """Deliver a signal with one thing wrong in it."""
        rng = self._rng
        self.false_s = now_s
        if kind == "jump":
            field = rng.choice(("arrivals", "completions", "rejected"))
            change: dict[str, float] = {
                field: int(getattr(signal, field) * rng.uniform(1, JUMP_MAX)) + rng.randint(0, 100)
            }
        else:
            change = self._wildness(signal)
        wild = signal._replace(**change)  # type: ignore[arg-type]
        self._inbox.append(wild)
        at_s = wild.at_s - self._begin_s
        if all(isfinite(value) and value >= 0 for value in change.values()) and at_s <= now_s + 1.5:
            self.newest_s = max(self.newest_s, at_s)  # it may pass for true

    def _wildness(self, signal: RevisionSignal) -> dict[str, float]:
        rng = self._rng
        field = rng.choice((*COUNTS, "request_time_s", "at_s", "period_s"))
        if field == "at_s":
            return {field: signal.at_s + rng.choice(WILD_TIMES_S)}
        return {field: rng.choice(WILD_PERIODS_S if field == "period_s" else WILD)}
