"""Both clients against a server that answers as the test says: the same in both worlds."""

from __future__ import annotations

import asyncio
import json
import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

import trimtab
from trimtab import AsyncClient, Client, ServingError
from trimtab.client import Patience
from trimtab.client.answers import Reply
from trimtab.core.errors import Unreachable

Answer = tuple[int, dict[str, str], bytes]
PREDICTED: Answer = (200, {}, b'{"predictions": [7]}')
Ask = Callable[..., Any]
QUICK = Patience(attempts_max=4, wait_max_s=10.0)


class Gateway(ThreadingHTTPServer):
    """Gives its answers in turn, the last one for ever. An answer of status 0: the connection is closed."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[Answer] = [PREDICTED]
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Gateway

    def do_POST(self) -> None:
        gateway = self.server
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        gateway.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        status, headers, answer = gateway.answers.pop(0) if len(gateway.answers) > 1 else gateway.answers[0]
        if not status:
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(answer))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing."""


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with Gateway() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """`ask(url, endpoint, inputs, **options of the client)`."""

    def waits(url: str, *given: Any, params: Any = None, **options: Any) -> Any:
        with Client(url, patience=options.pop("patience", QUICK), **options) as client:
            return client.predict(*given, params=params)

    async def loops(url: str, *given: Any, params: Any = None, **options: Any) -> Any:
        async with AsyncClient(url, patience=options.pop("patience", QUICK), **options) as client:
            return await client.predict(*given, params=params)

    def run(*given: Any, **options: Any) -> Any:
        return asyncio.run(loops(*given, **options))

    return waits if request.param == "sync" else run


def test_it_asks_the_endpoint_and_returns_what_was_predicted(gateway: Gateway, ask: Ask) -> None:
    found = ask(gateway.url, "iris.team", np.array([[1.0, 2.0]]), params={"scale": 2}, api_key="secret")
    assert found == [7]
    ((path, headers, body),) = gateway.seen
    assert path == "/serving-endpoints/iris.team/invocations"
    assert body == {"inputs": [[1.0, 2.0]], "params": {"scale": 2}}
    assert headers["content-type"] == "application/json"
    assert headers["authorization"] == "Bearer secret"


def test_what_was_turned_away_is_asked_again(gateway: Gateway, ask: Ask) -> None:
    gateway.answers = [
        (429, {"retry-after": "0"}, b""),
        (503, {"x-trimtab-fault": "platform", "retry-after": "0", "x-trimtab-sent": "0"}, b""),
        PREDICTED,
    ]
    assert ask(gateway.url, "iris", [1]) == [7]
    assert len(gateway.seen) == 3


def test_it_gives_up_in_the_end_and_says_why(gateway: Gateway, ask: Ask) -> None:
    gateway.answers = [(429, {"x-trimtab-fault": "platform"}, b'{"message": "queue is full"}')]
    with pytest.raises(ServingError, match="queue is full") as error:
        ask(gateway.url, "iris", [1], patience=Patience(attempts_max=2))
    assert (error.value.status, error.value.fault, len(gateway.seen)) == (429, "platform", 2)


def test_an_error_of_the_model_is_told_at_once(gateway: Gateway, ask: Ask) -> None:
    gateway.answers = [
        (400, {"x-trimtab-fault": "model"}, b'{"error_code": "BAD_REQUEST", "message": "bad"}')
    ]
    with pytest.raises(ServingError) as error:
        ask(gateway.url, "iris", [1])
    assert (error.value.fault, error.value.error_code, len(gateway.seen)) == ("model", "BAD_REQUEST", 1)


def test_what_may_have_reached_the_model_is_not_repeated(gateway: Gateway, ask: Ask) -> None:
    gateway.answers = [(0, {}, b""), PREDICTED]
    with pytest.raises(Unreachable, match="no answer came") as error:
        ask(gateway.url, "iris", [1])
    assert len(gateway.seen) == 1
    assert "may have been carried out" in error.value.hint


def test_unless_the_caller_says_that_it_does_no_harm(gateway: Gateway, ask: Ask) -> None:
    gone = (503, {"x-trimtab-fault": "platform", "retry-after": "0", "x-trimtab-sent": "99"}, b"")
    gateway.answers = [gone, (0, {}, b""), PREDICTED]
    with pytest.raises(ServingError):
        ask(gateway.url, "iris", [1])
    assert ask(gateway.url, "iris", [1], patience=replace(QUICK, idempotent=True)) == [7]
    assert len(gateway.seen) == 3


def test_an_answer_that_takes_too_long_is_not_waited_for(ask: Ask) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(Unreachable, match="no answer came"):
            ask(url, "iris", [1], timeout_s=0.2)


def test_nobody_listens_yet(gateway: Gateway, ask: Ask) -> None:
    """Refused connections are tried again: the gateway may just be starting."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(Unreachable, match=r"cannot be reached \(2 tries\)"):
        ask(url, "iris", [1], patience=Patience(attempts_max=2))


async def test_many_ask_at_once_through_one_client(gateway: Gateway) -> None:
    async with AsyncClient(gateway.url) as client:
        found = await asyncio.gather(*(client.predict("iris", [i]) for i in range(20)))
    assert found == [[7]] * 20
    assert sorted(body["inputs"][0] for _, _, body in gateway.seen) == list(range(20))


def test_the_package_hands_out_its_clients_and_nothing_else() -> None:
    assert trimtab.Client is Client
    with pytest.raises(AttributeError, match="no attribute `Clint`"):
        _ = trimtab.Clint


def test_an_error_comes_back_from_another_process() -> None:
    error = ServingError(
        "answered 503", where="iris", hint="wait", reply=Reply(503, {"x-trimtab-fault": "platform"}, b"")
    )
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.hint, again.status, again.fault) == (str(error), "wait", 503, "platform")
