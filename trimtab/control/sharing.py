"""What each endpoint may have of a machine that does not hold all that is wanted.

While everybody gets what they want, nothing is shared out: the room is what is free. Once one is
short, each decision is made within the endpoint's fair share of what is free and what all pods hold,
so that those beyond theirs give back, and the next free pod is not whose decision comes first.
"""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.autoscaler.fairness import Ask, share
from trimtab.autoscaler.horizontal import Signals, State, Tuning, decide
from trimtab.autoscaler.horizontal.reasons import THIS_MACHINE
from trimtab.core.decision import Decision
from trimtab.core.names import EndpointName
from trimtab.core.spec import PODS_MAX
from trimtab.fleet.protocol import Room


def decide_in_share(state: State, signals: Signals, now_s: float, tuning: Tuning) -> tuple[State, Decision]:
    """`decide`, but what others get of the machine is no longer its own to hold.

    The room is below 0 then, so a replay finds the same state from what was recorded.
    """
    after, decision = decide(state, signals, now_s, tuning)
    if decision.binds == THIS_MACHINE and (signals.room or 0) < 0:
        after = after._replace(pods=decision.pods)
    return after, decision


@dataclass(frozen=True)
class Standing:
    """Where an endpoint stands: the fewest pods of its range, those it has or may start, those it wants."""

    floor: int
    granted: int
    wanted: int
    pod_bytes: int

    @property
    def short(self) -> bool:
        """Whether it wants more than it may have."""
        return max(self.floor, self.wanted) > self.granted


class Sharing:
    """Remembers what each endpoint wanted last, by the name's text, which is quick to compare."""

    def __init__(self) -> None:
        self._asks: dict[str, Ask] = {}
        self._short: set[str] = set()

    def note(self, name: EndpointName, standing: Standing) -> None:
        """What was decided for an endpoint, or what it waits for before it serves."""
        self.forget(name)
        if not standing.pod_bytes:
            return
        self._asks[str(name)] = Ask(standing.floor, standing.granted, standing.wanted, standing.pod_bytes)
        if standing.short:
            self._short.add(str(name))

    def forget(self, name: EndpointName) -> None:
        self._asks.pop(str(name), None)
        self._short.discard(str(name))

    def others_are_short(self, name: EndpointName) -> bool:
        """Whether there is one, besides this, to which it may have to give back."""
        return bool(self._short) and not self._short <= {str(name)}

    def room(self, name: EndpointName, floor: int, held: int, room: Room) -> Room:
        """The room within the endpoint's fair share: below 0 if it holds more than that."""
        me = str(name)
        if room.pods is None or not room.pod_bytes or not self.others_are_short(name):
            return room
        asks = self._asks | {me: Ask(floor, held, PODS_MAX, room.pod_bytes)}
        whole = room.free_bytes + sum(ask.held * ask.size for ask in asks.values())
        fair = share(whole, asks)[me]
        if fair - held > room.pods:  # others have yet to give back
            return room
        why = f"this machine: its fair share is {fair} of {whole // room.pod_bytes} pods"
        return Room(fair - held, why, room.free_bytes, room.pod_bytes)
