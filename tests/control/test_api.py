"""The control API over a real Unix socket, as its clients use it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Any

import grpc
import pytest

from trimtab.control import codec
from trimtab.control import platform as platform_module
from trimtab.control.api import GRACE_MAX_S, LIST_MAX, LOG_LINES_MAX, ControlApi
from trimtab.control.changes import LocalChanges
from trimtab.control.records import Outcome
from trimtab.control.wire_errors import from_rpc
from trimtab.core.errors import Conflict, Failed, InvalidInput, NotFound, TrimtabError
from trimtab.core.names import EndpointName
from trimtab.source import cache
from trimtab.v1 import control_pb2 as v1
from trimtab.v1.control_pb2_grpc import ControlStub, add_ControlServicer_to_server

IRIS = EndpointName("default", "iris")
REF = v1.EndpointRef(name="iris")
ELSEWHERE = v1.EndpointRef(namespace="team-b", name="iris")
WITHIN_S = 30.0
Spec = Callable[..., Any]


@pytest.fixture
async def stub(plane: Any, platform: Any) -> AsyncIterator[Any]:
    api = ControlApi(
        plane.endpoints,
        plane.store,
        plane.fleet,
        plane.reconciler,
        platform,
        plane.clock,
        LocalChanges(plane.endpoints),
    )
    server = grpc.aio.server()
    add_ControlServicer_to_server(api, server)
    address = f"unix:{platform._home.control_socket}"
    server.add_insecure_port(address)
    await server.start()
    async with grpc.aio.insecure_channel(address) as channel:
        yield ControlStub(channel)
    await server.stop(grace=None)


@pytest.fixture
def call(stub: Any) -> Callable[..., Any]:
    """One call by name; a refusal comes as the error that the server meant."""

    async def one(method: str, request: Any) -> Any:
        try:
            answer = getattr(stub, method)(request, timeout=WITHIN_S)
            return [each async for each in answer] if hasattr(answer, "read") else await answer
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error.code(), error.details() or "", error.trailing_metadata()) from error

    return one


def wire(spec: Any) -> v1.Spec:
    return codec.spec_to_proto(spec)


async def served(plane: Any, call: Any, spec: Any, **other: Any) -> v1.Endpoint:
    await call("ApplyEndpoint", v1.ApplyEndpointRequest(ref=REF, spec=wire(spec), by="ann", **other))
    await plane.until(lambda: plane.record().outcome is Outcome.SERVING)
    return await call("GetEndpoint", v1.GetEndpointRequest(ref=REF))


async def refused(kind: type[TrimtabError], answer: Any) -> TrimtabError:
    with pytest.raises(TrimtabError) as caught:
        await answer
    assert type(caught.value) is kind
    assert caught.value.hint
    return caught.value


async def test_create_get_list_update_and_delete(plane: Any, call: Any, spec: Spec) -> None:
    made = await call("CreateEndpoint", v1.CreateEndpointRequest(ref=REF, spec=wire(spec(1)), by="ann"))
    assert (made.generation, made.status.state, made.ref.namespace) == (1, v1.DEPLOYING, "default")
    assert plane.reconciler.wake.is_set(), "the loop looks at once"
    await plane.until(lambda: plane.record().outcome is Outcome.SERVING)
    found = await call("GetEndpoint", v1.GetEndpointRequest(ref=REF))
    assert (found.status.state, found.status.url) == (
        v1.READY,
        "http://127.0.0.1:8080/serving-endpoints/iris/invocations",
    )
    request = v1.UpdateEndpointRequest(ref=REF, spec=wire(spec(2)), expected_generation=1, by="bob")
    assert (await call("UpdateEndpoint", request)).generation == 2
    other = v1.EndpointRef(name="iris", namespace="team")
    await call("CreateEndpoint", v1.CreateEndpointRequest(ref=other, spec=wire(spec(1))))
    everything = await call("ListEndpoints", v1.ListEndpointsRequest())
    assert [(e.ref.namespace, e.ref.name) for e in everything.endpoints] == [
        ("default", "iris"),
        ("team", "iris"),
    ]
    some = await call("ListEndpoints", v1.ListEndpointsRequest(namespace="team"))
    assert [e.status.url for e in some.endpoints] == [
        "http://127.0.0.1:8080/serving-endpoints/iris.team/invocations"
    ]
    for _ in range(2):  # every call may be repeated
        await call("DeleteEndpoint", v1.DeleteEndpointRequest(ref=REF))
    assert (await call("GetEndpoint", v1.GetEndpointRequest(ref=REF))).status.state == v1.DELETING
    await plane.until(lambda: len(plane.endpoints.all()) == 1)
    await refused(NotFound, call("GetEndpoint", v1.GetEndpointRequest(ref=REF)))


async def test_what_the_client_did_before_is_part_of_the_stages(plane: Any, call: Any, spec: Spec) -> None:
    found = await served(plane, call, spec(1), client_stages_s={"resolve": 0.5, "download": 2.0, "x": 1.0})
    assert [(s.name, s.done) for s in found.status.stages] == [
        (name, True) for name in ("resolve", "download", "environment", "start", "load", "ready", "routed")
    ]


async def test_refusals_come_with_their_details(plane: Any, call: Any, spec: Spec) -> None:
    error = await refused(NotFound, call("GetEndpoint", v1.GetEndpointRequest(ref=REF)))
    assert (error.where, error.message) == ("name", "no endpoint `iris`")
    bad = v1.ApplyEndpointRequest(ref=REF, spec=wire(spec(1, low=5, high=2, max_pods=-1)))
    invalid = await refused(InvalidInput, call("ApplyEndpoint", bad))
    assert isinstance(invalid, InvalidInput)
    assert [problem.where for problem in invalid.problems] == ["models[0].concurrency", "max_pods"]
    unnamed = v1.ApplyEndpointRequest(ref=v1.EndpointRef(name="Iris!"), spec=wire(spec(1)))
    assert (await refused(InvalidInput, call("ApplyEndpoint", unnamed))).where == "name"
    memory = wire(spec(1))
    memory.models[0].resources.memory = "512ki"
    many = v1.ApplyEndpointRequest(ref=REF, spec=memory)
    assert (await refused(InvalidInput, call("ApplyEndpoint", many))).where == "models[0].resources.memory"
    for name, value in (("", "x"), ("A=B", "x"), ("A", "x\0y")):
        asked = wire(spec(1))
        asked.models[0].env[name] = value
        unset = v1.ApplyEndpointRequest(ref=REF, spec=asked)
        assert (await refused(InvalidInput, call("ApplyEndpoint", unset))).where == "models[0].env"
    assert plane.endpoints.all() == []
    await served(plane, call, spec(1))
    await refused(Conflict, call("CreateEndpoint", v1.CreateEndpointRequest(ref=REF, spec=wire(spec(2)))))
    stale = v1.UpdateEndpointRequest(ref=REF, spec=wire(spec(2)), expected_generation=7)
    await refused(Conflict, call("UpdateEndpoint", stale))
    nobody = v1.UpdateEndpointRequest(ref=v1.EndpointRef(name="nobody"), spec=wire(spec(2)))
    assert "there are: iris" in (await refused(NotFound, call("UpdateEndpoint", nobody))).hint


@pytest.mark.parametrize("text", ["é" * 5_000, "\N{GRINNING FACE}" * 5_000, "x" * 5_000])
async def test_the_longest_refusal_arrives(
    call: Any, spec: Spec, plane: Any, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """gRPC drops all of an error whose metadata is too long."""

    def refuse(*what: Any, **how: Any) -> Any:
        raise Conflict(text, where=text, hint=text)

    monkeypatch.setattr(plane.endpoints, "apply", refuse)
    error = await refused(
        Conflict, call("ApplyEndpoint", v1.ApplyEndpointRequest(ref=REF, spec=wire(spec(1))))
    )
    assert text.startswith(error.message)
    assert text.startswith(error.where)
    assert min(len(error.message), len(error.where)) > 100


async def test_a_bug_is_told_as_one_and_logged(
    call: Any, platform: Any, plane: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*what: Any) -> Any:
        raise KeyError("a bug")

    monkeypatch.setattr(platform, "describe", broken)
    error = await refused(Failed, call("GetPlatform", v1.GetPlatformRequest()))
    assert "internal error: KeyError('a bug')" in error.message
    assert "KeyError" in caplog.text
    monkeypatch.setattr(platform, "endpoint", broken)
    await refused(Failed, call("WatchEndpoint", v1.GetEndpointRequest(ref=REF)))


async def test_history_and_rollback(plane: Any, call: Any, spec: Spec) -> None:
    await served(plane, call, spec(1))
    await served(plane, call, spec(2))
    back = await call("RollbackEndpoint", v1.RollbackEndpointRequest(ref=REF, by="bob"))
    assert (back.status.wanted_revision, back.spec.models[0].uri) == (1, "models:/iris/1")
    await plane.until(lambda: plane.record().serving_revision == 1)
    told = (await call("ListHistory", v1.ListHistoryRequest(ref=REF))).changes
    assert [(c.generation, c.by, c.revision) for c in told] == [(3, "bob", 1), (2, "ann", 2), (1, "ann", 1)]
    assert told[0].what == "rolled back from revision 2 to 1"
    assert told[1].spec.models[0].source.version == "2"
    assert len((await call("ListHistory", v1.ListHistoryRequest(ref=REF, limit=1))).changes) == 1
    await refused(NotFound, call("RollbackEndpoint", v1.RollbackEndpointRequest(ref=REF, revision=9)))
    for limit in (-1, LIST_MAX + 1):
        error = await refused(InvalidInput, call("ListHistory", v1.ListHistoryRequest(ref=REF, limit=limit)))
        assert error.where == "limit"


async def test_decisions_with_their_reasons_newest_first(plane: Any, call: Any, spec: Spec) -> None:
    await served(plane, call, spec(1))
    plane.load[IRIS] = 4.0
    await plane.seconds(30)

    async def told(**asked: Any) -> Any:
        return (await call("ListDecisions", v1.ListDecisionsRequest(ref=REF, **asked))).decisions

    found = await told()
    assert 5 <= len(found) <= 20
    assert [d.at_s for d in found] == sorted((d.at_s for d in found), reverse=True)
    assert all(d.reason and d.rule and d.candidates for d in found)
    changes = await told(changes_only=True)
    assert changes
    assert all(d.pods != d.pods_before for d in changes)
    assert [d.at_s for d in await told(limit=2, before_s=found[0].at_s)] == [d.at_s for d in found[1:3]]
    unknown = next(i for d in found for i in d.inputs if i.name == "room_pods")
    assert not unknown.HasField("value")
    nobody = v1.ListDecisionsRequest(ref=v1.EndpointRef(name="nobody"))
    await refused(NotFound, call("ListDecisions", nobody))


async def test_a_watch_tells_each_change_and_ends_with_the_endpoint(
    plane: Any, call: Any, stub: Any, spec: Spec
) -> None:
    await call("ApplyEndpoint", v1.ApplyEndpointRequest(ref=REF, spec=wire(spec(1))))
    told: list[v1.Endpoint] = []

    async def watch() -> None:
        async for endpoint in stub.WatchEndpoint(v1.GetEndpointRequest(ref=REF)):
            told.append(endpoint)  # noqa: PERF401 - looked at while it grows

    async def until(condition: Callable[[], Any], act: Callable[[], Any]) -> None:
        while not condition():
            await act()
            await asyncio.sleep(0.02)

    async with asyncio.timeout(WITHIN_S):
        watcher = asyncio.create_task(watch())
        await until(lambda: told and told[-1].status.state == v1.READY, plane.seconds)
        plane.endpoints.delete(IRIS)  # Envoy says nothing for now: it stays in this state
        await until(lambda: told[-1].status.state == v1.DELETING, plane.look)
        await until(watcher.done, plane.seconds)
        await watcher
    states = list(dict.fromkeys(v1.State.Name(endpoint.status.state) for endpoint in told))
    assert states == ["DEPLOYING", "READY", "DELETING"]
    assert all(now != before for before, now in pairwise(told)), "only changes are told"
    await refused(NotFound, call("WatchEndpoint", v1.GetEndpointRequest(ref=REF)))


async def test_logs_of_the_revisions_that_matter(plane: Any, call: Any, spec: Spec) -> None:
    await served(plane, call, spec(1, low=2))
    first, second = (pod.id for pod in plane.fleet.alive(1))
    plane.fleet.logs = {first: ("a", "b"), second: ("c",)}
    lines = await call("StreamLogs", v1.StreamLogsRequest(ref=REF))
    assert [(line.pod, line.line) for line in lines] == [(first, "a"), (first, "b"), (second, "c")]
    last = await call("StreamLogs", v1.StreamLogsRequest(ref=REF, lines=1, revision=1))
    assert [line.line for line in last] == ["b", "c"]
    wrong = v1.StreamLogsRequest(ref=REF, revision=5)
    assert (await refused(InvalidInput, call("StreamLogs", wrong))).where == "revision"
    for count in (-1, LOG_LINES_MAX + 1):
        await refused(InvalidInput, call("StreamLogs", v1.StreamLogsRequest(ref=REF, lines=count)))


async def test_followed_logs_go_on_until_they_end_or_break(
    plane: Any, call: Any, stub: Any, spec: Spec
) -> None:
    await served(plane, call, spec(1))
    await call("ApplyEndpoint", v1.ApplyEndpointRequest(ref=REF, spec=wire(spec("slow"))))
    await plane.look()
    request = v1.StreamLogsRequest(ref=REF, follow=True)
    async with asyncio.timeout(WITHIN_S):
        lines = aiter(stub.StreamLogs(request))
        pods = {(await anext(lines)).pod for _ in range(2)}
        assert pods == {pod.id for pod in plane.fleet.pods()}, "both revisions side by side"
        for word in ("one", "two"):
            plane.fleet.news.put_nowait(word)
            assert (await anext(lines)).line == word
        for _ in range(2):
            plane.fleet.news.put_nowait(None)
        with pytest.raises(StopAsyncIteration):
            await anext(lines)
        plane.fleet.news.put_nowait(OSError("the disk is gone"))
        error = await refused(Failed, call("StreamLogs", request))
        assert "the disk is gone" in error.message


async def test_a_follower_that_leaves_leaves_nothing_behind(
    plane: Any, call: Any, stub: Any, spec: Spec
) -> None:
    await served(plane, call, spec(1))
    before = asyncio.all_tasks()
    following = stub.StreamLogs(v1.StreamLogsRequest(ref=REF, follow=True))
    await following.read()

    def copying() -> bool:
        return any("_copy_log" in repr(task) for task in asyncio.all_tasks() - before)

    assert copying()
    following.cancel()
    async with asyncio.timeout(WITHIN_S):
        while copying():  # noqa: ASYNC110 - it happens in gRPC's own time
            await asyncio.sleep(0.01)
    with contextlib.suppress(asyncio.CancelledError):
        await following.code()


async def test_the_platform_tells_of_itself_and_of_envoy(
    plane: Any, call: Any, process: Any, spec: Spec
) -> None:
    plane.envoy.nack = "no such cluster"
    found = await call("GetPlatform", v1.GetPlatformRequest())
    assert (found.home, found.listen, found.api_keys) == (str(plane.home), "127.0.0.1:8080", False)
    assert found.version
    assert min(found.memory_bytes, found.memory_free_bytes, found.disk_free_bytes) > 0
    (envoy,) = found.envoys
    assert (envoy.node, envoy.process_id, envoy.running, envoy.connected) == ("envoy-1", 42, True, True)
    assert (envoy.version, envoy.statistics_age_s) == ("1.40.0", 0.5)
    (routes,) = envoy.subscriptions
    assert (routes.type, routes.sent_version, routes.acked_version) == ("routes", "2", "1")
    assert (routes.nack, routes.nack_at_s) == ("no such cluster", 5.0)
    assert list(found.warnings) == ["Envoy `envoy-1` refused its routes: no such cluster"]
    assert list((await served(plane, call, spec(1))).status.warnings) == list(found.warnings)
    await call("ApplyEndpoint", v1.ApplyEndpointRequest(ref=ELSEWHERE, spec=codec.spec_to_proto(spec(1))))
    told = (await call("GetEndpoint", v1.GetEndpointRequest(ref=REF))).status.warnings
    assert list(told) == [
        "Envoy `envoy-1` refused its routes: whoever may see the endpoints of all namespaces is told why"
    ], "what Envoy says may name the endpoints of others"
    plane.envoy.nack, process.age, process.running = "", 60.0, False
    plane.envoy.leave()
    found = await call("GetPlatform", v1.GetPlatformRequest())
    assert (found.envoys[0].running, found.envoys[0].connected, found.envoys[0].process_id) == (
        False,
        False,
        0,
    )
    assert "60 s old" in found.warnings[0]
    process.age = None
    found = await call("GetPlatform", v1.GetPlatformRequest())
    assert not found.envoys[0].HasField("statistics_age_s")
    assert not found.warnings


async def test_prune_removes_what_nothing_refers_to(plane: Any, call: Any, spec: Spec) -> None:
    await served(plane, call, spec(1))
    kept, unused = (plane.home / "models" / name for name in ("sha256-iris-1", "sha256-other-1"))
    for folder in (kept, unused):
        folder.mkdir()
        (folder / "MLmodel").write_text("12345")
    plane.fleet.logs = {"gone.default-r1-1": ("x",), plane.fleet.started[0]: ("y",)}
    for dry in (True, False):
        found = await call("Prune", v1.PruneRequest(dry_run=dry))
        assert list(found.removed) == ["sha256-other-1", "gone.default-r1-1"]
        assert found.bytes == 15
        assert unused.exists() is dry
    assert kept.exists()
    assert not (await call("Prune", v1.PruneRequest())).removed


async def test_a_prune_that_takes_long_holds_up_nobody_but_another(
    plane: Any, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files go in another thread; their names are gone at once, and who asked is told that it goes on."""
    unused, gate = plane.home / "models" / "sha256-other-1", threading.Event()
    unused.mkdir()
    monkeypatch.setattr(cache, "remove_tree", lambda _: gate.wait(60))
    monkeypatch.setattr(platform_module, "PRUNE_WAIT_S", 0.2)
    try:
        slow = await refused(Failed, call("Prune", v1.PruneRequest()))
        assert "still being removed" in slow.message
        assert not unused.exists()
        assert (await call("GetPlatform", v1.GetPlatformRequest())).version
        assert "under way" in (await refused(Conflict, call("Prune", v1.PruneRequest()))).message
    finally:
        gate.set()


async def test_shutdown_asks_with_a_bounded_grace(call: Any, platform: Any) -> None:
    for grace_s in (-1.0, GRACE_MAX_S + 1, float("nan"), float("inf")):
        error = await refused(InvalidInput, call("Shutdown", v1.ShutdownRequest(grace_s=grace_s)))
        assert error.where == "grace_s"
    assert not platform.stopping.is_set()
    await call("Shutdown", v1.ShutdownRequest())
    assert platform.stopping.is_set()
    assert platform.grace_s == 30.0
    await call("Shutdown", v1.ShutdownRequest(grace_s=2.0))
    assert platform.grace_s == 2.0


async def test_decisions_are_replayed_with_other_constants(plane: Any, call: Any, spec: Spec) -> None:
    await served(plane, call, spec(1))
    plane.load[IRIS] = 6.0
    await plane.seconds(60)
    same = await call("ReplayDecisions", v1.ReplayDecisionsRequest(ref=REF))
    told = await call("ListDecisions", v1.ListDecisionsRequest(ref=REF, limit=1_000))
    assert (same.decisions, same.decisions_differing) == (len(told.decisions), 0)
    assert (same.since_s, same.until_s) == (told.decisions[-1].at_s, told.decisions[0].at_s)
    cautious = v1.ReplayDecisionsRequest(ref=REF, set={"headroom": 4.0})
    found = await call("ReplayDecisions", cautious)
    assert found.decisions_differing == len(found.differing) > 0
    assert all(row.pods_replayed > row.pods and row.reason_replayed for row in found.differing)
    half = v1.ReplayDecisionsRequest(ref=REF, since_s=told.decisions[5].at_s, until_s=told.decisions[2].at_s)
    assert (await call("ReplayDecisions", half)).decisions == 4
    unknown = v1.ReplayDecisionsRequest(ref=REF, set={"down_windows": 1.0})
    error = await refused(InvalidInput, call("ReplayDecisions", unknown))
    assert "down_window_s" in error.hint
    nobody = v1.ReplayDecisionsRequest(ref=v1.EndpointRef(name="nobody"))
    await refused(NotFound, call("ReplayDecisions", nobody))


async def test_decisions_of_each_axis_are_told_apart(plane: Any, call: Any, spec: Spec) -> None:
    await served(plane, call, spec(1))
    await plane.seconds(100)
    for axis in (v1.AXIS_PODS, v1.AXIS_LIMIT):
        request = v1.ListDecisionsRequest(ref=REF, axis=axis)
        found = (await call("ListDecisions", request)).decisions
        assert found
        assert {decision.axis for decision in found} == {axis}
