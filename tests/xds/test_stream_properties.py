"""A model of Envoy always ends at the snapshot, and never has a route to a cluster that is not ready.

The machine delivers messages one by one in both directions, publishes, and breaks the stream, in
any order. Payloads stand for resources: a route's payload lists its clusters, and whatever begins
with `bad` is refused.
"""

from __future__ import annotations

from collections import deque

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from trimtab.xds.kinds import ASSIGNMENTS, CLUSTERS, LISTENERS, ROUTES
from trimtab.xds.snapshot import Collection, Resource, Snapshot, resource
from trimtab.xds.stream import Push, StreamState
from trimtab.xds.subscription import DeltaRequest, StateRequest

NAMES = ("a", "b", "c")
TABLE = "table"
MESSAGES_MAX = 400


def snapshot_of(
    clusters: dict[str, str], pods: dict[str, int], routed: set[str], listener: str, table: str = ""
) -> Snapshot:
    """`clusters`: name → content; the route table names those of `routed` that are there and good."""
    targets = ",".join(sorted(name for name in routed if name in clusters))
    content = {
        CLUSTERS: {name: f"{text}:{name}" for name, text in clusters.items()},
        ASSIGNMENTS: {name: f"{pods[name]} pods of {name}" for name in clusters},
        LISTENERS: {"gateway": listener} if listener else {},
        ROUTES: {TABLE: f"{table}routes:{targets}"},
    }
    return Snapshot(
        {
            kind: Collection({name: resource(text.encode()) for name, text in found.items()})
            for kind, found in content.items()
        }
    )


def follows(last: Snapshot, new: Snapshot) -> Snapshot:
    """The new one as what changed of the last one."""
    return Snapshot(
        {
            kind: last.collections[kind].replaced({*last.collections[kind].resources, *wanted}, wanted)
            for kind, wanted in ((kind, new.collections[kind].resources) for kind in new.collections)
        }
    )


GOOD = st.sampled_from(["v1", "v2"])
ANY = st.sampled_from(["v1", "v1", "v2", "v2", "bad"])


def snapshots(content: st.SearchStrategy[str]) -> st.SearchStrategy[Snapshot]:
    return st.builds(
        snapshot_of,
        st.dictionaries(st.sampled_from(NAMES), content),
        st.fixed_dictionaries({name: st.integers(0, 2) for name in NAMES}),
        st.sets(st.sampled_from(NAMES)),
        content,
        content.map(lambda text: "bad" if text == "bad" else ""),
    )


class ModelEnvoy:
    """Envoy as far as its control plane can tell. Keeps its resources when the stream breaks."""

    def __init__(self, *, delta: bool) -> None:
        self.delta = delta
        self.active: dict[str, Resource] = {}  # clusters that take requests
        self.warming: dict[str, Resource] = {}  # clusters, or new versions of them, that await endpoints
        self.endpoints: dict[str, Resource] = {}
        self.listeners: dict[str, Resource] = {}
        self.routes: dict[str, Resource] = {}
        self.doomed: set[str] = set()  # clusters that were refused once: routes to them are not judged
        self.fresh = True  # no stream broke since all was last in agreement
        self.outbox: deque[DeltaRequest | StateRequest] = deque()

    def connect(self) -> None:
        self.outbox.clear()
        self.nonces: dict[str, str] = {}
        self.asked: dict[str, set[str]] = {ASSIGNMENTS: set(), ROUTES: set()}
        self.held: tuple[str, str | None] | None = None  # an answer about clusters, until all are warm
        for kind in (CLUSTERS, LISTENERS):
            known = {name: one.version for name, one in self._has(kind).items()}
            self.outbox.append(DeltaRequest(kind, known=known) if self.delta else StateRequest(kind))
        self._subscribe(ASSIGNMENTS)
        self._subscribe(ROUTES)

    def take(self, push: Push) -> None:
        self.nonces[push.type_url] = push.nonce
        error = {
            CLUSTERS: self._clusters,
            ASSIGNMENTS: self._endpoints,
            LISTENERS: self._listeners,
            ROUTES: self._routes,
        }[push.type_url](push)
        if push.type_url == CLUSTERS:
            self.held = (push.nonce, error)
        else:
            self._answer(push.type_url, push.nonce, error)
        self._subscribe(ASSIGNMENTS)
        self._subscribe(ROUTES)
        if self.held is not None and not self.warming:
            self._answer(CLUSTERS, *self.held)
            self.held = None

    def _clusters(self, push: Push) -> str | None:
        error = None
        for name, found in push.resources.items():
            if found.payload.startswith(b"bad"):
                self.doomed.add(name)
                error = f"{name} is bad"
            elif (
                found.version != (self.warming.get(name) or self.active.get(name, Resource("", b""))).version
            ):
                self.warming[name] = found
        for name in self._gone(push, {**self.active, **self.warming}):
            self._judge_removal(name)
            self.active.pop(name, None)
            self.warming.pop(name, None)
            self.endpoints.pop(name, None)
        return error

    def _endpoints(self, push: Push) -> None:
        wanted = self._wanted(ASSIGNMENTS)  # Envoy passes over what it does not watch, or no more
        self.endpoints.update({name: one for name, one in push.resources.items() if name in wanted})
        for name in {*push.resources, *push.removed} & self.warming.keys():
            self.active[name] = self.warming.pop(name)

    def _listeners(self, push: Push) -> str | None:
        good = {name: one for name, one in push.resources.items() if not one.payload.startswith(b"bad")}
        self.listeners.update(good)
        for name in self._gone(push, self.listeners):
            del self.listeners[name]
            self.routes.clear()
        return None if len(good) == len(push.resources) else "a listener is bad"

    def _routes(self, push: Push) -> str | None:
        for name, found in push.resources.items():
            if found.payload.startswith(b"bad"):
                return f"{name} is bad"
            self.routes[name] = found
            missing = self._referred() - self.active.keys() - self.doomed
            assert not missing, f"routes to clusters that are not ready: {missing}"
        return None

    def _judge_removal(self, name: str) -> None:
        if self.fresh or self.delta:  # a reconnecting state-of-the-world client cannot say what it has
            assert name not in self._referred() - self.doomed, f"removed {name} while routes lead to it"

    def _referred(self) -> set[str]:
        texts = [one.payload.decode().partition(":")[2] for one in self.routes.values()]
        return {name for text in texts for name in text.split(",") if name}

    def _gone(self, push: Push, has: dict[str, Resource]) -> list[str]:
        return list(push.removed) if self.delta else [name for name in has if name not in push.resources]

    def _has(self, kind: str) -> dict[str, Resource]:
        clusters = {**self.active, **self.warming}
        return {
            CLUSTERS: clusters,
            ASSIGNMENTS: self.endpoints,
            LISTENERS: self.listeners,
            ROUTES: self.routes,
        }[kind]

    def _wanted(self, kind: str) -> set[str]:
        if kind == ROUTES:
            return {TABLE} if self.listeners else set()
        return {*self.active, *self.warming}

    def _subscribe(self, kind: str) -> None:
        wanted, asked = self._wanted(kind), self.asked[kind]
        if wanted == asked:
            return
        self.asked[kind] = wanted
        if not self.delta:
            self.outbox.append(StateRequest(kind, tuple(sorted(wanted)), self.nonces.get(kind, "")))
            return
        first = kind not in self.nonces and not asked
        known = (
            {name: one.version for name, one in self._has(kind).items() if name in wanted} if first else {}
        )
        new, old = sorted(wanted - asked), sorted(asked - wanted)
        self.outbox.append(DeltaRequest(kind, tuple(new), tuple(old), known))

    def _answer(self, kind: str, nonce: str, error: str | None) -> None:
        if self.delta:
            self.outbox.append(DeltaRequest(kind, nonce=nonce, error=error))
        else:
            names = self._wanted(kind) if kind in self.asked else set()
            if kind in self.asked:
                self.asked[kind] = names
            self.outbox.append(StateRequest(kind, tuple(sorted(names)), nonce, error))


class Conversation(RuleBasedStateMachine):
    """The two ends of one stream after another, and all that may happen between them."""

    delta = True

    @initialize(first=snapshots(GOOD))
    def begin(self, first: Snapshot) -> None:
        self.snapshot = first
        self.envoy = ModelEnvoy(delta=self.delta)
        self._open()

    def _open(self) -> None:
        self.held: frozenset[str] = frozenset()
        self.server = StreamState(delta=self.delta)
        self.inbox: deque[Push] = deque()
        self.envoy.connect()

    @rule(snapshot=snapshots(ANY), known=st.booleans())
    def publish(self, snapshot: Snapshot, known: bool) -> None:
        """`known`: what changed is, and need not be found by comparing all."""
        self.snapshot = follows(self.snapshot, snapshot) if known else snapshot

    @rule()
    def routes_wait(self) -> None:
        self.held = frozenset({ROUTES})

    @rule()
    def routes_go_on(self) -> None:
        self.held = frozenset()

    @rule()
    def break_the_stream(self) -> None:
        self.envoy.fresh = False
        self._open()

    @precondition(lambda self: self.envoy.outbox)
    @rule()
    def server_hears(self) -> None:
        self.server.receive(self.envoy.outbox.popleft(), 0.0)

    @rule()
    def server_speaks(self) -> None:
        push = self.server.next_push(self.snapshot, self.held)
        if push is not None:
            self.inbox.append(push)

    @precondition(lambda self: self.inbox)
    @rule()
    def envoy_hears(self) -> None:
        self.envoy.take(self.inbox.popleft())

    @rule()
    def server_speaks_its_mind(self) -> None:
        """All that it may say before it hears an answer, as a fast server does."""
        for _ in range(MESSAGES_MAX):
            push = self.server.next_push(self.snapshot, self.held)
            if push is None:
                return
            self.inbox.append(push)
        raise AssertionError("the server never stops talking")

    def _talk(self, *, eager: bool) -> None:
        """Until both are silent. `eager`: the server speaks before it listens."""
        self.held = frozenset()
        for _ in range(MESSAGES_MAX):
            if eager:
                self.server_speaks_its_mind()
            if self.inbox:
                self.envoy_hears()
            elif self.envoy.outbox:
                self.server_hears()
            else:
                self.server_speaks()
                if not self.inbox:
                    return
        raise AssertionError("the two never stop talking")

    @rule(eager=st.booleans())
    def all_is_said(self, eager: bool) -> None:
        """At rest: each good resource is in force; a refused one is neither sent again nor in the way."""
        self._talk(eager=eager)
        for kind in (CLUSTERS, ASSIGNMENTS, LISTENERS, ROUTES):
            self._good_ones_are_in_force(kind)

    def _good_ones_are_in_force(self, kind: str) -> None:
        has = {**self.envoy.active} if kind == CLUSTERS else self.envoy._has(kind)
        if kind == ROUTES and not self.envoy.listeners:
            return
        for name, found in self.snapshot.collections[kind].resources.items():
            bad_cluster = self.snapshot.collections[CLUSTERS].resources.get(name)
            refused_cluster = bad_cluster is not None and bad_cluster.payload.startswith(b"bad")
            if not found.payload.startswith(b"bad") and not refused_cluster:
                assert has.get(name) == found or has[name].version == found.version, (kind, name)

    @rule(snapshot=snapshots(GOOD), eager=st.booleans())
    def agree(self, snapshot: Snapshot, eager: bool) -> None:
        """With a snapshot that nothing in is refused of, both ends hold exactly the same, and say so."""
        self.snapshot = follows(self.snapshot, snapshot)
        self._talk(eager=eager)
        for kind, collection in self.snapshot.collections.items():
            has = {name: one.version for name, one in self.envoy._has(kind).items()}
            assert has == {name: one.version for name, one in collection.resources.items()}, kind
            subscription = self.server.subscriptions.get(kind)
            assert subscription is None or subscription.acked_version == collection.version
            assert subscription is None or subscription.nack is None
        assert not self.envoy.warming
        self.envoy.fresh = True
        self.envoy.doomed.clear()

    def teardown(self) -> None:
        if hasattr(self, "envoy"):
            self.all_is_said(eager=False)


class StateOfTheWorld(Conversation):
    delta = False


@pytest.mark.parametrize("machine", [Conversation, StateOfTheWorld])
def test_a_model_of_envoy_ends_at_the_snapshot(machine: type[Conversation]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=100, stateful_step_count=30, deadline=None, report_multiple_bugs=False
        ),
    )
