"""What the load truly needed, counted beside the code under test and from what it could plainly see."""

from __future__ import annotations

from collections import deque
from math import ceil, inf, sqrt

from trimtab.autoscaler.horizontal import Tuning

SEEN_S = 20  # a load that lasts so long is no chance
SETTLED_S = 60  # without a fault on any signal: then the service time is known again, too
SURE = 0.7  # of the load: service times vary, and their mean is learnt
LATE_S = 10.0  # signals are up to a decision and a flush old
DOUBT = 3.0  # √N taken off N requests, so that chance explains none of what is left


class Truth:
    """Remembers, for the length of the down window, what pods were needed for and what was asked for.

    `window_s`: of the window in force, if that is another.
    """

    def __init__(self, tuning: Tuning) -> None:
        self._window_s = tuning.down_window_s - LATE_S
        self._arrivals: deque[int] = deque(maxlen=SEEN_S)
        self._all: deque[int] = deque(maxlen=int(self._window_s))
        kept = int(tuning.down_window_s)  # more than there are decisions in the window
        self._needs: deque[tuple[float, float]] = deque(maxlen=kept)
        self._rises: deque[tuple[float, float]] = deque(maxlen=kept)

    def second(self, arrivals: int, seen: bool) -> None:
        """One more second of true arrivals, and whether they could be seen."""
        self._arrivals.append(arrivals)
        self._all.append(arrivals if seen else 0)

    def look(self, at_s: float, service_s: float, clean_s: float) -> None:
        """At a decision: what the last seconds needed counts if nothing stood between them and it."""
        if clean_s >= SETTLED_S:
            requests = sum(self._arrivals)
            sure = max(0.0, requests - DOUBT * sqrt(requests)) * SURE
            self._needs.append((at_s, sure / SEEN_S * service_s))

    def rose(self, at_s: float, pods: int, target: int) -> None:
        """The load asked for so many pods: for more than one pod fewer can hold."""
        self._rises.append((at_s, (pods - 1) * target + 0.01))

    def needed(self, at_s: float, window_s: float = inf) -> float:
        """Largest need of the window, in concurrent requests."""
        return _largest(self._needs, at_s - self._within_s(window_s))

    def requests(self) -> int:
        """True arrivals of the window that could be seen."""
        return sum(self._all)

    def asked(self, at_s: float) -> float:
        """Largest number of concurrent requests that the load needed or asked for in the window."""
        return max(self.needed(at_s), _largest(self._rises, at_s - self._window_s))

    def rose_to(self, at_s: float, target: int, window_s: float = inf) -> int:
        """Pods that were asked for in the window, at the target of now."""
        asked = _largest(self._rises, at_s - self._within_s(window_s))
        return ceil(asked / target) if asked else 0

    def _within_s(self, window_s: float | None) -> float:
        return min(self._window_s, window_s - LATE_S)

    def forget(self) -> None:
        """A restart: what was seen is lost, and only the number of pods is left."""
        self._needs.clear()
        self._rises.clear()


def _largest(entries: deque[tuple[float, float]], since_s: float) -> float:
    return max([value for at_s, value in entries if at_s >= since_s], default=0.0)
