"""Whatever is sent to a pod, it answers, blames the caller or the model, and lives on."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

import psutil
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.runtime.fuzz import GOOD, bodies, content_types, headers

EXAMPLES = int(os.environ.get("TRIMTAB_FUZZ_EXAMPLES", "120"))
WAIT_S = 60.0
QUICKLY = settings(
    max_examples=EXAMPLES, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)

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
