"""What a control plane may not do by what it saw long ago, and what an API server that hangs holds up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp.web
import orjson
import pytest

from tests.kube.words import until
from trimtab.core.clock import SystemClock
from trimtab.core.errors import Conflict, Unreachable
from trimtab.core.names import EndpointName
from trimtab.core.pod import PodPhase
from trimtab.core.revision import Revision, RevisionKey
from trimtab.core.spec import Custom, ModelSpec, Source
from trimtab.fleet.kubernetes import KubernetesFleet, fleet, lives
from trimtab.fleet.kubernetes.holds import LET_GO, Holds
from trimtab.fleet.kubernetes.seen import SeenPod
from trimtab.fleet.kubernetes.template import CONTAINER, GATE, HOLD, TERM_GRACE_S, labels_of, name_of
from trimtab.kube import work

KEY = RevisionKey(EndpointName("team", "iris"), 1)
MODEL = ModelSpec("iris", Source("own"), "custom", custom=Custom(image="own:1"))


class Server:
    """Has one Deployment of a count of 3, and `pods` of it. `hangs`: writes are never answered."""

    def __init__(self) -> None:
        self.applied: list[dict[str, Any]] = []
        self.hangs = False
        self.now, self.changed, self.conflicts = 3, False, 0  # its count, and whether it is another one since
        self.pods: list[dict[str, Any]] = []
        self.refused = ""  # why its pods cannot be made
        self.merged: list[tuple[str, dict[str, Any]]] = []
        self.pod_changed = False  # since it was shown
        self.deleted: list[tuple[str, dict[str, Any] | None]] = []

    async def get(self, path: str, query: Mapping[str, str] | None = None, accept: str = "") -> bytes:
        metadata = {"name": name_of(KEY), "namespace": "team", "labels": labels_of(KEY)}
        metadata |= {"uid": "u", "resourceVersion": "7"}
        if path.endswith(name_of(KEY)):
            return orjson.dumps(
                {"metadata": metadata | {"resourceVersion": "8"}, "spec": {"replicas": self.now}}
            )
        failed = {"type": "ReplicaFailure", "status": "True", "message": self.refused}
        status = {"conditions": [failed]} if self.refused else {}
        deployment = {"metadata": metadata, "spec": {"replicas": 3}, "status": status}
        items = [deployment] if path.endswith("deployments") else self.pods
        return orjson.dumps({"metadata": {"resourceVersion": "9"}, "items": items})

    @asynccontextmanager
    async def stream(
        self, path: str, query: Mapping[str, str], read_timeout_s: float
    ) -> AsyncIterator[asyncio.StreamReader]:
        yield asyncio.StreamReader()

    async def create(self, path: str, body: dict[str, Any], query: Mapping[str, str] | None = None) -> bytes:
        await self._answered()
        return b"{}"

    async def merge(self, path: str, body: dict[str, Any]) -> bytes:
        if self.pod_changed and "/pods/" in path:
            self.conflicts += 1
            raise Conflict("it changed meanwhile")
        self.merged.append((path, body))
        return orjson.dumps({"metadata": {"resourceVersion": "9"}})

    async def delete(self, path: str, body: dict[str, Any] | None = None) -> None:
        self.deleted.append((path, body))

    async def apply(self, path: str, body: dict[str, Any]) -> bytes:
        if self.changed and body["metadata"]["resourceVersion"] == "7":
            self.conflicts += 1
            raise Conflict("it changed meanwhile")
        self.applied.append(body)
        return b"{}"

    def guard(self) -> None:
        """It leads."""

    async def _answered(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def opened(server: Server) -> AsyncIterator[KubernetesFleet]:
    made = KubernetesFleet(server, SystemClock(), {})  # type: ignore[arg-type]
    await made.open()
    yield made
    await made.close()


async def test_a_count_is_written_to_what_it_was_decided_on(server: Server, opened: KubernetesFleet) -> None:
    await opened.start_pod(Revision(KEY, MODEL, "hash", 0.0))
    await until(lambda: server.applied)
    assert server.applied[0]["spec"] == {"replicas": 4}
    named = server.applied[0]["metadata"]
    assert (named["uid"], named["resourceVersion"]) == ("u", "7")


async def test_a_status_that_changed_meanwhile_holds_up_no_count(
    server: Server, opened: KubernetesFleet
) -> None:
    server.changed = True
    await opened.start_pod(Revision(KEY, MODEL, "hash", 0.0))
    await until(lambda: server.applied)
    assert server.applied[0]["metadata"]["resourceVersion"] == "8"


async def test_a_count_that_another_one_wrote_meanwhile_is_left(
    server: Server, opened: KubernetesFleet
) -> None:
    server.changed, server.now = True, 9
    await opened.start_pod(Revision(KEY, MODEL, "hash", 0.0))
    await until(lambda: server.conflicts)
    for _ in range(20):
        await asyncio.sleep(0)  # so that it would have been written
    assert server.applied == []


async def test_an_api_server_that_hangs_is_waited_for_a_moment_only(
    server: Server, opened: KubernetesFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "ANSWER_WITHIN_S", 0.05, raising=False)
    server.hangs = True
    another = Revision(RevisionKey(KEY.endpoint, 2), MODEL, "hash", 0.0)
    async with asyncio.timeout(20):
        with pytest.raises(Unreachable, match=r"has not answered within.*\n?.*"):
            await opened.start_pod(another)
    assert [pod for pod in opened.pods() if pod.revision == another.key] == []


async def test_a_pod_that_hangs_is_reported_as_failed(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the fleet's own looks; the kubelet is content with it."""
    asked: list[str] = []

    async def answer(request: aiohttp.web.BaseRequest) -> aiohttp.web.Response:
        asked.append(request.path_qs)
        return aiohttp.web.Response(status=503, text="a prediction has run for 99 s")

    monkeypatch.setattr(lives, "LOOK_EACH_S", 0.01)
    runner = aiohttp.web.ServerRunner(aiohttp.web.Server(answer))
    await runner.setup()
    await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
    metadata = {"name": "iris-r1-x", "namespace": "team", "labels": labels_of(KEY)}
    metadata["creationTimestamp"] = "2026-01-01T00:00:00Z"
    ready = {"status": "True", "lastTransitionTime": "2026-01-01T00:00:09Z"}
    conditions = [{"type": name} | ready for name in ("ContainersReady", GATE)]
    port = {"name": "http", "containerPort": runner.addresses[0][1]}
    server.pods = [
        {
            "metadata": metadata,
            "spec": {"containers": [{"name": CONTAINER, "ports": [port]}]},
            "status": {"podIP": "127.0.0.1", "conditions": conditions},
        }
    ]
    made = KubernetesFleet(server, SystemClock(), {}, request_timeout_s=lambda _: 20.0)  # type: ignore[arg-type]
    await made.open()
    try:
        await until(lambda: PodPhase.FAILED in {pod.phase for pod in made.pods()})
        assert made.pods()[0].cause == "it hangs: a prediction has run for 99 s"
        assert set(asked) == {"/health/live?within=35"}
    finally:
        await made.close()
        await runner.cleanup()


async def test_a_part_that_breaks_is_told(opened: KubernetesFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[str]:
        raise RuntimeError("a slip of ours")

    monkeypatch.setattr(opened._usage, "_due", broken)
    async with asyncio.timeout(20):
        with pytest.raises(ExceptionGroup, match="unhandled errors") as told:
            await opened.ended()
    assert told.group_contains(RuntimeError, match="a slip of ours")


def taken_away(name: str) -> dict[str, Any]:
    """A pod on a node that is dead: it is held, and was told to go."""
    metadata = {"name": name, "namespace": "team", "labels": labels_of(KEY), "resourceVersion": "8"}
    metadata |= {"creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": "2026-01-01T01:00:00Z"}
    status = {
        "podIP": "10.1.0.2",
        "conditions": [{"type": GATE, "status": "False"}],
        "containerStatuses": [{"name": CONTAINER, "state": {"running": {}}}],
    }
    return {"metadata": metadata, "spec": {"initContainers": [{"name": HOLD}]}, "status": status}


async def test_pods_that_do_not_answer_are_waited_for_at_once(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = asyncio.Barrier(3)

    async def directly(self: Holds, pod: SeenPod, what: str) -> bool:
        async with together:
            return True

    monkeypatch.setattr(Holds, "_directly", directly)
    server.pods = [taken_away(name) for name in ("a", "b", "c")]
    made = KubernetesFleet(server, SystemClock(), {})  # type: ignore[arg-type]
    await made.open()
    try:
        await made.start_pod(Revision(KEY, MODEL, "hash", 0.0))
        await until(lambda: server.applied, within_s=20)
    finally:
        await made.close()


def marks(server: Server) -> list[tuple[str, dict[str, Any]]]:
    return [each for each in server.merged if "/pods/" in each[0]]


async def test_a_pod_is_marked_only_as_it_was_decided_on(server: Server) -> None:
    """Who decided long ago, stopped since, takes nothing of what another control plane serves with."""
    pod = taken_away("a")
    del pod["metadata"]["deletionTimestamp"]
    answers = {"status": "True", "lastTransitionTime": "2026-01-01T00:00:09Z"}
    pod["status"]["conditions"] = [{"type": each} | answers for each in ("ContainersReady", GATE)]
    server.pods, server.pod_changed = [pod], True
    made = KubernetesFleet(server, SystemClock(), {})  # type: ignore[arg-type]
    await made.open()
    try:
        await made.stop_pod("team/a", 0.0)
        await until(lambda: server.conflicts)
        assert marks(server) == []
        server.pod_changed, pod["metadata"]["resourceVersion"] = False, "10"
        made._pod_mirror._take({"type": "MODIFIED", "object": pod}, "")
        await until(lambda: len(marks(server)) == 2)
        (_, marked), (path, gate) = marks(server)
        assert marked["metadata"]["resourceVersion"] == "10"
        assert path.endswith("/pods/a/status")
        assert gate["metadata"] == {"resourceVersion": "9"}, "as the mark has left it"
        assert gate["status"]["conditions"][0]["status"] == "False"
    finally:
        await made.close()


@pytest.mark.parametrize("hears", [True, False])
async def test_a_pod_whose_gate_was_never_set_is_let_go_too(
    server: Server, monkeypatch: pytest.MonkeyPatch, hears: bool
) -> None:
    """Whoever told it to hold was killed, or gave up waiting for the answer, before the gate said so.

    It is hurried also where what holds it does not answer: it would have minutes else.
    """
    told: list[tuple[str, str]] = []

    async def directly(self: Holds, pod: SeenPod, what: str) -> bool:
        told.append((pod.name, what))
        return hears

    async def refused(*_: object) -> bytes:
        raise Unreachable("connection refused")

    monkeypatch.setattr(Holds, "_directly", directly)
    if not hears:
        monkeypatch.setattr(server, "create", refused)
    pod = taken_away("a")
    pod["status"]["conditions"] = []
    server.pods = [pod]
    made = KubernetesFleet(server, SystemClock(), {})  # type: ignore[arg-type]
    await made.open()
    try:
        await until(lambda: server.deleted)
        assert told[0] == ("a", LET_GO)
        path, how = server.deleted[0]
        assert path.endswith("/pods/a")
        assert how == {"gracePeriodSeconds": TERM_GRACE_S}, "its server may not have heard of its end"
    finally:
        await made.close()


async def test_a_pod_that_is_taken_back_before_its_server_began_is_waited_for_by_nobody(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that has served and fell is given its time: callers may be waiting for it."""

    async def directly(self: Holds, pod: SeenPod, what: str) -> bool:
        raise AssertionError("there is nothing to be told")

    monkeypatch.setattr(Holds, "_directly", directly)
    early, fell = taken_away("early"), taken_away("fell")
    for pod in (early, fell):
        pod["status"]["containerStatuses"][0]["state"] = {"waiting": {"reason": "PodInitializing"}}
    early["status"]["conditions"] = []
    server.pods = [fell, early]
    made = KubernetesFleet(server, SystemClock(), {})  # type: ignore[arg-type]
    await made.open()
    try:
        await until(lambda: server.deleted and server.merged)
        (told,) = server.deleted
        assert told[0].endswith("/pods/early")
        assert told[1] == {"gracePeriodSeconds": 1}
    finally:
        await made.close()


class Guarded:
    """A connection of one who leads no more."""

    def __init__(self) -> None:
        self.created: list[str] = []

    def guard(self) -> None:
        raise Unreachable("was not renewed for 60 s: another may lead")

    async def create(self, path: str, body: dict[str, Any]) -> bytes:
        self.created.append(path)
        return b"{}"


@pytest.mark.parametrize("what", ["serves", "let_go"])
async def test_who_leads_no_more_tells_pods_nothing(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    async def directly(self: Holds, pod: SeenPod, what: str) -> bool:
        told.append(what)
        return True

    monkeypatch.setattr(Holds, "_directly", directly)
    holds = Holds(Guarded())  # type: ignore[arg-type]
    with pytest.raises(Unreachable, match="another may lead"):
        await getattr(holds, what)(SeenPod("a", KEY, 0.0, host="10.1.0.2", can_hold=True))
    assert told == []


class Cluster:
    """One Deployment, as an API server keeps it: each write is another version, told to all who watch."""

    def __init__(self) -> None:
        self.counts = [3]  # one after the other
        self.version = 7
        self.watchers: list[asyncio.StreamReader] = []

    def deployment(self) -> dict[str, Any]:
        metadata = {"name": name_of(KEY), "namespace": "team", "labels": labels_of(KEY), "uid": "u"}
        return {
            "metadata": metadata | {"resourceVersion": str(self.version)},
            "spec": {"replicas": self.counts[-1]},
        }

    def put(self, body: dict[str, Any]) -> None:
        if body["metadata"]["resourceVersion"] != str(self.version):
            raise Conflict("it changed meanwhile")
        self.version += 1
        self.counts.append(body["spec"]["replicas"])
        event = orjson.dumps({"type": "MODIFIED", "object": self.deployment()}) + b"\n"
        for watcher in self.watchers:
            watcher.feed_data(event)


class Connection(Server):
    """Of one control plane to a cluster. `hears`: its watches tell of changes. `leads`: it has the Lease."""

    def __init__(self, cluster: Cluster, *, hears: bool, leads: bool) -> None:
        super().__init__()
        self.cluster = cluster
        self.hears = hears
        self.leads = leads
        self.tried = 0

    async def get(self, path: str, query: Mapping[str, str] | None = None, accept: str = "") -> bytes:
        if path.endswith(name_of(KEY)):
            return orjson.dumps(self.cluster.deployment())
        items = [self.cluster.deployment()] if path.endswith("deployments") else []
        return orjson.dumps({"metadata": {"resourceVersion": str(self.cluster.version)}, "items": items})

    @asynccontextmanager
    async def stream(
        self, path: str, query: Mapping[str, str], read_timeout_s: float
    ) -> AsyncIterator[asyncio.StreamReader]:
        reader = asyncio.StreamReader()
        if self.hears and path.endswith("deployments"):
            self.cluster.watchers.append(reader)
        yield reader

    async def apply(self, path: str, body: dict[str, Any]) -> bytes:
        self.tried += 1
        self.guard()  # as `Api` does before each write
        self.cluster.put(body)
        return b"{}"

    def guard(self) -> None:
        if not self.leads:
            raise Unreachable("was not renewed for 60 s: another may lead")


@pytest.mark.parametrize(
    ("hears", "leads"),
    [(False, True), (True, False)],
    ids=["one that believes it leads, by what it saw long ago", "one that hears of all, and leads no more"],
)
async def test_two_that_want_different_counts_do_not_make_pods_flap(
    hears: bool, leads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often the other one tries, the count is what the one that leads has made it."""
    monkeypatch.setattr(work, "RETRY_FIRST_S", 0.001)
    cluster = Cluster()
    one = Connection(cluster, hears=True, leads=True)
    other = Connection(cluster, hears=hears, leads=leads)
    fleets = [KubernetesFleet(each, SystemClock(), {}) for each in (one, other)]  # type: ignore[arg-type]
    for each in fleets:
        await each.open()
    try:
        await fleets[0].start_pod(Revision(KEY, MODEL, "hash", 0.0))
        await until(lambda: cluster.counts == [3, 4])
        for tries in range(1, 6):
            await fleets[1].start_pod(Revision(KEY, MODEL, "hash", 0.0))
            await until(lambda tries=tries: other.tried >= tries)  # type: ignore[misc]
        await fleets[0].start_pod(Revision(KEY, MODEL, "hash", 0.0))
        await until(lambda: cluster.counts[-1] == 5)
    finally:
        for each in fleets:
            await each.close()
    assert cluster.counts == [3, 4, 5]


def asked_again(server: Server) -> list[str]:
    return [path for path, body in server.merged if fleet.ASKED_AGAIN in str(body)]


async def test_pods_that_are_refused_are_blocked_and_asked_for_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its ReplicaSet by itself would wait twice as long after each refusal."""
    monkeypatch.setattr(fleet, "ASK_AGAIN_EACH_S", 0.01)
    server.refused = "exceeded quota: team"
    made = KubernetesFleet(server, SystemClock(), {})  # type: ignore[arg-type]
    await made.open()
    try:
        assert [(pod.phase, pod.blocked) for pod in made.pods()] == [(PodPhase.STARTING, True)] * 3
        assert made.room(Revision(KEY, MODEL, "hash", 0.0)).why.startswith("the namespace `team`: exceeded")
        await until(lambda: len(asked_again(server)) > 2)
        assert {path.rpartition("/")[2] for path in asked_again(server)} == {name_of(KEY)}
    finally:
        await made.close()


async def test_a_service_account_that_somebody_took_away_is_made_anew_before(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "ASK_AGAIN_EACH_S", 0.01)
    server.refused = 'pods "x" is forbidden: error looking up service account team/trimtab-iris: not found'
    made = KubernetesFleet(server, SystemClock(), {})  # type: ignore[arg-type]
    await made.open()
    try:
        assert "it is made anew within a minute" in made.room(Revision(KEY, MODEL, "hash", 0.0)).why
        await until(lambda: len(asked_again(server)) > 2)
        paths = [path.rpartition("/")[2] for path, _ in server.merged]
        before = {*paths[: paths.index(name_of(KEY))]}
        _, between, _ = " ".join(paths).split(name_of(KEY), 3)[:3]
        assert before == {*between.split()} == {"trimtab-iris"}
    finally:
        await made.close()


async def test_nobody_asks_again_for_what_is_not_refused(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "ASK_AGAIN_EACH_S", 0.0)
    made = KubernetesFleet(server, SystemClock(), {})  # type: ignore[arg-type]
    await made.open()
    try:
        assert [pod.blocked for pod in made.pods()] == [False] * 3
        for _ in range(20):
            await asyncio.sleep(0)
        assert asked_again(server) == []
    finally:
        await made.close()
