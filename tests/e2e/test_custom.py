"""A server of one's own, from docs/examples, through the platform: picked, ready, updated, refused."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
INPUTS = {"inputs": [[1, 2], [3, 4]]}
# Speaks OpenAI's API in one stream, and tells what it was started with.
STREAMS = textwrap.dedent("""
    import json, os, sys, time
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Streams(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path in ("/up", "/v1/models") else 404)
            self.end_headers()
            told = {"arguments": sys.argv[1:], "folder": os.getcwd(), "model": os.environ["MODEL"]}
            self.wfile.write(json.dumps(told).encode())

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            for word in ("one", "two"):
                self.wfile.write(f"data: {word}\\n\\n".encode())
                self.wfile.flush()
                while word == "one" and not os.path.exists(sys.argv[2]):
                    time.sleep(0.01)

    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Streams).serve_forever()
""")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The documents' example."""
    return Path(shutil.copytree(ROOT / "docs" / "examples" / "own", tmp_path / "own"))


def test_a_server_of_ones_own(lasting: Any, own: Path, until: Callable[..., Any]) -> None:
    page = (ROOT / "docs" / "runtimes.md").read_text()
    (line,) = re.findall(r"^trimtab (deploy docs/examples/own .*)$", page, re.MULTILINE)
    deployed = lasting(*shlex.split(line.replace("docs/examples/own", str(own))))
    assert deployed["endpoint"]["spec"]["models"][0]["runtime"] == "custom"
    for _ in range(20):  # over connections that are kept
        answer = requests.post(lasting.url("own"), json=INPUTS, timeout=30)
        assert answer.json() == {"predictions": [[2, 4], [6, 8]]}
    server = own / "server.py"
    server.write_text(server.read_text().replace("2 * value", "3 * value"))
    lasting("deploy", str(own), "--name", "own")
    until(
        lambda: requests.post(lasting.url("own"), json=INPUTS, timeout=30).json()["predictions"][0] == [3, 6],
        what="the update serves, by the same command",
    )


def test_it_streams_openais_protocol_and_is_told_where_it_is(lasting: Any, tmp_path: Path) -> None:
    folder, gate = tmp_path / "streams", tmp_path / "gate"
    folder.mkdir()
    (folder / "serve.py").write_text(STREAMS)
    command = f"{sys.executable} serve.py {{port}} {gate} '$PORT and ${{PORT}}' {{}} $nothing"
    own = ("--command", command, "--protocols", "openai", "--ready-path", "/up")
    deployed = lasting("deploy", str(folder), "--name", "streams", *own)
    assert deployed["endpoint"]["status"]["url"].endswith("/serving-endpoints/streams/v1")
    base = deployed["endpoint"]["status"]["url"]
    told = requests.get(f"{base}/models", timeout=30).json()
    port = told["arguments"][0]
    assert told["arguments"][2:] == [f"{port} and {port}", "{}", "$nothing"]
    assert told["folder"] == told["model"] != str(folder), "in the cache's copy"
    with requests.post(f"{base}/completions", json={}, stream=True, timeout=60) as answer:
        lines = answer.iter_lines(chunk_size=1)
        assert next(lines) == b"data: one", "before the second is written: nobody holds it back"
        gate.touch()
        assert [line for line in lines if line] == [b"data: two"]
    assert requests.post(lasting.url("streams"), json={}, timeout=30).status_code == 404, "not its protocol"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--image", "registry/iris:1"), "this machine runs processes, not images"),
        (("--command", "no-such-program-here {port}"), "there is no program `no-such-program-here` here"),
        (
            ("--command", f"{sys.executable} server.py", "--protocols", "soap"),
            "`soap` is not a protocol here",
        ),
        (("--runtime", "custom"), "has neither a command nor an image"),
        (("--runtime", "triton"), "`triton` cannot serve it: no folder in it has a `config.pbtxt`"),
        ((), "no runtime can serve it"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(
    lasting: Any, own: Path, options: tuple[str, ...], says: str
) -> None:
    done = lasting.run("deploy", str(own), "--name", "refused", *options)
    assert done.returncode == 2
    assert says in done.stderr
    assert "hint:" in done.stderr


def test_a_server_that_ends_or_never_listens_says_so(lasting: Any, own: Path) -> None:
    command = f"{sys.executable} -c 'raise SystemExit(\"no licence\")'"
    done = lasting.run("deploy", str(own), "--name", "ends", "--command", command)
    assert (done.returncode, "no licence" in done.stderr) == (1, True)
    slow = f"{sys.executable} -c 'import time; time.sleep(600)'"
    options = ("--command", slow, "--set", "start_timeout_s=1")
    done = lasting.run("deploy", str(own), "--name", "silent", *options)
    assert (done.returncode, "did not become ready within 1 s" in done.stderr) == (1, True)
