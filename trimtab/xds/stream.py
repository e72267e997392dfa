"""One ADS stream as a state machine: requests and snapshots in, pushes out, one at a time. Pure.

Make before break. Additions go out as clusters, endpoints, listeners, routes; a listener or a route
waits until what it may refer to was answered. Envoy answers a push of clusters only when each has
its endpoints and is ready, so a route never points to a cluster that is not. Removals come after
all additions were answered, in the opposite direction: whatever refers goes before what it refers to.

Of each type at most one push is unanswered. That paces a stream by its client and merges what
changes meanwhile, so nothing has to be delayed to be merged: a change of pods goes out at once. Only
what is `held` waits: route tables of megabytes, behind which pods would (see `server`).
A refused push counts as answered. Its resources are sent again in halves until the bad one is
alone, and that one not again until it changes; a state-of-the-world push of all clusters or
listeners cannot be halved, so there all wait.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from itertools import islice

from trimtab.xds.assignments import empty_assignment
from trimtab.xds.kinds import ADDITION_ORDER, ASSIGNMENTS, CLUSTERS, FULL_STATE, LISTENERS, ROUTES
from trimtab.xds.snapshot import Collection, Resource, Snapshot
from trimtab.xds.subscription import ABSENT, DeltaRequest, StateRequest, Subscription

REMOVAL_ORDER = (LISTENERS, ROUTES, CLUSTERS, ASSIGNMENTS)
# Types that wait for the ones before them. Endpoints do not: a cluster gets ready by them.
WAITING = frozenset({LISTENERS, ROUTES})
# A type is in force only together with the one that makes Envoy subscribe to it.
CARRIER = {ASSIGNMENTS: CLUSTERS, ROUTES: LISTENERS}


@dataclass(frozen=True)
class Push:
    """One response. State of the world: `resources` only; delta: also `removed` names."""

    type_url: str
    version: str
    nonce: str
    resources: Mapping[str, Resource]
    removed: tuple[str, ...] = ()


class StreamState:
    """The protocol's state of one stream, in either variant (`delta`)."""

    def __init__(self, *, delta: bool) -> None:
        self.delta = delta
        self.subscriptions: dict[str, Subscription] = {}
        self._pushes = 0

    def receive(self, request: StateRequest | DeltaRequest, at_s: float) -> None:
        """Take in one request at `at_s` (wall clock, for the record of a NACK). Other types are ignored."""
        if request.type_url not in ADDITION_ORDER:
            return
        first = request.type_url not in self.subscriptions
        subscription = self.subscriptions.setdefault(request.type_url, Subscription(request.type_url))
        if isinstance(request, DeltaRequest):
            subscription.ask_delta(request, at_s, first=first)
        else:
            subscription.ask_state(request, at_s, first=first)

    def awaits(self, type_url: str) -> bool:
        """Whether an answer to the last push of this type is to come."""
        subscription = self.subscriptions.get(type_url)
        return subscription is not None and subscription.awaiting is not None

    def next_push(self, snapshot: Snapshot, held: Set[str] = frozenset()) -> Push | None:
        """The next response towards `snapshot`; None if all is said, or what is left awaits an answer.

        Of the types `held` nothing is added yet, so that nothing is removed either that they may refer to.
        """
        push = self._next_addition(snapshot, held)
        if push is None and not self._unsettled(snapshot):
            push = self._next_removal(snapshot)
        self._note_confirmed(snapshot)
        return push

    def _next_addition(self, snapshot: Snapshot, held: Set[str]) -> Push | None:
        blocked = False
        for type_url in ADDITION_ORDER:
            subscription = self.subscriptions.get(type_url)
            if subscription is None:
                continue
            collection = snapshot.collections[type_url]
            found = subscription.unsent(collection)
            waits = type_url in held or (blocked and type_url in WAITING)
            ready = subscription.awaiting is None and not waits
            if ready and (found or subscription.owes_answer):
                push = self._add(subscription, collection, found)
                if push is not None:
                    return push
                found = {}
            blocked = blocked or bool(found) or subscription.awaiting is not None
        return None

    def _next_removal(self, snapshot: Snapshot) -> Push | None:
        """The next removal. Nothing goes while a refused, older resource may still refer to it."""
        for type_url in REMOVAL_ORDER:
            subscription = self.subscriptions.get(type_url)
            if subscription is None:
                # A reconnecting Envoy asks for clusters first, and may have routes to them.
                if type_url == ROUTES:
                    return None
                continue
            collection = snapshot.collections[type_url]
            names = subscription.gone(collection)
            push = self._remove(subscription, collection, names) if names else None
            if push is not None:
                return push
            subscription.note_settled()
            if subscription.refused:
                return None
        return None

    def _unsettled(self, snapshot: Snapshot) -> bool:
        return any(not self._settled(type_url, snapshot) for type_url in self.subscriptions)

    def _settled(self, type_url: str, snapshot: Snapshot) -> bool:
        """Whether the client has answered all that there is to say, removals aside."""
        subscription = self.subscriptions[type_url]
        return subscription.awaiting is None and not subscription.unsent(snapshot.collections[type_url])

    def _note_confirmed(self, snapshot: Snapshot) -> None:
        """Move each type's confirmed version on to the snapshot's, where all of it is in force."""
        for type_url, subscription in self.subscriptions.items():
            together = [type_url, CARRIER.get(type_url, type_url)]
            confirmed = all(
                other not in self.subscriptions
                or (self._settled(other, snapshot) and not self.subscriptions[other].refused)
                for other in together
            )
            if confirmed:
                subscription.acked_version = snapshot.version(type_url)

    def _add(
        self, subscription: Subscription, collection: Collection, found: Mapping[str, Resource | None]
    ) -> Push | None:
        """Push what is new or changed; None if there is nothing to put into a message."""
        changed = {name: new for name, new in found.items() if new is not None}
        missing = [name for name, new in found.items() if new is None]
        full_state = not self.delta and subscription.type_url in FULL_STATE
        if subscription.batch_max and not full_state:
            changed = dict(islice(changed.items(), subscription.batch_max))
        if subscription.type_url == CLUSTERS and ASSIGNMENTS in self.subscriptions:
            # Envoy builds a changed cluster anew and asks for nothing, yet waits for its endpoints.
            self.subscriptions[ASSIGNMENTS].resend(changed)
        if self.delta:
            return self._push(subscription, collection, changed, missing)
        if full_state:
            kept = {name: told for name, told in subscription.sent.items() if told.version}
            return self._push(subscription, collection, kept | changed, missing)
        if subscription.type_url == ASSIGNMENTS:
            return self._push(subscription, collection, changed | _empty(missing), [])
        subscription.note_told(dict.fromkeys(missing, ABSENT))
        return self._push(subscription, collection, changed, []) if changed else None

    def _remove(self, subscription: Subscription, collection: Collection, names: list[str]) -> Push | None:
        """Push that `names` are gone; None if the variant has no message for it."""
        if self.delta:
            return self._push(subscription, collection, {}, names)
        if subscription.type_url in FULL_STATE:
            kept = {name: told for name, told in subscription.sent.items() if name in collection.resources}
            return self._push(subscription, collection, kept, names)
        subscription.note_told(dict.fromkeys(names, ABSENT))
        if subscription.type_url == ASSIGNMENTS:
            return self._push(subscription, collection, _empty(names), [])
        return None

    def _push(
        self,
        subscription: Subscription,
        collection: Collection,
        resources: Mapping[str, Resource],
        removed: list[str],
    ) -> Push:
        self._pushes += 1
        nonce = str(self._pushes)
        subscription.note_sent({**resources, **dict.fromkeys(removed, ABSENT)}, nonce, collection.version)
        return Push(subscription.type_url, collection.version, nonce, resources, tuple(removed))


def _empty(names: list[str]) -> dict[str, Resource]:
    """Assignments without pods, for clusters that the snapshot does not know: ABSENT in words."""
    return {name: Resource(ABSENT.version, empty_assignment(name)) for name in names}
