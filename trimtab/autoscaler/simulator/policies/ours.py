"""trimtab itself: the very `decide` that the control plane calls, with what Envoy would have told it."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.autoscaler.horizontal import Signals, State, decide, overdue_pods, urgent
from trimtab.autoscaler.simulator.policies.base import LIMIT_KNEES, TICK_S, PodTick, Setting, Tick, Wish
from trimtab.autoscaler.simulator.policies.limit import LIMIT_EACH_S, REVISION, LimitAxis
from trimtab.core.decision import Decision
from trimtab.core.signals import RevisionSignal
from trimtab.core.spec import ConcurrencyRange

FLUSH_EACH_S = 1.0
LOOK_EACH_S = 1.0  # as the control plane looks, at any phase to the flushes
DECIDE_EACH_S = 5.0

URGENT_AFTER_S = 2.0
"""Least time between two decisions, as in the control plane."""


class Ours:
    """Both axes, each with its own period, fed once a second as from one Envoy."""

    def __init__(self, setting: Setting) -> None:
        self._range = ConcurrencyRange(setting.concurrency_min, setting.concurrency_max)
        self._limits = LimitAxis(
            setting.kind, setting.knee, LIMIT_KNEES * setting.knee, setting.first_limit, setting.learned
        )
        self._look_s = setting.phase_s % LOOK_EACH_S // TICK_S * TICK_S
        self._next_s = setting.phase_s % DECIDE_EACH_S + FLUSH_EACH_S
        self._next_limit_s = self._next_s + LIMIT_EACH_S
        self._state = State()
        self._ticks: list[Tick] = []
        self._signals: list[RevisionSignal] = []
        self.last: Decision | None = None

    def step(self, tick: Tick, pods: Sequence[PodTick]) -> Wish | None:
        """A decision when it is due."""
        self._ticks.append(tick)
        flush = None
        if tick.at_s % FLUSH_EACH_S == 0:
            flush = _flush(self._ticks)
            self._signals.append(flush)
            self._ticks.clear()
        self._limits.see(tick.at_s, pods, flush)
        if (tick.at_s - self._look_s) % LOOK_EACH_S:
            return None
        signals = self._told(tick)
        soon = tick.at_s >= self._next_s - DECIDE_EACH_S + URGENT_AFTER_S and urgent(self._state, signals)
        if tick.at_s < self._next_s and not soon:
            return None
        self._next_s = tick.at_s + DECIDE_EACH_S
        if tick.at_s >= self._next_limit_s:
            self._next_limit_s += LIMIT_EACH_S
            self._limits.decide(tick.at_s, tick.ready)
            signals = self._told(tick)
        self._signals.clear()
        self._state, self.last = decide(self._state, signals, tick.at_s)
        return Wish(self.last.pods, self._limits.limit, overdue_pods(signals))

    def _told(self, tick: Tick) -> Signals:
        """What the control plane would know by now."""
        return Signals(
            revision=REVISION,
            revision_signals=tuple(self._signals),
            ready_pods=tick.ready,
            starting_ages_s=tick.starting_ages_s,
            start_time_s=tick.start_time_s,
            target_concurrency=self._limits.limit,
            concurrency=self._range,
        )


def _flush(ticks: list[Tick]) -> RevisionSignal:
    """What Envoy would have reported of these ticks together."""
    last = ticks[-1]
    return RevisionSignal(
        revision=REVISION,
        envoy="simulated",
        at_s=last.at_s,
        period_s=FLUSH_EACH_S,
        arrivals=sum([tick.arrivals for tick in ticks]),
        completions=sum([tick.completions for tick in ticks]),
        rejected=sum([tick.rejected for tick in ticks]),
        failed=0,
        in_flight=last.in_flight,
        queued=last.queued,
        request_time_s=sum([tick.request_time_s for tick in ticks]),
    )
