"""Through the real Envoy: which request reaches which pod as what, and what Envoy itself answers."""

from __future__ import annotations

import asyncio
import io
from dataclasses import replace
from typing import Any

import aiohttp
import aiohttp.web
import h2.config
import h2.connection
import h2.events
import pytest
from yarl import URL

from trimtab.core.protocol import Protocol
from trimtab.xds.world import ApiKey

JSON_UTF8 = "application/json; charset=utf-8"
JSON = {"content-type": "application/json"}


@pytest.fixture
async def iris(gate: Any, pods: Any, endpoint: Any) -> Any:
    """One endpoint `iris` of one pod, in force."""
    [pod] = await pods(1)
    await gate.publish(endpoint("iris", (pod.port,)))
    return pod


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/serving-endpoints/iris/invocations", {}),
        ("/serving-endpoints/iris.default/invocations", {}),
        ("/endpoints/iris/invocations", {}),
        ("//serving-endpoints/./iris/invocations", {}),
        ("/invocations", {"host": "iris.localhost"}),
        ("/invocations", {"host": "iris.default.localhost:8080"}),
        ("/invocations", {"x-trimtab-endpoint": "iris"}),
        ("/invocations", {"x-trimtab-endpoint": "iris.default"}),
    ],
)
async def test_each_door_leads_to_the_pod(gate: Any, iris: Any, http: Any, path: str, headers: Any) -> None:
    async with http.post(f"{gate.url}{path}?a=1", json=[1], headers=headers) as answer:
        assert answer.status == 200
        assert answer.headers["x-request-id"]
        said = await answer.json()
    assert (said["path"], said["method"], said["bytes"]) == ("/invocations?a=1", "POST", 3)


async def test_names_that_begin_alike(gate: Any, pods: Any, endpoint: Any, http: Any) -> None:
    """Also with the paths of calls that name their endpoint in the body."""
    found = dict(
        zip(("iris", "iris-2", "iris.team-a", "chat-2", "completions-2"), await pods(5), strict=True)
    )
    await gate.publish(*(endpoint(name, (pod.port,)) for name, pod in found.items()))
    for name, pod in found.items():
        for path in (f"/serving-endpoints/{name}/invocations", f"/endpoints/{name}/invocations?a=/b"):
            async with http.post(gate.url + path) as answer:
                assert (await answer.json())["port"] == pod.port
        for path in ("", "?a=1", "/", "/x/invocations", "//"):
            async with http.post(f"{gate.url}/serving-endpoints/{name}{path}") as answer:
                assert answer.status == 404
                assert f"POST /serving-endpoints/{name}/invocations" in (await answer.json())["message"]
    for name in ("iri", "iris-", "iris-22", "iris.default.x", "chat", "completions", "completions-", ""):
        async with http.post(f"{gate.url}/serving-endpoints/{name}/invocations") as answer:
            assert answer.status == 404
            assert "no endpoint answers" in (await answer.json())["message"]
        named = {"x-trimtab-endpoint": f"{name}x"}
        async with http.post(f"{gate.url}/invocations", headers=named) as answer:
            assert f"no endpoint is called `{name}x`" in (await answer.json())["message"]


async def test_the_header_goes_before_the_body(gate: Any, pods: Any, endpoint: Any, http: Any) -> None:
    one, other = await pods(2)
    spoken = (Protocol.OPENAI,)
    await gate.publish(
        endpoint("llm", (one.port,), protocols=spoken), endpoint("iris", (other.port,), protocols=spoken)
    )
    url = f"{gate.url}/serving-endpoints/chat/completions"
    async with http.post(url, json={"model": "llm"}) as answer:
        assert (await answer.json())["port"] == one.port
    async with http.post(url, json={"model": "llm"}, headers={"x-trimtab-endpoint": "iris"}) as answer:
        assert "`iris` does not serve this path" in (await answer.json())["error"]["message"]
    async with http.post(url, json={"model": "llm"}, headers={"x-trimtab-endpoint": "nobody"}) as answer:
        assert (await answer.json())["port"] == one.port


async def test_without_any_endpoint(gate: Any, http: Any) -> None:
    await gate.publish()
    for path in ("/", "/invocations", "/serving-endpoints/iris/invocations", "/serving-endpoints/embeddings"):
        async with http.post(gate.url + path, json={"model": "iris"}) as answer:
            assert (answer.status, answer.headers["x-trimtab-fault"]) == (404, "caller")


async def test_health_of_an_endpoint_on_its_own_host_only(gate: Any, iris: Any, http: Any) -> None:
    for path in ("/ping", "/health", "/version"):
        async with http.get(gate.url + path, headers={"host": "iris.localhost"}) as answer:
            assert (answer.status, (await answer.json())["path"]) == (200, path)
        async with http.get(f"{gate.url}/serving-endpoints/iris{path}") as answer:
            assert answer.status == 404


@pytest.mark.parametrize(
    ("spoken", "live", "ready"),
    [
        (tuple(Protocol), "/v2/health/live", "/v2/health/ready"),
        ((Protocol.OPEN_INFERENCE_REST, Protocol.OPEN_INFERENCE_GRPC), "/v2/health/live", "/v2/health/ready"),
        ((Protocol.OPENAI,), "/health", "/health"),
        ((Protocol.INVOCATIONS,), "/ping", "/ping"),
    ],
)
async def test_health_is_asked_alike_whatever_serves(
    gate: Any, pods: Any, endpoint: Any, http: Any, spoken: tuple[Protocol, ...], live: str, ready: str
) -> None:
    [pod] = await pods(1)
    await gate.publish(endpoint("iris", (pod.port,), protocols=spoken))
    for named in ({"host": "iris.localhost"}, {"x-trimtab-endpoint": "iris"}):
        for path, own in (("/health/live", live), ("/health/ready", ready)):
            async with http.get(gate.url + path, headers=named) as answer:
                assert (answer.status, (await answer.json())["path"]) == (200, own)
            async with http.post(gate.url + path, headers=named) as answer:
                assert (answer.status, answer.headers["allow"]) == (405, "GET")


async def test_endpoints_of_two_namespaces(gate: Any, pods: Any, endpoint: Any, http: Any) -> None:
    ours, theirs = await pods(2)
    await gate.publish(endpoint("iris", (ours.port,)), endpoint("iris.team-a", (theirs.port,)))
    for name, pod in (("iris", ours), ("iris.default", ours), ("iris.team-a", theirs)):
        async with http.post(f"{gate.url}/serving-endpoints/{name}/invocations", json=[]) as answer:
            assert (await answer.json())["port"] == pod.port
        async with http.post(f"{gate.url}/invocations", headers={"host": f"{name}.localhost"}) as answer:
            assert (await answer.json())["port"] == pod.port


@pytest.mark.parametrize(
    ("method", "path", "headers", "says"),
    [
        ("POST", "/serving-endpoints/nobody/invocations", {}, "/serving-endpoints/nobody/invocations"),
        ("POST", "/invocations", {"x-trimtab-endpoint": "nobody"}, "`nobody`"),
        ("POST", "/invocations", {"host": "nobody.localhost"}, "nobody.localhost"),
        ("GET", "/metrics", {}, "/metrics"),
        ("GET", "/metrics", {"host": "iris.localhost"}, "`iris` does not serve"),
        ("GET", "/serving-endpoints/iris/metrics", {}, "POST /serving-endpoints/iris/invocations"),
        ("GET", "/serving-endpoints/iris/health/ready", {}, "`iris` does not serve"),
        ("GET", "/health/ready", {}, "/health/ready"),
        ("GET", "/health/ready/x", {"host": "iris.localhost"}, "`iris` does not serve"),
        ("POST", "/serving-endpoints/iris/v3/models", {}, "`iris` does not serve"),
        ("GET", "/", {}, "trimtab status"),
    ],
)
async def test_whatever_is_not_served_is_404(
    gate: Any, iris: Any, http: Any, method: str, path: str, headers: Any, says: str
) -> None:
    async with http.request(method, gate.url + path, headers=headers) as answer:
        assert answer.status == 404
        assert answer.headers["x-trimtab-fault"] == "caller"
        said = await answer.json()
    assert said["error_code"] == "ENDPOINT_NOT_FOUND"
    assert says in said["message"]
    assert iris.served == 0


async def test_the_wrong_method_is_405_and_told_the_right_one(gate: Any, iris: Any, http: Any) -> None:
    async with http.get(f"{gate.url}/serving-endpoints/iris/invocations") as answer:
        assert (answer.status, answer.headers["allow"]) == (405, "POST")
        assert await answer.json() == {"error_code": "BAD_REQUEST", "message": "use POST for this path"}
    async with http.post(f"{gate.url}/ping", headers={"host": "iris.localhost"}) as answer:
        assert (answer.status, answer.headers["allow"]) == (405, "GET")


async def test_an_allow_list_for_each_protocol(gate: Any, pods: Any, endpoint: Any, http: Any) -> None:
    [pod] = await pods(1)
    spoken = (Protocol.OPEN_INFERENCE_REST, Protocol.OPENAI)
    await gate.publish(endpoint("llm", (pod.port,), protocols=spoken))
    allowed = [
        ("GET", "/v2/health/ready"),
        ("GET", "/v2/models/m"),
        ("GET", "/v2/models/m/versions/3/ready"),
        ("POST", "/v2/models/m/infer"),
        ("POST", "/v2/models/m/versions/3/infer"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/embeddings"),
        ("GET", "/v1/models/m"),
    ]
    for method, path in allowed:
        for url, host in ((f"/serving-endpoints/llm{path}", ""), (path, "llm.localhost")):
            async with http.request(method, gate.url + url, headers={"host": host} if host else {}) as answer:
                assert (answer.status, (await answer.json())["path"]) == (200, path)
    refused = [
        "/v2/repository/index",
        "/v2/models/m/trace/setting",
        "/v2/models/m/x/infer",
        "/invocations",
        "/v1",
    ]
    for path in refused:
        async with http.post(f"{gate.url}/serving-endpoints/llm{path}") as answer:
            assert answer.status == 404, path
    statistics = ["/v2/models/stats", "/v2/models/%73tats", "/v2/./models//stats", "/v2/models/m/stats"]
    for path in statistics:  # of Triton: a model's name to the pattern, and to nobody else
        for url, host in ((f"/serving-endpoints/llm{path}", ""), (path, "llm.localhost")):
            async with http.get(
                URL(gate.url + url, encoded=True), headers={"host": host} if host else {}
            ) as answer:
                assert answer.status == 404, url


async def test_openais_clients_name_their_endpoint_in_the_body(
    gate: Any, pods: Any, endpoint: Any, http: Any
) -> None:
    llm, other, iris = await pods(3)
    openai = (Protocol.OPENAI,)
    await gate.publish(
        endpoint("llm", (llm.port,), protocols=openai),
        endpoint("llm.team-a", (other.port,), protocols=openai),
        endpoint("iris", (iris.port,)),
    )

    async def ask(call: str, model: Any, **more: Any) -> tuple[int, Any]:
        body = {"messages": ["x" * more.pop("size", 1)], "model": model}
        async with http.post(f"{gate.url}/serving-endpoints/{call}", json=body, **more) as answer:
            return answer.status, await answer.json()

    for call in ("chat/completions", "completions", "embeddings"):
        for model, pod in (("llm", llm), ("llm.default", llm), ("llm.team-a", other)):
            status, said = await ask(call, model, size=100_000)
            assert (status, said.get("port"), said.get("path")) == (200, pod.port, f"/v1/{call}"), said
            assert said["bytes"] > 100_000, "whole"
    for model in ("iris", "nobody", "llm.team", ["llm"], None):
        status, said = await ask("chat/completions", model)
        assert (status, said["error"]["code"]) == (404, "model_not_found"), said
    assert "nobody" in (await ask("chat/completions", "nobody"))[1]["error"]["message"]
    for body in (b"{", b"[]", b"", b"\xff" * 100):
        url = f"{gate.url}/serving-endpoints/chat/completions"
        async with http.post(url, data=body, headers=JSON) as answer:
            assert answer.status == 404
    status, said = await ask("chat/completions", "llm", headers={"content-type": JSON_UTF8})
    assert (status, said["port"]) == (200, llm.port)
    for header in ("llm.team-a", "nobody", "-"):  # what we make of the body is not a caller's to say
        status, said = await ask("chat/completions", "llm", headers={"x-trimtab-model": header})
        assert (status, said["port"]) == (200, llm.port)
        assert "x-trimtab-model" not in said["headers"]
        assert (await ask("chat/completions", "nobody", headers={"x-trimtab-model": header}))[0] == 404
    async with http.get(f"{gate.url}/serving-endpoints/chat/completions") as answer:
        assert answer.status == 404


async def test_shares_of_two_revisions(gate: Any, pods: Any, endpoint: Any, http: Any) -> None:
    old, new = await pods(2)
    first, second = endpoint("iris", (old.port,)), endpoint("iris", (new.port,), number=2)
    shares = (replace(first.shares[0], percent=50), replace(second.shares[0], percent=50))
    await gate.publish(replace(first, revisions=first.revisions + second.revisions, shares=shares))
    for _ in range(60):  # one side is never taken with odds of 2**-59
        async with http.post(f"{gate.url}/serving-endpoints/iris/invocations", json=[]) as answer:
            assert answer.status == 200
    assert old.served + new.served == 60
    assert min(old.served, new.served) > 0


async def test_without_a_share_or_without_a_pod_503_and_when_to_ask_again(
    gate: Any, endpoint: Any, http: Any
) -> None:
    await gate.publish(replace(endpoint("early"), shares=()), endpoint("empty"))
    for name, says in (("early", "`early` is not ready yet"), ("empty", "no pod ready")):
        async with http.post(f"{gate.url}/serving-endpoints/{name}/invocations", json=[]) as answer:
            assert answer.status == 503
            assert (answer.headers["retry-after"], answer.headers["x-trimtab-fault"]) == ("1", "platform")
            assert answer.headers["x-trimtab-sent"] == "0"
            said = await answer.json()
            assert said["error_code"] == "TEMPORARILY_UNAVAILABLE"
            assert says in said["message"]


async def test_a_large_body_is_413_and_one_below_passes_whole(gate: Any, iris: Any, http: Any) -> None:
    url = f"{gate.url}/serving-endpoints/iris/invocations"
    async with http.post(url, data=io.BytesIO(b"x" * (15 << 20))) as answer:
        assert (answer.status, (await answer.json())["bytes"]) == (200, 15 << 20)
    async with http.post(url, data=io.BytesIO(b"x" * (20 << 20))) as answer:
        assert (answer.status, answer.headers["x-trimtab-fault"]) == (413, "caller")
        assert "16 MiB" in (await answer.json())["message"]
    assert iris.served == 1


async def test_keys(gate: Any, pods: Any, endpoint: Any, http: Any) -> None:
    [pod] = await pods(1)
    await gate.publish(endpoint("iris", (pod.port,)), keys=(ApiKey("ann", "k-ann"), ApiKey("bob", "k-bob")))
    url = f"{gate.url}/serving-endpoints/iris/invocations"
    for headers in ({"authorization": "Bearer k-ann"}, {"x-api-key": "k-bob"}):
        async with http.post(url, headers=headers) as answer:
            assert answer.status == 200
            assert not {"authorization", "x-api-key"} & (await answer.json())["headers"].keys()
    for headers in (
        {},
        {"authorization": "Bearer nope"},
        {"x-api-key": "nope"},
        {"authorization": "Basic k-ann"},
    ):
        for path in ("/serving-endpoints/iris/invocations", "/serving-endpoints/nobody/invocations"):
            async with http.post(gate.url + path, headers=headers) as answer:
                assert (answer.status, answer.headers["x-trimtab-fault"]) == (401, "caller")
                said = await answer.json()
                assert (said["error_code"], "x-api-key" in said["message"]) == ("UNAUTHENTICATED", True)
    assert pod.served == 2


async def test_an_answer_that_takes_too_long_is_504(gate: Any, pods: Any, endpoint: Any, http: Any) -> None:
    [pod] = await pods(1)
    pod.open.clear()
    await gate.publish(endpoint("slow", (pod.port,), timeout_s=0.2))
    async with http.post(f"{gate.url}/serving-endpoints/slow/invocations", json=[]) as answer:
        assert (answer.status, answer.headers["x-trimtab-fault"]) == (504, "model")
        assert (await answer.json())["error_code"] == "DEADLINE_EXCEEDED"


async def test_callers_cannot_steer_envoy(gate: Any, iris: Any, http: Any) -> None:
    iris.pace_s = 0.1
    headers = {"x-envoy-upstream-rq-timeout-ms": "1"}
    async with http.post(f"{gate.url}/serving-endpoints/iris/invocations", headers=headers) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/serving-endpoints/iris%2Finvocations", {}),
        ("/serving-endpoints/iris/invocations", {"x_under_score": "1"}),
    ],
)
async def test_what_is_not_clean_http_is_400(
    gate: Any, iris: Any, http: Any, path: str, headers: Any
) -> None:
    url = aiohttp.client.URL(gate.url + path, encoded=True)
    async with http.post(url, headers=headers) as answer:
        assert (answer.status, answer.headers["x-trimtab-fault"]) == (400, "caller")
        assert (await answer.json())["error_code"] == "BAD_REQUEST"


async def test_what_a_model_answers_passes_untouched(gate: Any, endpoint: Any, http: Any) -> None:
    app = aiohttp.web.Application()
    said = {"error_code": "BAD_REQUEST", "message": "schema"}

    async def refuse(request: aiohttp.web.Request) -> aiohttp.web.Response:
        return aiohttp.web.json_response(said, status=503)

    app.router.add_post("/invocations", refuse)
    runner = aiohttp.web.AppRunner(app)
    await runner.setup()
    site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = runner.addresses[0][1]
        await gate.publish(endpoint("iris", (port,)))
        for _ in range(10):  # however often: its answers are no reason to put a pod aside
            async with http.post(f"{gate.url}/serving-endpoints/iris/invocations") as answer:
                assert (answer.status, await answer.json()) == (503, said)
                assert answer.headers["x-trimtab-fault"] == "model"
    finally:
        await runner.cleanup()


async def test_http2_with_prior_knowledge_on_the_same_port(gate: Any, iris: Any) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gate.gateway.port)
    client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    client.initiate_connection()
    head = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "iris.localhost"),
        (":path", "/invocations"),
    ]
    client.send_headers(1, head)
    client.send_data(1, b"[1, 2]", end_stream=True)
    writer.write(client.data_to_send())
    events: list[Any] = []
    while not any(isinstance(event, h2.events.StreamEnded) for event in events):
        events += client.receive_data(await asyncio.wait_for(reader.read(65_536), 10))
        writer.write(client.data_to_send())
    [headers] = [event.headers for event in events if isinstance(event, h2.events.ResponseReceived)]
    assert dict(headers)[":status"] == "200"
    assert iris.served == 1
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("begins", ["/serving-endpoints/iris", "/serving-endpoints/nobody", ""])
@pytest.mark.parametrize("named", [{}, {"x-trimtab-endpoint": "iris"}])
async def test_envoys_own_errors_are_the_protocols(
    gate: Any, pods: Any, endpoint: Any, http: Any, begins: str, named: dict[str, str]
) -> None:
    """As Triton's and OpenAI's clients read them; whatever is wrong with the path, or with its endpoint."""
    await pods(0)
    await gate.publish(endpoint("iris", (), protocols=tuple(Protocol)))
    for path in ("/v2/models/m/infer", "/v2", "/v2?a=/v1/b", "/v2/repository/index"):
        async with http.post(f"{gate.url}{begins}{path}", json={}, headers=named) as answer:
            said = await answer.json()
            assert answer.status in (404, 405, 503)
            assert list(said) == ["error"]
            assert isinstance(said["error"], str)
            assert answer.headers["x-trimtab-fault"] in ("caller", "platform")
    for path in ("/v1/chat/completions", "/v1/models", "/v1/nothing?a=1"):
        async with http.post(f"{gate.url}{begins}{path}", json={}, headers=named) as answer:
            said = await answer.json()
            assert list(said["error"]) == ["code", "message", "param", "type"]
            assert said["error"]["message"]
            assert said["error"]["param"] is None
            wanted = "model_not_found" if answer.status == 404 else None
            assert said["error"]["code"] == wanted
    for path in ("/invocations", "/v3/models", "/v1x", "/x/v1/models", "/v20"):
        async with http.post(f"{gate.url}{begins}{path}", json={}, headers=named) as answer:
            assert list(await answer.json()) == ["error_code", "message"]
