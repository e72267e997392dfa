"""The control API over the network: who is let in, by an API server of a few lines that knows two people."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest

from tests.authority import Authority, mount
from trimtab.control import codec
from trimtab.control.api import ControlApi
from trimtab.control.changes import LocalChanges
from trimtab.control.kubernetes import access as access_module
from trimtab.control.kubernetes.access import Access, Asked
from trimtab.control.kubernetes.certificates import Certificates
from trimtab.control.kubernetes.doorman import Doorman, wanted
from trimtab.control.wire_errors import from_rpc
from trimtab.core.clock import ManualClock
from trimtab.core.errors import NotFound, Unauthorised, Unreachable
from trimtab.v1 import control_pb2 as v1
from trimtab.v1.control_pb2_grpc import ControlStub, add_ControlServicer_to_server

IRIS = v1.EndpointRef(namespace="team", name="iris")
NAME = "control.example"


class Server:
    """`rights` of people by their token; `asked` counts reviews."""

    def __init__(self) -> None:
        self.rights: dict[str, set[tuple[str, str, str]]] = {}  # verb, resource, namespace
        self.asked: list[str] = []
        self.away = False

    async def create(self, path: str, body: dict[str, Any]) -> bytes:
        if self.away:
            raise Unreachable("the API server does not answer")
        self.asked.append(body["kind"])
        if body["kind"] == "TokenReview":
            token = body["spec"]["token"]
            user = {"username": f"sa:{token}", "groups": ["sa"], "extra": {"from": ["here"]}}
            known = token in self.rights
            return orjson.dumps({"status": {"authenticated": known, "user": user if known else {}}})
        assert body["spec"]["groups"] == ["sa"]
        assert body["spec"]["extra"] == {"from": ["here"]}
        what = body["spec"]["resourceAttributes"]
        resource = "/".join(filter(None, (what["resource"], what["subresource"])))
        asked = (what["verb"], resource, what["namespace"])
        allowed = asked in self.rights[body["spec"]["user"].removeprefix("sa:")]
        return orjson.dumps({"status": {"allowed": allowed, "reason": "" if allowed else "no role says so"}})


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def access(server: Server, clock: ManualClock) -> Access:
    return Access(server, clock)  # type: ignore[arg-type]


Ask = Callable[..., Any]


@pytest.fixture
async def ask(plane: Any, platform: Any, access: Access, tmp_path: Path) -> AsyncIterator[Ask]:
    """One call by name and token over TLS; a refusal comes as the error that the server meant."""
    changes = LocalChanges(plane.endpoints)
    api = ControlApi(
        plane.endpoints, plane.store, plane.fleet, plane.reconciler, platform, plane.clock, changes
    )
    authority = Authority()
    mount(tmp_path / "tls", authority.secret(NAME))
    served = grpc.aio.server(interceptors=(Doorman(access),))
    add_ControlServicer_to_server(api, served)
    credentials = Certificates.open(tmp_path / "tls").credentials(of_both=False)
    port = served.add_secure_port("127.0.0.1:0", credentials)
    await served.start()
    trusted = grpc.ssl_channel_credentials(authority.certificate)
    options = [("grpc.ssl_target_name_override", NAME)]

    async def one(method: str, request: Any, token: str | None = None) -> Any:
        metadata = (("authorization", f"Bearer {token}"),) if token is not None else ()
        async with grpc.aio.secure_channel(f"127.0.0.1:{port}", trusted, options) as channel:
            called = getattr(ControlStub(channel), method)(request, timeout=30.0, metadata=metadata)
            try:
                if hasattr(called, "__aiter__"):
                    return [each async for each in called]
                return await called
            except grpc.aio.AioRpcError as error:
                raise from_rpc(error.code(), error.details() or "", error.trailing_metadata()) from error

    yield one
    await served.stop(None)


async def test_each_may_what_the_api_server_says_and_is_named_in_the_history(
    ask: Ask, server: Server, spec: Callable[..., Any]
) -> None:
    told, verbs = codec.spec_to_proto(spec(1)), ("get", "list", "create", "patch", "delete")
    server.rights["ann"] = {(verb, "servingendpoints", "team") for verb in verbs}
    server.rights["bob"] = {("get", "servingendpoints", "other")}
    await ask("CreateEndpoint", v1.CreateEndpointRequest(ref=IRIS, spec=told, by="the boss"), "ann")
    (change,) = (await ask("ListHistory", v1.ListHistoryRequest(ref=IRIS), "ann")).changes
    assert change.by == "sa:ann"
    for method, request in (
        ("GetEndpoint", v1.GetEndpointRequest(ref=IRIS)),
        ("WatchEndpoint", v1.GetEndpointRequest(ref=IRIS)),
        ("ListEndpoints", v1.ListEndpointsRequest(namespace="team")),
        ("ListEndpoints", v1.ListEndpointsRequest()),
        ("ApplyEndpoint", v1.ApplyEndpointRequest(ref=IRIS, spec=told)),
        ("DeleteEndpoint", v1.DeleteEndpointRequest(ref=IRIS)),
        ("StreamLogs", v1.StreamLogsRequest(ref=IRIS)),
    ):
        with pytest.raises(Unauthorised, match=r"sa:bob may not \w+ .*: no role says so") as refused:
            await ask(method, request, "bob")
        assert refused.value.hint
    with pytest.raises(Unauthorised, match="may not list servingendpoints in all namespaces"):
        await ask("ListEndpoints", v1.ListEndpointsRequest(), "ann")
    with pytest.raises(Unauthorised, match="may not get pods/log in the namespace `team`"):
        await ask("StreamLogs", v1.StreamLogsRequest(ref=IRIS), "ann")
    with pytest.raises(NotFound):
        await ask(
            "GetEndpoint", v1.GetEndpointRequest(ref=v1.EndpointRef(namespace="other", name="x")), "bob"
        )


async def test_nobody_is_let_in_without_a_token_that_is_known(ask: Ask, server: Server) -> None:
    server.rights["ann"] = set()
    for token, said in ((None, "no bearer token"), ("", "no bearer token"), ("eve", "does not know")):
        with pytest.raises(Unauthorised, match=said):
            await ask("GetPlatform", v1.GetPlatformRequest(), token)
    assert (await ask("GetPlatform", v1.GetPlatformRequest(), "ann")).version
    for method, request in (("Shutdown", v1.ShutdownRequest()), ("Prune", v1.PruneRequest())):
        with pytest.raises(Unauthorised, match="is for the control plane's own pod"):
            await ask(method, request, "ann")
    server.away = True
    with pytest.raises(Unreachable):
        await ask("GetPlatform", v1.GetPlatformRequest(), "zoe")


def test_every_call_of_the_api_is_known_or_for_the_pod_alone() -> None:
    service = v1.DESCRIPTOR.services_by_name["Control"]
    for method in service.methods:
        request = method.input_type._concrete_class()
        if "ref" in request.DESCRIPTOR.fields_by_name:
            request.ref.CopyFrom(IRIS)
        if method.name in ("Prune", "Shutdown"):
            with pytest.raises(Unauthorised):
                wanted(method.name, request)
        else:
            assert (method.name == "GetPlatform") == (wanted(method.name, request) == ())


async def test_answers_hold_for_a_while_and_refusals_for_less(
    access: Access, server: Server, clock: ManualClock
) -> None:
    server.rights["ann"] = set()
    ann, asked = await access.user("ann"), Asked("get", "team", "iris")
    for _ in range(3):
        with pytest.raises(Unauthorised):
            await access.check(ann, asked)
    assert server.asked == ["TokenReview", "SubjectAccessReview"]
    server.rights["ann"] = {("get", "servingendpoints", "team")}
    clock.advance(access_module.REFUSED_S + 0.1)
    await access.check(ann, asked)
    server.rights["ann"] = set()
    await access.check(ann, asked)
    clock.advance(access_module.ALLOWED_S + 0.1)
    with pytest.raises(Unauthorised):
        await access.check(ann, asked)


async def test_what_is_remembered_is_bounded(
    access: Access, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_module, "KEPT_MAX", 10)
    for number in range(50):
        with pytest.raises(Unauthorised):
            await access.user(f"guess-{number}")
    assert len(access._users._kept) == 10
    with pytest.raises(Unauthorised, match="no bearer token"):
        await access.user("x" * (access_module.TOKEN_BYTES_MAX + 1))
    assert len(server.asked) == 50
