"""A control plane without processes: a fleet and an Envoy that do what the test says, and a clock by hand."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from envoy_data_plane.envoy.config.core.v3 import HealthStatus
from envoy_data_plane.envoy.config.endpoint.v3 import ClusterLoadAssignment
from envoy_data_plane.envoy.config.route.v3 import RouteConfiguration

from trimtab.control.endpoints import Endpoints
from trimtab.control.environments import OwnEnvironment
from trimtab.control.home import Home
from trimtab.control.metrics import Metrics
from trimtab.control.observations import Observations
from trimtab.control.options import Started
from trimtab.control.platform import Platform
from trimtab.control.reconcile import Reconciler
from trimtab.control.scaling import Scaling
from trimtab.control.scrape import Scraper
from trimtab.control.servable import on_this_machine
from trimtab.control.sqlite import SqliteStore
from trimtab.core.clock import ManualClock
from trimtab.core.errors import Exhausted
from trimtab.core.names import EndpointName
from trimtab.core.pod import Pod, PodPhase
from trimtab.core.revision import Revision, RevisionKey
from trimtab.core.signals import PodSignal, PodsSignal, RevisionSignal
from trimtab.core.spec import ConcurrencyRange, EndpointSpec, ModelSpec, Source, with_defaults
from trimtab.envoy.process import EnvoyStatus
from trimtab.fleet.protocol import Room, by_endpoint
from trimtab.xds.kinds import ADDITION_ORDER, ASSIGNMENTS, ROUTES
from trimtab.xds.server import NodeStatus, TypeStatus
from trimtab.xds.snapshot import Snapshot
from trimtab.xds.world import Gateway, revision_of

IRIS = EndpointName("default", "iris")
ALIVE = (PodPhase.STARTING, PodPhase.READY)
NODE = "envoy-1"


class Killed(BaseException):
    """The control plane was killed here: nothing of it may run any more."""


class Steps:
    """Counts the instructions with an effect; raises Killed before the one that `kill_in` named."""

    def __init__(self) -> None:
        self.taken = 0
        self.left: int | None = None

    def kill_in(self, steps: int | None) -> None:
        self.left = steps

    def __call__(self) -> None:
        self.taken += 1
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.left = None
                raise Killed


class KillableStore(SqliteStore):
    """The real store, without waiting for the disk; each statement may be the last."""

    def __init__(self, home: Path, step: Steps) -> None:
        self._step = lambda: None
        super().__init__(home)
        self._db.execute("PRAGMA synchronous = OFF")
        self._step = step

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with super().transaction():
            yield
        self._step()

    def _run(self, query: str, *values: Any) -> None:
        self._step()
        super()._run(query, *values)
        if not self._db.in_transaction:
            self._step()


class FakeFleet:
    """Pods that start, fail and end when `tick` is called, as their model's URI tells.

    `bad` in it: the start fails at once. `slow`: it never gets ready.
    """

    def __init__(self, clock: ManualClock, step: Steps) -> None:
        self.changed = asyncio.Event()
        self.clock = clock
        self.step = step
        self.there: dict[str, Pod] = {}
        self.uris: dict[str, str] = {}
        self.started: list[str] = []
        self.stopped: list[str] = []
        self.forgotten: list[str] = []
        self.room_pods: int | None = None
        self.refuse: Exception | None = None  # what the next starts raise
        self.logs: dict[str, tuple[str, ...]] = {}
        self.news: asyncio.Queue[str | Exception | None] = asyncio.Queue()  # for who follows a log
        self.on_start: Callable[[Revision], None] = lambda revision: None
        self.on_stop: Callable[[Pod], None] = lambda pod: None
        self._numbers = itertools.count(1)
        self._began_s: dict[str, float] = {}  # by the monotonic clock

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    def pods(self) -> tuple[Pod, ...]:
        return tuple(self._aged(pod) for pod in self.there.values())

    def by_endpoint(self) -> dict[EndpointName, tuple[Pod, ...]]:
        return by_endpoint(self.pods())

    def _aged(self, pod: Pod) -> Pod:
        if pod.phase is not PodPhase.STARTING:
            return pod
        return replace(pod, start_time_s=self.clock.now_s() - self._began_s[pod.id])

    def alive(self, number: int, endpoint: EndpointName = IRIS) -> list[Pod]:
        key = RevisionKey(endpoint, number)
        return [pod for pod in self.pods() if pod.revision == key and pod.phase in ALIVE]

    async def start_pod(self, revision: Revision) -> str:
        self.step()
        await asyncio.sleep(0)
        if self.refuse is not None:
            raise self.refuse
        if self.room_pods == 0:
            raise Exhausted("this machine has no memory left", hint="stop something")
        self.on_start(revision)
        index = next(self._numbers)
        pod_id = f"{revision.key.endpoint}-r{revision.key.number}-{index}"
        pod = Pod(
            pod_id,
            revision.key,
            PodPhase.STARTING,
            "127.0.0.1",
            20_000 + index,
            index,
            self.clock.wall_s() + 0.001,  # a little after the look that wanted it
        )
        self.there[pod_id], self.uris[pod_id] = pod, revision.model.source.uri
        self._began_s[pod_id] = self.clock.now_s()
        self.started.append(pod_id)
        if self.room_pods is not None:
            self.room_pods -= 1
        self.step()
        return pod_id

    async def stop_pod(self, pod_id: str, grace_s: float) -> None:
        self.step()
        await asyncio.sleep(0)
        pod = self.there.get(pod_id)
        if pod is not None and pod.phase in ALIVE:
            self.on_stop(pod)
            self.stopped.append(pod_id)
            self.there[pod_id] = replace(pod, phase=PodPhase.STOPPING)
        self.step()

    async def forget_pod(self, pod_id: str) -> None:
        self.step()
        if self.there.pop(pod_id, None) is not None:
            self.forgotten.append(pod_id)
        self.step()

    def room(self, revision: Revision) -> Room:
        return Room(self.room_pods, "" if self.room_pods is None else "this machine's memory")

    def log_tail(self, pod_id: str, lines: int) -> tuple[str, ...]:
        return self.logs.get(pod_id, ("the last words",))[-lines:]

    def prune_logs(self, keep: frozenset[EndpointName], dry_run: bool) -> tuple[tuple[str, ...], int]:
        gone = tuple(name for name in self.logs if EndpointName.parse(name.rpartition("-r")[0]) not in keep)
        if not dry_run:
            self.logs = {name: lines for name, lines in self.logs.items() if name not in gone}
        return gone, 10 * len(gone)

    async def follow_log(
        self, revision: RevisionKey, lines: int, follow: bool
    ) -> AsyncIterator[tuple[str, str]]:
        for pod in self.pods():
            if pod.revision == revision:
                for line in self.log_tail(pod.id, lines):
                    yield pod.id, line
        while follow:
            news = await self.news.get()
            if isinstance(news, Exception):
                raise news
            if news is None:
                return
            yield "news", news

    # what happens out there

    def tick(self) -> None:
        """Each starting pod gets ready or fails, each stopping one ends."""
        now_s = self.clock.wall_s()
        for pod in self.pods():
            if pod.phase is PodPhase.STOPPING:
                del self.there[pod.id]
            elif pod.phase is PodPhase.STARTING and "bad" in self.uris[pod.id]:
                self.fail(pod.id, "the model cannot be loaded")
            elif pod.phase is PodPhase.STARTING and "slow" not in self.uris[pod.id]:
                self.there[pod.id] = replace(pod, phase=PodPhase.READY, ready_at_s=now_s)

    def fail(self, pod_id: str, cause: str = "was killed by signal 9") -> None:
        failed = self._aged(self.there[pod_id])
        self.there[pod_id] = replace(failed, phase=PodPhase.FAILED, cause=cause)


@dataclass(frozen=True)
class Told:
    """A snapshot as read from its bytes: `host:port` → draining, of each revision; who serves whom."""

    backends: dict[RevisionKey, dict[str, bool]]
    serving: dict[EndpointName, int]

    @classmethod
    def of(cls, snapshot: Snapshot) -> Told:
        backends = {}
        for name, resource in snapshot.collections[ASSIGNMENTS].resources.items():
            key = revision_of(name)
            if key is not None:
                backends[key] = _backends(resource.payload)
        table = next(iter(snapshot.collections[ROUTES].resources.values()))
        return cls(backends, _serving(table.payload))


@lru_cache(maxsize=1_000)
def _backends(payload: bytes) -> dict[str, bool]:
    found = {}
    for locality in ClusterLoadAssignment.parse(payload).endpoints:
        for pod in locality.lb_endpoints:
            address = pod.endpoint.address.socket_address
            at = f"{address.address}:{address.port_value}"
            found[at] = pod.health_status is HealthStatus.DRAINING
    return found


@lru_cache(maxsize=1_000)
def _serving(payload: bytes) -> dict[EndpointName, int]:
    found = {}
    for host in RouteConfiguration.parse(payload).virtual_hosts:
        clusters = {route.route.cluster for route in host.routes if route.route and route.route.cluster}
        for key in filter(None, map(revision_of, clusters)):
            found[key.endpoint] = key.number
    return found


class FakeEnvoy:
    """What an Envoy does with what it is told, when `take` is called. It outlives control planes."""

    def __init__(self) -> None:
        self.connected = True
        self.snapshot: Snapshot | None = None
        self.publications = 0
        self.news_at_s: float | None = None  # as it was said with the last one
        self.nack = ""
        self.assignments: dict[RevisionKey, dict[str, bool]] = {}
        self.routes: dict[EndpointName, int] = {}
        self.acked: dict[str, str] = {}
        self.on_publish: Callable[[Told], None] = lambda told: None

    def take(self, *kinds: str) -> None:
        """Apply and acknowledge what was published last: of these types, by default of all."""
        if not self.connected or self.snapshot is None:
            return
        told = Told.of(self.snapshot)
        for kind in kinds or ADDITION_ORDER:
            if kind == ASSIGNMENTS:
                self.assignments = told.backends
            elif kind == ROUTES:
                self.routes = told.serving
            self.acked[kind] = self.snapshot.version(kind)

    def leave(self) -> None:
        """The stream ends; Envoy serves on with what it has."""
        self.connected, self.acked = False, {}

    def backends(self, name: EndpointName = IRIS) -> dict[str, str]:
        """`host:port` → `ready` or `draining`, of all revisions, as Envoy has applied them."""
        return {
            at: "draining" if draining else "ready"
            for key, backends in self.assignments.items()
            for at, draining in backends.items()
            if key.endpoint == name
        }

    def serving(self, name: EndpointName = IRIS) -> int:
        """The revision that Envoy routes to; 0 for none."""
        return self.routes.get(name, 0)

    # the ADS server's side

    def publish(self, snapshot: Snapshot, news_at_s: float | None = None) -> None:
        self.snapshot = snapshot
        self.news_at_s = news_at_s
        self.publications += 1
        self.on_publish(Told.of(snapshot))

    def nodes(self) -> tuple[NodeStatus, ...]:
        types = (TypeStatus(ROUTES, "2", "1", self.nack, 5.0),) if self.nack else ()
        return (NodeStatus(NODE, self.connected, 0.0, types),)

    def any_refused(self) -> bool:
        return bool(self.nack)

    def connected_nodes(self) -> set[str]:
        return {NODE} if self.connected else set()

    def away(self, within_s: float) -> set[str]:
        return set()  # of the only one `connected` tells

    def acknowledged(self, kind: str, version: str) -> bool:
        return not self.connected or self.acked.get(kind) == version


class Plane:
    """One home: a store, a fleet and an Envoy that stay, and a control plane that may be killed."""

    def __init__(self, home: Path, down_window_s: float | None = None) -> None:
        self.home = home
        self.clock = ManualClock()
        self.step = Steps()
        self.fleet = FakeFleet(self.clock, self.step)
        self.envoy = FakeEnvoy()
        self.load: dict[EndpointName, float] = {}  # concurrent requests
        self.in_flight: dict[str, int] = {}  # by address, of those that do not answer
        self.pod_news: dict[RevisionKey, tuple[PodSignal, ...]] = {}  # until the autoscaler takes them
        self.down_window_s = down_window_s
        self.store: KillableStore | None = None
        self.start()

    def start(self) -> None:
        """A new control plane on what is there."""
        self.store = KillableStore(self.home, self.step)
        self.metrics = Metrics()
        self.observations = Observations()
        self.endpoints = Endpoints(self.store, self.clock, on_this_machine(lambda digest: True))
        self.scaling = Scaling(
            self.observations,
            self.store,
            self.clock,
            self.metrics,
            down_window_s=self.down_window_s,
            pod_signals=lambda key: self.pod_news.pop(key, ()),
        )
        gateway = Gateway("127.0.0.1", 8080)
        self.reconciler = Reconciler(
            self.endpoints,
            self.fleet,
            self.envoy,
            self.observations,
            self.scaling,
            gateway,
            self.clock,
            self.metrics,
            OwnEnvironment(),
        )

    def kill(self) -> None:
        """SIGKILL: what was in memory is lost, and Envoy's stream breaks."""
        self.close()
        self.step.kill_in(None)
        self.envoy.leave()
        self.envoy.snapshot = None

    def close(self) -> None:
        if self.store is not None:
            self.store.close()
            self.store = None

    def apply(self, spec: EndpointSpec, name: EndpointName = IRIS) -> None:
        self.endpoints.apply(name, spec, by="ann")
        self.reconciler.spec_changed(name)

    def flush(self) -> None:
        """Envoy's statistics of the last second."""
        if not self.envoy.connected:
            return
        now_s = self.clock.now_s()
        revisions, pods = [], dict[str, int]()
        for key, backends in self.envoy.assignments.items():
            serves = key.number == self.envoy.serving(key.endpoint)
            revisions.append(_signal(key, now_s, self.load.get(key.endpoint, 0.0) if serves else 0.0))
            pods |= {address: self.in_flight.get(address, 0) for address in backends}
        self.observations.add(tuple(revisions), PodsSignal(NODE, now_s, pods), ())
        self.reconciler.saw_requests()

    async def look(self, times: int = 1) -> None:
        for _ in range(times):
            await self.reconciler.look()

    async def seconds(self, count: int = 1) -> None:
        """Time passes, everybody does what they should."""
        for _ in range(count):
            self.clock.advance(1.0)
            self.fleet.tick()
            self.envoy.take()
            self.flush()
            await self.look()

    async def until(self, condition: Callable[[], Any], within_s: int = 60) -> None:
        for _ in range(within_s):
            if condition():
                return
            await self.seconds()
        assert condition(), "it did not become true in time"

    def record(self, name: EndpointName = IRIS) -> Any:
        return self.endpoints.get(name)

    def phases(self, number: int, name: EndpointName = IRIS) -> list[str]:
        key = RevisionKey(name, number)
        return [pod.phase.value for pod in self.fleet.pods() if pod.revision == key]


def _signal(key: RevisionKey, at_s: float, load: float) -> RevisionSignal:
    """One second of requests that take 0.1 s each."""
    rate = int(load * 10)
    return RevisionSignal(key, NODE, at_s, 1.0, rate, rate, 0, 0, int(load), 0, rate * 0.1)


def make_spec(
    version: int | str = 1, low: int = 1, high: int = 64, name: str = "iris", **other: Any
) -> EndpointSpec:
    source = Source(f"models:/{name}/{version}", version=str(version), digest=f"sha256:{name}-{version}")
    model = ModelSpec("", source, concurrency=ConcurrencyRange(low, high))
    return replace(with_defaults(name, EndpointSpec((model,))), **other)


@pytest.fixture(scope="session")
def iris() -> EndpointName:
    return IRIS


@pytest.fixture(scope="session")
def spec() -> Callable[..., EndpointSpec]:
    """A spec by its version: `bad` ones fail to start, `slow` ones never get ready."""
    return make_spec


@pytest.fixture(scope="session")
def killed() -> type[BaseException]:
    return Killed


@dataclass
class FakeProcess:
    """What the supervisor of Envoy and the intake of its statistics tell."""

    node: str = NODE
    running: bool = True
    restarts: int = 0
    age: float | None = 0.5

    def status(self) -> EnvoyStatus:
        return EnvoyStatus(42 if self.running else None, self.running, self.restarts, "1.40.0")

    def age_s(self, node: str) -> float | None:
        return self.age


def make_platform(plane: Plane, process: FakeProcess | None = None) -> Platform:
    """The real platform around a plane's parts."""
    process = process or FakeProcess()
    home = Home.open(plane.home)
    started = Started(1, "0", "127.0.0.1:8080", "127.0.0.1:9", str(home.control_socket))
    return Platform(
        home,
        started,
        plane.endpoints,
        plane.fleet,
        plane.reconciler,
        plane.observations,
        Scraper(plane.fleet, plane.clock),
        plane.envoy,
        process,
        process,
        plane.clock,
        plane.metrics,
        OwnEnvironment(),
        api_keys=False,
    )


@pytest.fixture
def process() -> FakeProcess:
    return FakeProcess()


@pytest.fixture
def platform(plane: Plane, process: FakeProcess) -> Platform:
    return make_platform(plane, process)


@pytest.fixture(scope="session")
def new_plane() -> Callable[..., Plane]:
    return Plane


@pytest.fixture
def plane(tmp_path: Path, new_plane: Callable[..., Plane]) -> Iterator[Plane]:
    made = new_plane(tmp_path)
    yield made
    made.close()
