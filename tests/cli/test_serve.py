from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner, Result

from trimtab.cli import sweep
from trimtab.cli.main import cli
from trimtab.host.process import Mark, Process, spawn
from trimtab.v1 import control_pb2 as pb

Run = Callable[..., Result]
Start = Callable[..., Process]
SLEEP = "import time; time.sleep(120)"
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(120)"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a real process that carries the mark of a home; what is left of them ends with the test."""
    started: list[Process] = []

    def begin(home: Path, id_: str, code: str = SLEEP) -> Process:
        log = tmp_path / f"{id_}.log"
        argv = [sys.executable, "-c", code]
        process = spawn(argv, Mark(home, "pod", id_), env=dict(os.environ), log_path=log, cwd=tmp_path)
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.alive():
            psutil.Process(process.pid).kill()
            psutil.Process(process.pid).wait(10)
        process.exit_status()  # or its Popen believes that it still runs


@contextlib.contextmanager
def beside(code: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is none of a home's; it ends with the block, whatever becomes of the test."""
    with subprocess.Popen([sys.executable, "-c", code], **options) as process:
        try:
            yield process
        finally:
            process.kill()


def until(condition: Callable[[], bool], wait_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + wait_s
    while not condition():
        assert time.monotonic() < deadline_s, "did not happen in time"
        time.sleep(0.02)


def announce(home: Path, pid: int) -> None:
    said = {"pid": pid, "version": "0.1.0", "listen": "127.0.0.1:1", "metrics_listen": "127.0.0.1:2"}
    (home / "run").mkdir(exist_ok=True)
    (home / "run" / "control.json").write_text(json.dumps({**said, "control_socket": "x"}))


def test_down_with_nothing_running_is_fine(run: Run, home: Path) -> None:
    done = run("down")
    assert done.exit_code == 0
    assert "nothing of" in done.stderr


def test_down_ends_what_carries_the_homes_mark_and_nothing_else(
    run: Run, home: Path, start: Start, tmp_path: Path
) -> None:
    ours, other = start(home, "iris-a"), start(tmp_path / "other", "iris-b")
    with beside(SLEEP) as bystander:
        done = run("down", "--json")
        assert done.exit_code == 0, done.stderr
        assert json.loads(done.stdout)["stopped"] == [f"pod iris-a (process {ours.pid})"]
        assert not ours.alive()
        assert other.alive()
        assert bystander.poll() is None


def test_down_kills_what_does_not_listen(
    run: Run, home: Path, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "TERM_WAIT_S", 0.2)
    process = start(home, "stubborn", STUBBORN)
    until(lambda: "up" in (tmp_path / "stubborn.log").read_text())
    assert run("down").exit_code == 0
    assert not process.alive()


def test_down_asks_a_living_control_plane_first(run: Run, home: Path, control: Any) -> None:
    with beside("import sys; sys.stdin.read()", stdin=subprocess.PIPE) as follows:
        assert follows.stdin is not None
        announce(home, follows.pid)

        control.on_shutdown = follows.stdin.close
        done = run("down")
        assert done.exit_code == 0, done.stderr
        assert f"stopped control plane (process {follows.pid})" in done.stdout
        assert follows.wait(10) == 0, "it ended by itself"


def test_down_ends_a_control_plane_that_does_not_answer(run: Run, home: Path) -> None:
    with beside(SLEEP) as hangs:
        announce(home, hangs.pid)
        assert run("down").exit_code == 0
        assert hangs.poll() is not None


def test_a_process_id_used_again_by_somebody_else_is_left_alone(run: Run, home: Path) -> None:
    with beside(SLEEP) as somebody:
        announce(home, somebody.pid)
        long_ago_s = time.time() - 3600
        os.utime(home / "run" / "control.json", (long_ago_s, long_ago_s))
        assert "nothing of" in run("down").stderr
        assert somebody.poll() is None


def test_purge_removes_what_is_ours_and_keeps_the_rest(run: Run, home: Path) -> None:
    model = home / "models" / "sha256-abc"
    model.mkdir(parents=True)
    (model / "MLmodel").write_text("x")
    (model / "MLmodel").chmod(0o444)
    model.chmod(0o555)
    (home / "trimtab.db").write_text("")
    (home / "notes.txt").write_text("mine")
    done = run("down", "--purge", "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["kept"] == ["notes.txt"]
    assert [path.name for path in home.iterdir()] == ["notes.txt"]
    (home / "notes.txt").unlink()


def test_purge_refuses_what_is_not_a_home(run: Run, home: Path) -> None:
    (home / "thesis.tex").write_text("…")
    done = run("down", "--purge")
    assert done.exit_code == 2
    assert "does not look like a home" in done.stderr
    assert (home / "thesis.tex").exists()


@pytest.mark.parametrize("folder", ["/", "~"])
def test_purge_refuses_the_root_and_the_users_home(folder: str) -> None:
    done = CliRunner().invoke(cli, ["down", "--purge", "--home", folder])
    assert done.exit_code == 2


def test_doctor_works_when_the_platform_is_down(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    home.chmod(0o755)
    done = run("doctor", "--json")
    assert done.exit_code == 1
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["control plane"]["level"] == "fail"
    assert "trimtab up" in checks["control plane"]["hint"]
    assert checks["envoy"]["level"] == "ok"
    assert checks["home"]["level"] == "warn"
    assert checks["MLFLOW_TRACKING_URI"]["level"] == "warn"
    assert "secret" not in done.stdout


def test_doctor_names_refusals_silence_and_failed_endpoints(run: Run, control: Any) -> None:
    nack = pb.Subscription(type="routes", nack="no such cluster")
    well = {"running": True, "version": "1.40.0", "process_id": 5}
    control.platform.envoys.extend(
        [
            pb.Envoy(node="a", connected=True, statistics_age_s=0.4, subscriptions=[nack], **well),
            pb.Envoy(node="b", connected=False, statistics_age_s=60.0, **well),
            pb.Envoy(node="c", running=False, restarts=3),
        ]
    )
    status = pb.Status(state=pb.FAILED, cause="out of memory", hint="give it more")
    control.endpoints["default", "big"] = pb.Endpoint(
        ref=pb.EndpointRef(namespace="default", name="big"), status=status
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        control.platform.listen = f"127.0.0.1:{listener.getsockname()[1]}"
        done = run("doctor")
    assert done.exit_code == 1
    for line in (
        "fail  Envoy a routes: refused: no such cluster",
        "fail  Envoy b: version 1.40.0, process 5, not connected",
        "warn  Envoy b statistics: the last ones are 60 s old",
        "fail  Envoy c: is not running (3 restarts)",
        "fail  endpoint big: FAILED: out of memory",
        "ok    listener",
        "ok    control plane",
    ):
        assert line in done.stdout
    assert "hint: give it more" in done.stdout


def test_doctor_is_content_with_a_sound_platform(run: Run, control: Any, home: Path) -> None:
    envoy = pb.Envoy(node="a", running=True, connected=True, statistics_age_s=0.5, version="1.40.0")
    control.platform.envoys.append(envoy)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        control.platform.listen = f"127.0.0.1:{listener.getsockname()[1]}"
        done = run("doctor")
    assert done.exit_code == 0, done.stdout


def test_prune_says_what_went(run: Run, control: Any) -> None:
    done = run("prune", "--dry-run")
    assert done.stdout == "sha256-abc\n"
    assert "2.5 MB would be freed" in done.stderr
    assert control.asked[-1].dry_run


def trimtab(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "trimtab.cli", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_up_detached_tells_the_error_and_the_exit_status_of_what_it_started(home: Path) -> None:
    done = trimtab("up", "--detach", "--listen", "0.0.0.0:8080", "--home", str(home))
    assert done.returncode == 6
    assert "error: --listen" in done.stderr
    assert "hint: add --api-keys" in done.stderr
    assert "Traceback" not in done.stderr


def test_up_on_a_home_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for extra in ([], ["--detach"]):
        done = trimtab("up", *extra, "--home", str(tmp_path / "file"))
        assert done.returncode == 2
        assert "is not a folder" in done.stderr


def test_the_environment_names_the_home(home: Path) -> None:
    done = trimtab("status", TRIMTAB_HOME=str(home))
    assert done.returncode == 3
    assert f"error: {home}:" in done.stderr


def test_usage_errors_are_exit_status_2() -> None:
    assert trimtab("deploy").returncode == 2
    assert trimtab("nosuch").returncode == 2
    assert trimtab("top", "--nosuch").returncode == 2


def test_no_command_imports_mlflow_before_it_needs_it() -> None:
    code = "import sys, trimtab.cli.main; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
