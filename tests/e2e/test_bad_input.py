"""Bad input gets a clear error with a hint, and nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import requests

pytestmark = pytest.mark.e2e


@pytest.fixture
def up(platform: Any) -> Any:
    platform.up()
    return platform


def refused(platform: Any, *arguments: str, status: int, says: str) -> str:
    """Run a command that must fail with `status`, say `says`, and give a hint."""
    done = platform.run(*arguments)
    assert done.returncode == status, f"{arguments}: {done.returncode} {done.stdout}{done.stderr}"
    assert says in done.stderr, done.stderr
    assert "hint:" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    return str(done.stderr)


def call(platform: Any, path: str, body: bytes = b"{}", **headers: str) -> tuple[int, dict[str, str], bytes]:
    answer = requests.post(
        f"http://{platform.listen}{path}",
        data=body,
        headers={"content-type": "application/json", **headers},
        timeout=30,
    )
    return answer.status_code, {k.lower(): v for k, v in answer.headers.items()}, answer.content


def test_deploy_and_apply_refuse_what_is_wrong_by_name(
    up: Any, models: dict[str, str], tmp_path: Path
) -> None:
    good = models["steady"]
    refused(up, "deploy", "models:/nothing/1", "--name", "iris", status=4, says="nothing")
    refused(up, "deploy", str(tmp_path / "absent"), "--name", "iris", status=4, says="absent")
    refused(up, "deploy", good, "--name", "Iris_1", status=2, says="Iris_1")
    refused(up, "deploy", good, "--name", "chat", status=2, says="reserved")
    refused(up, "deploy", good, "--name", "iris", "--concurrency", "5..2", status=2, says="reversed")
    refused(up, "deploy", good, "--name", "iris", "--concurrency", "..", status=2, says="..")
    refused(up, "deploy", good, "--name", "iris", "--set", "replicas=3", status=2, says="replicas")
    refused(up, "status", "nobody", status=4, says="nobody")
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: iris\nmodels:\n- uri: models:/iris/1\n  concurency: {min: 1}\n")
    refused(up, "apply", "-f", str(bad), status=2, says="concurency")
    bad.write_text("name: [")
    refused(up, "apply", "-f", str(bad), status=2, says="bad.yaml")
    assert up("status")["endpoints"] == []


def test_up_refuses_a_taken_port_a_used_home_and_an_open_door(up: Any, tmp_path: Path, models: Any) -> None:
    refused(up, "up", "--listen", "127.0.0.1:1", status=5, says="a control plane runs")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        other = type(up)(tmp_path / "other", {})
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        refused(other, "up", "--listen", address, status=5, says="taken")
        refused(other, "up", "--listen", address, "--detach", status=5, says="taken")
        refused(other, "up", "--listen", "0.0.0.0:8080", status=6, says="other machines")
        refused(other, "up", "--listen", "nowhere", status=2, says="nowhere")
        keys = tmp_path / "keys"
        refused(other, "up", "--api-keys", str(keys), status=4, says="keys")
        keys.write_text("ann short\n")
        refused(other, "up", "--api-keys", str(keys), status=2, says="keys:1")
    file = tmp_path / "file"
    file.write_text("")
    refused(type(up)(file, {}), "up", status=2, says="file")
    assert up("status")["endpoints"] == [], "the first one goes on"


def test_a_stranger_needs_the_right_key(platform: Any, models: dict[str, str], tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    key = "0123456789abcdef0123456789abcdef"
    keys.write_text(f"ann {key}\n# a comment\nbob {key[::-1]}\n")
    platform.up("--api-keys", str(keys))
    platform("deploy", models["steady"], "--name", "iris")
    path = "/serving-endpoints/iris/invocations"
    body = json.dumps({"inputs": [[5.1, 3.5, 1.4, 0.2]]}).encode()
    for wrong in ({}, {"authorization": "Bearer wrong"}, {"x-api-key": "0123"}):
        status, _, said = call(platform, path, body, **wrong)
        assert status == 401, said
        assert json.loads(said)["message"]
    assert call(platform, path, body, authorization=f"Bearer {key}")[0] == 200
    assert call(platform, path, body, **{"x-api-key": key})[0] == 200


def test_callers_errors_are_told_as_such(up: Any, models: dict[str, str]) -> None:
    up("deploy", models["steady"], "--name", "iris")
    path = "/serving-endpoints/iris/invocations"
    status, headers, said = call(up, path, b"{not json")
    assert (status, headers["x-trimtab-fault"]) == (400, "caller")
    assert json.loads(said)["error_code"] == "BAD_REQUEST"
    assert call(up, path, b"x", **{"content-type": "text/html"})[0] == 415
    status, headers, said = call(up, path, b" " * (20 << 20))
    assert (status, headers["x-trimtab-fault"]) == (413, "caller")
    assert json.loads(said)["message"]
    status, headers, said = call(up, "/serving-endpoints/nobody/invocations")
    assert (status, headers["x-trimtab-fault"]) == (404, "caller")
    assert "trimtab status" in json.loads(said)["message"]
    for closed in ("/metrics", "/health/ready", "/serving-endpoints/iris/metrics", "/"):
        assert call(up, closed)[0] == 404, closed
    fine = b'{"inputs": [[5.1, 3.5, 1.4, 0.2]]}'
    assert call(up, path, fine)[0] == 200
    assert call(up, path, fine + b" " * (15 << 20))[0] == 200, "15 MB fit"


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root to become another user"
)
def test_another_user_reaches_neither_the_control_api_nor_envoys_configuration(up: Any) -> None:
    for folder in (up.home.parent, *list(up.home.parent.parents)[:-1]):
        folder.chmod(folder.stat().st_mode | 0o055)  # the way to the home is open; the home itself is not
    attempt = (
        "import socket,sys\n"
        "s=socket.socket(socket.AF_UNIX)\n"
        "try: s.connect(sys.argv[1])\n"
        "except PermissionError: sys.exit(13)\n"
    )
    sockets = sorted((up.home / "run").glob("*.sock"))
    assert len(sockets) >= 3, "control API, Envoy's control plane, Envoy's administration"
    for path in sockets:
        assert path.stat().st_mode & 0o077 == 0
        as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-c"]
        done = subprocess.run([*as_nobody, attempt, str(path)], check=False, timeout=20)
        assert done.returncode == 13, path


def test_a_full_disk_is_told_and_nothing_is_lost(
    tmp_path: Path, platform: Any, models: dict[str, str]
) -> None:
    home = tmp_path / "small"
    home.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", home], check=False)
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a small disk")
    small = type(platform)(home, {})
    try:
        small.up()
        (home / "ballast").write_bytes(b"\0" * (home_free(home) - 4096))
        refused(small, "deploy", models["steady"], "--name", "iris", status=7, says="full")
        (home / "ballast").unlink()
        assert small("status")["endpoints"] == []
    finally:
        small.sweep()
        subprocess.run(["umount", "-l", home], check=True)


def home_free(home: Path) -> int:
    return shutil.disk_usage(home).free
