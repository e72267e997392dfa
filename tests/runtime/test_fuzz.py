"""Whatever is sent to a pod, it answers, blames the caller or the model, and lives on."""

from __future__ import annotations

import json
import socket
from typing import Any

import psutil
from hypothesis import given
from hypothesis import strategies as st

from tests.runtime.fuzz import GOOD, bodies, content_types, headers
from tests.runtime.fuzz_protocols import EXAMPLES, QUICKLY, binary_lengths, frames, infers

WAIT_S = 60.0

# Beginnings of requests that are none, or that say two things at once.
RAW = (
    b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
    b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
    b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\n",
    b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-length: 17000000\r\n\r\n",
    b"POST /invocations HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
    b"POST /invocations HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    b"POST /invocations HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n",
    b"POST /invocations HTTP/1.1\r\nupgrade: h2c\r\nconnection: upgrade\r\ncontent-length: 2\r\n\r\n{}",
    b"POST /invocations HTTP/9.9\r\n\r\n",
    b"GET http://[::1 HTTP/1.1\r\nhost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"POST /invocations\x00 HTTP/1.1\r\nhost: x\r\n\r\n",
    b"POST /invocations HTTP/1.1\r\n" + b"x: " + b"y" * 100_000 + b"\r\n\r\n",
    b"\r\n\r\n\r\n",
)


def workers(pod: Any) -> list[int]:
    return sorted(child.pid for child in psutil.Process(pod.process.pid).children(recursive=True))


def test_no_body_and_no_header_brings_a_pod_down(iris_pod: Any, mlflows_own: Any) -> None:
    """What MLflow's own server answers with a 500, we do too, and a header says whose it is."""
    before = workers(iris_pod)
    seen: dict[int, int] = {}

    @QUICKLY
    @given(bodies, content_types, headers)
    def send(body: bytes, content_type: str, given_headers: dict[str, str]) -> None:
        reply = iris_pod.ask("POST", "/invocations", body, content_type, **given_headers)
        seen[reply.status] = seen.get(reply.status, 0) + 1
        fault = reply.headers.get("x-trimtab-fault")
        assert (reply.status == 200) == (fault is None)
        assert fault != "platform"
        if reply.status >= 500 and fault != "model":
            own = mlflows_own.under("/iris")
            own = own.ask("POST", "/invocations", body, content_type, **given_headers)
            assert reply.status == own.status

    send()
    assert seen[200] >= EXAMPLES // 20, "good ones are among them"
    assert seen[400] >= EXAMPLES // 4
    assert workers(iris_pod) == before, "the same processes serve"
    assert_well(iris_pod)


def test_no_tensors_bring_a_pod_down(iris_pod: Any) -> None:
    """Whatever is wrong with them is the caller's fault, in either protocol's own words."""
    before = workers(iris_pod)
    seen: dict[tuple[int, str | None], int] = {}

    @QUICKLY
    @given(infers, binary_lengths)
    def rest(body: bytes, length: str) -> None:
        sent = {"inference-header-content-length": length} if length else {}
        reply = iris_pod.ask("POST", "/v2/models/iris/infer", body, **sent)
        seen[reply.status, None] = seen.get((reply.status, None), 0) + 1
        assert reply.status in (200, 400, 501), reply
        assert (reply.status == 200) == ("error" not in reply.value)
        assert reply.headers.get("x-trimtab-fault") == (None if reply.status == 200 else "caller")

    @QUICKLY
    @given(frames)
    def grpc(body: bytes) -> None:
        call = "/inference.GRPCInferenceService/ModelInfer"
        reply = iris_pod.ask("POST", call, body, "application/grpc")
        status = reply.headers.get("grpc-status")
        seen[reply.status, status] = seen.get((reply.status, status), 0) + 1
        assert (reply.status, status in (None, "3", "5", "8", "12")) == (200, True), reply
        assert (status is None) == ("x-trimtab-fault" not in reply.headers)

    rest()
    grpc()
    assert min(seen[200, None], seen[400, None], seen[200, "3"]) > 0, "good ones and bad ones are among them"
    assert workers(iris_pod) == before
    assert_well(iris_pod)


def test_no_bytes_on_the_wire_bring_a_pod_down(iris_pod: Any) -> None:
    before = workers(iris_pod)

    @QUICKLY
    @given(st.sampled_from(RAW) | st.binary(max_size=300), st.booleans())
    def send(raw: bytes, half: bool) -> None:
        with socket.create_connection(("127.0.0.1", iris_pod.port), WAIT_S) as link:
            link.sendall(raw[: len(raw) // 2] if half else raw)
            link.shutdown(socket.SHUT_WR)
            answer = b""
            try:
                while part := link.recv(65_536):
                    answer += part
            except ConnectionResetError:
                pass  # closed with bytes of ours unread
        assert not answer.startswith(b"HTTP/1.1 5"), answer[:200]

    send()
    assert workers(iris_pod) == before
    assert_well(iris_pod)


def assert_well(pod: Any) -> None:
    assert pod.ask("GET", "/health/live?within=30").status == 200
    for good in GOOD[:2]:
        assert pod.ask("POST", "/invocations", json.dumps(good).encode()).status == 200
