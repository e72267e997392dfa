"""How long pods have been starting, told seldom: all that is told of an endpoint is made anew each time."""

from __future__ import annotations

from itertools import islice, takewhile

from trimtab.core.clock import Clock
from trimtab.core.names import EndpointName

EACH_S = 1.0  # it is told no finer
PER_S = 50  # endpoints, those told longest ago first: where a thousand start, of each in twenty seconds


class Ages:
    """Of which endpoints it is time to tell it anew, and as of when it is told until then."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told: dict[EndpointName, tuple[float, float]] = {}  # when: monotonic s, wall clock; in order
        self._left, self._left_at_s = float(PER_S), clock.now_s()  # how many may be now, and as of when

    def due(self) -> list[EndpointName]:
        """Those of which it is told anew from now on."""
        now_s = self._clock.now_s()
        self._left = min(PER_S, self._left + PER_S * (now_s - self._left_at_s))
        self._left_at_s = now_s
        old = takewhile(lambda name: now_s - self._told[name][0] >= EACH_S, self._told)
        found = list(islice(old, int(self._left)))
        self._left -= len(found)
        for name in found:
            del self._told[name]
        return found

    def as_of(self, name: EndpointName) -> float:
        """The wall clock as of which it is told how long this endpoint's pods have been starting."""
        return self._told.setdefault(name, (self._clock.now_s(), self._clock.wall_s()))[1]

    def forget(self, name: EndpointName) -> None:
        """None of its pods starts."""
        self._told.pop(name, None)
