"""trimtab itself: the very `decide` that the control plane calls, with what Envoy would have told it."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.autoscaler.horizontal import Signals, State, decide, overdue_pods
from trimtab.autoscaler.simulator.policies.base import PodTick, Setting, Tick, Wish
from trimtab.core.decision import Decision
from trimtab.core.names import EndpointName
from trimtab.core.revision import RevisionKey
from trimtab.core.signals import RevisionSignal
from trimtab.core.spec import ConcurrencyRange

REVISION = RevisionKey(EndpointName("default", "simulated"), 1)
FLUSH_EACH_S = 1.0
DECIDE_EACH_S = 5.0


class Ours:
    """Both axes, each with its own period, fed once a second as from one Envoy."""

    def __init__(self, setting: Setting) -> None:
        self._range = ConcurrencyRange(setting.concurrency_min, setting.concurrency_max)
        self._limit = setting.first_limit
        self._next_s = setting.phase_s % DECIDE_EACH_S + FLUSH_EACH_S
        self._state = State()
        self._ticks: list[Tick] = []
        self._signals: list[RevisionSignal] = []
        self.last: Decision | None = None

    def step(self, tick: Tick, pods: Sequence[PodTick]) -> Wish | None:
        """A decision when it is due."""
        self._ticks.append(tick)
        if tick.at_s % FLUSH_EACH_S == 0:
            self._signals.append(_flush(self._ticks))
            self._ticks.clear()
        if tick.at_s < self._next_s:
            return None
        self._next_s += DECIDE_EACH_S
        signals = Signals(
            revision=REVISION,
            revision_signals=tuple(self._signals),
            ready_pods=tick.ready,
            starting_ages_s=tick.starting_ages_s,
            start_time_s=tick.start_time_s,
            target_concurrency=self._limit,
            concurrency=self._range,
        )
        self._signals.clear()
        self._state, self.last = decide(self._state, signals, tick.at_s)
        return Wish(self.last.pods, self._limit, overdue_pods(signals))


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
