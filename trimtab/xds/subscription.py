"""What one stream asked for of one type, what it was told, and what it confirmed. Pure.

Level-triggered: `unsent` and `gone` compare what the client was told with what the snapshot holds,
so nothing is lost or sent twice whatever the order of requests, answers and changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from trimtab.xds.kinds import ASSIGNMENTS, FULL_STATE
from trimtab.xds.snapshot import Collection, Resource

WILDCARD = "*"
ABSENT = Resource("", b"")  # the client was told that there is no such resource
UNSURE = Resource("?", b"")  # the client may have taken it or not; no content has this version


@dataclass(frozen=True)
class StateRequest:
    """A DiscoveryRequest: all names that the client wants now. `error` is the text of a NACK."""

    type_url: str
    names: tuple[str, ...] = ()
    nonce: str = ""
    error: str | None = None


@dataclass(frozen=True)
class DeltaRequest:
    """A DeltaDiscoveryRequest. `known`: the versions that a reconnecting client has already."""

    type_url: str
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    known: Mapping[str, str] = field(default_factory=dict)
    nonce: str = ""
    error: str | None = None


@dataclass(frozen=True)
class Nack:
    """A client's refusal in its own words, and when it came (wall clock)."""

    text: str
    at_s: float


@dataclass
class Subscription:
    """One type on one stream. Changed only by its own methods."""

    type_url: str
    wildcard: bool = False
    names: set[str] = field(default_factory=set)
    sent: dict[str, Resource] = field(default_factory=dict)  # as far as the client was told
    nonce: str = ""  # of the last push
    awaiting: dict[str, str] | None = None  # name → version of a push that has no answer yet
    refused: dict[str, str] = field(default_factory=dict)  # not sent again until the content changes
    batch_max: int = 0  # resources in one push, while looking for the refused one; 0: no bound
    owes_answer: bool = False  # the first request for all of a type, which may be none, awaits an answer
    sent_version: str = ""
    acked_version: str = ""
    nack: Nack | None = None
    _compared_with: str = ""  # the version of the collection that the next two are about; empty: compare all
    _unsent: dict[str, Resource | None] = field(default_factory=dict)
    _gone: dict[str, None] = field(default_factory=dict)
    _doubtful: set[str] = field(default_factory=set)  # names to be compared again: other things were sent

    def ask_state(self, request: StateRequest, at_s: float, *, first: bool) -> None:
        """Take in a state-of-the-world request. One with an old nonce is followed by a newer one."""
        if not first:
            if request.nonce != self.nonce:
                return
            self._answered(request.error, at_s, all_in_one=self.type_url in FULL_STATE)
        names = set(request.names)
        # An empty list means "all" only for as long as no name was ever given.
        legacy = not names and self.type_url in FULL_STATE and (first or (self.wildcard and not self.names))
        wildcard = WILDCARD in names or legacy
        self.owes_answer = self.owes_answer or (first and wildcard)
        self._want(wildcard, names - {WILDCARD})

    def ask_delta(self, request: DeltaRequest, at_s: float, *, first: bool) -> None:
        """Take in a delta request. Subscriptions count whatever the nonce, answers only with the last one."""
        if request.nonce and request.nonce == self.nonce:
            self._answered(request.error, at_s, all_in_one=False)
        if first:
            self.wildcard = not request.subscribe and self.type_url in FULL_STATE
        for name in request.subscribe:
            self._subscribe(name)
        for name in request.unsubscribe:
            self._unsubscribe(name)
        if first:
            # A cluster that was getting ready when the stream broke still waits for endpoints, which
            # Envoy counts among those it has: they are sent again.
            known = {} if self.type_url == ASSIGNMENTS else request.known
            self.sent.update(
                {name: Resource(version, b"") for name, version in known.items() if self.wants(name)}
            )
            self.owes_answer = self.wildcard
            self._compared_with = ""

    def wants(self, name: str) -> bool:
        """Whether the client subscribes to `name`."""
        return self.wildcard or name in self.names

    def unsent(self, collection: Collection) -> Mapping[str, Resource | None]:
        """What the client should be told of: new and changed resources; None where a name has none."""
        self._compare(collection)
        return self._unsent

    def gone(self, collection: Collection) -> list[str]:
        """What the client has and the snapshot does not."""
        self._compare(collection)
        return list(self._gone)

    def _compare(self, collection: Collection) -> None:
        """It is asked several times for each push, of thousands of names: only what changed is looked at."""
        changed = collection.changed_since(self._compared_with)
        if changed is None:
            self._unsent, self._gone = {}, {}
            names: Iterable[str] = dict.fromkeys([*collection.resources, *self.names, *self.sent])
        else:
            names = sorted(changed | self._doubtful)
        for name in names:
            self._compare_one(name, collection.resources.get(name))
        self._compared_with = collection.version
        self._doubtful.clear()

    def _compare_one(self, name: str, resource: Resource | None) -> None:
        told = self.sent.get(name)
        asked = name in self.names or (self.wildcard and resource is not None)
        if asked and (told is None or (resource is not None and told.version != resource.version)):
            self._unsent[name] = resource
        else:
            self._unsent.pop(name, None)
        if told is not None and told.version and resource is None:
            self._gone[name] = None
        else:
            self._gone.pop(name, None)

    def note_sent(self, told: Mapping[str, Resource], nonce: str, version: str) -> None:
        """Remember a push: the client has been told of `told`, and an answer to `nonce` is awaited."""
        self.note_told(told)
        self.nonce = nonce
        self.owes_answer = False
        self.sent_version = version
        self.awaiting = {name: resource.version for name, resource in told.items()}

    def note_told(self, told: Mapping[str, Resource]) -> None:
        """Remember what needs no message, such as the absence of a route table."""
        for name, resource in told.items():
            self.refused.pop(name, None)
            if resource.version or name in self.names:
                self.sent[name] = resource
            else:  # under a wildcard, what has gone needs no record
                self.sent.pop(name, None)
        self._doubtful.update(told)

    def note_settled(self) -> None:
        """Nothing differs from the collection, removals included."""
        self.batch_max = 0
        if not self.refused:
            self.nack = None

    def resend(self, names: Iterable[str]) -> None:
        """Send these again, even unchanged, if they are subscribed to."""
        self._forget(names)

    def _answered(self, error: str | None, at_s: float, *, all_in_one: bool) -> None:
        """Take in an answer to the last push. `all_in_one`: a push of this type cannot hold a part."""
        if self.awaiting is None:
            return
        answered = {name: version for name, version in self.awaiting.items() if version}
        self.awaiting = None
        if error is None:
            self.batch_max *= 2
            self.nack = self.nack if self.refused or self.batch_max else None
            return
        self.nack = Nack(error, at_s)
        if all_in_one or len(answered) < 2:
            self.refused.update(answered)
        else:  # send them once more in halves, so that only the bad one stays refused
            self.batch_max = len(answered) // 2
            self.sent.update(dict.fromkeys(answered, UNSURE))
            self._doubtful.update(answered)

    def _want(self, wildcard: bool, names: set[str]) -> None:
        """All that it wants from now on."""
        if (wildcard, names) == (self.wildcard, self.names):
            return
        self.wildcard, self.names = wildcard, names
        self._forget([name for name in self.sent if not self.wants(name)])
        self._compared_with = ""

    def _subscribe(self, name: str) -> None:
        """Asking again is asking to be told again."""
        if name == WILDCARD:
            self._want(True, self.names)
            return
        self.names.add(name)
        self._forget([name])

    def _unsubscribe(self, name: str) -> None:
        """Under a wildcard the name stays wanted, and the protocol has it sent again to say so."""
        if name == WILDCARD:
            self._want(False, self.names)
            return
        self.names.discard(name)
        self._forget([name])

    def _forget(self, names: Iterable[str]) -> None:
        for name in names:
            self.sent.pop(name, None)
            self.refused.pop(name, None)
            self._doubtful.add(name)
