"""What an Envoy's pod does before it ends, with a real Envoy and a caller that is still being answered."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from trimtab.envoy.process import find_binary
from trimtab.host.ports import free_port

pytestmark = pytest.mark.slow

DRAIN = Path(__file__).parents[2] / "deploy/images/drain.py"
WITHIN_S = 60.0


class Upstream(BaseHTTPRequestHandler):
    """Answers once it is let to."""

    arrived = threading.Event()
    may_answer = threading.Event()

    def do_GET(self) -> None:
        self.arrived.set()
        self.may_answer.wait(WITHIN_S)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


def bootstrap(admin: Path, port: int, upstream: int) -> dict[str, Any]:
    def address(number: int) -> dict[str, Any]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": number}}

    manager = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    router = "envoy.extensions.filters.http.router.v3.Router"
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": "up"}}]
    filters = {
        "@type": f"type.googleapis.com/{manager}",
        "stat_prefix": "gateway",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": f"type.googleapis.com/{router}"}}],
    }
    listener = {"name": "http", "typed_config": filters}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address(upstream)}}]}]
    return {
        "admin": {"address": {"pipe": {"path": str(admin)}}},
        "static_resources": {
            "listeners": [{"address": address(port), "filter_chains": [{"filters": [listener]}]}],
            "clusters": [{"name": "up", "load_assignment": {"cluster_name": "up", "endpoints": endpoints}}],
        },
    }


@pytest.fixture
def envoy(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """Its admin socket, and its port."""
    upstream = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    admin, port = tmp_path / "admin.sock", free_port("127.0.0.1")
    config = tmp_path / "bootstrap.json"
    config.write_text(json.dumps(bootstrap(admin, port, upstream.server_address[1])))
    command = [find_binary(), "-c", config, "--disable-hot-restart", "--concurrency", "1", "-l", "error"]
    with subprocess.Popen(command) as running:
        deadline_s = time.monotonic() + WITHIN_S
        while not _is_open(port):
            assert running.poll() is None
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        yield admin, port
        running.terminate()
    upstream.shutdown()
    upstream.server_close()


def _is_open(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.connect()
    except OSError:
        return False
    connection.close()
    return True


def test_it_waits_for_the_last_answer_and_asks_callers_to_leave(envoy: tuple[Path, int]) -> None:
    admin, port = envoy
    caller = http.client.HTTPConnection("127.0.0.1", port, timeout=WITHIN_S)
    caller.request("GET", "/")
    assert Upstream.arrived.wait(WITHIN_S)
    with subprocess.Popen([sys.executable, DRAIN, str(admin), "50"], stderr=subprocess.PIPE) as draining:
        with pytest.raises(subprocess.TimeoutExpired):
            draining.wait(5)  # longer than it would wait for nobody
        Upstream.may_answer.set()
        answer = caller.getresponse()
        assert (answer.status, answer.getheader("connection")) == (200, "close")
        answer.read()
        assert draining.wait(WITHIN_S) == 0
        assert draining.stderr is not None
        assert draining.stderr.read() == b""
    assert _is_open(port), "who has not heard yet is still let in"
    caller.close()


def test_an_envoy_that_is_gone_keeps_nobody_waiting(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, DRAIN, str(tmp_path / "none.sock"), "50"],
        capture_output=True,
        timeout=30,
        check=True,
    )
    assert b"drain: " in done.stderr
