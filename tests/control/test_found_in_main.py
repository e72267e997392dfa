"""Starting and ending, with a real Envoy: what fails leaves nothing behind, and nothing hangs."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from trimtab.control import assembly, running
from trimtab.control.home import Home
from trimtab.control.main import serve
from trimtab.control.options import ServeOptions, Started
from trimtab.control.reconcile import Reconciler
from trimtab.core.errors import Exhausted, Failed
from trimtab.envoy import process
from trimtab.host.ports import free_port
from trimtab.host.process import Process, find, spawn, stray_members

WITHIN_S = 30.0


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServeOptions]:
    """A home of its own. Every Envoy that was started for it is ended, and its end awaited."""
    started: list[Process] = []

    def recorded(*what: Any, **how: Any) -> Process:
        started.append(spawn(*what, **how))
        return started[-1]

    monkeypatch.setattr(process, "spawn", recorded)
    yield ServeOptions(home=tmp_path / "home", listen=f"127.0.0.1:{free_port('127.0.0.1')}")
    for envoy in started:
        envoy.signal_group(signal.SIGKILL)
        psutil.wait_procs([psutil.Process(envoy.pid)] if envoy.alive() else [], timeout=WITHIN_S)
        assert not envoy.alive()


def envoys(options: ServeOptions) -> list[int]:
    return [found.pid for found in find(options.home, "envoy")]


def may_come_again(options: ServeOptions) -> None:
    """The lock is free, and no socket is left that somebody would take for a server."""
    home = Home(options.home)
    with home.locked():
        assert not list(home.run.glob("*control*.sock"))


async def failure(options: ServeOptions, on_ready: Callable[[Started], None] | None = None) -> Exception:
    """The one error that `serve` ends with; it must not hang."""
    async with asyncio.timeout(WITHIN_S):
        with pytest.raises(Exception) as caught:  # noqa: PT011 - the caller looks at it
            await serve(options, on_ready)
    error = caught.value
    while isinstance(error, ExceptionGroup):
        assert len(error.exceptions) == 1
        error = error.exceptions[0]
    return error


async def handed_over(options: ServeOptions) -> None:
    """A control plane that was here and went alone: Envoy serves on."""
    running = asyncio.Event()
    task = asyncio.create_task(serve(options, lambda started: running.set()))
    async with asyncio.timeout(WITHIN_S):
        await running.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_when_it_says_that_it_runs_envoy_listens(options: ServeOptions) -> None:
    heard: list[str] = []

    def connect(started: Started) -> None:
        host, port = started.listen.split(":")
        with socket.create_connection((host, int(port)), timeout=5):
            heard.append(started.listen)
        raise KeyError("enough")

    assert isinstance(await failure(options, connect), KeyError)
    assert heard == [options.listen]


async def test_an_envoy_that_does_not_start_is_told_and_nothing_is_left(
    options: ServeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "find_binary", lambda: Path("/bin/false"))
    error = await failure(options)
    assert isinstance(error, Failed)
    assert "its last words" in str(error)
    assert stray_members(options.home) == []
    may_come_again(options)


async def test_a_start_that_fails_ends_the_envoy_that_it_started(
    options: ServeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(home: Home, started: Started) -> None:
        assert len(envoys(options)) == 1
        raise Exhausted("the disk is full")

    monkeypatch.setattr(Home, "announce", full)
    assert isinstance(await failure(options), Exhausted)
    assert envoys(options) == []
    may_come_again(options)


async def test_a_start_that_fails_leaves_an_adopted_envoy_alone(
    options: ServeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    await handed_over(options)
    before = envoys(options)
    assert len(before) == 1

    def full(home: Home, started: Started) -> None:
        raise Exhausted("the disk is full")

    monkeypatch.setattr(Home, "announce", full)
    assert isinstance(await failure(options), Exhausted)
    assert envoys(options) == before


async def test_a_part_that_breaks_ends_the_control_plane_and_nothing_else(
    options: ServeOptions, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original = assembly._measure
    broken = asyncio.Event()

    async def breaks(platform: object) -> None:
        await broken.wait()
        raise LookupError("no such gauge")

    monkeypatch.setattr(assembly, "_measure", breaks)
    error = await failure(options, lambda started: broken.set())
    assert isinstance(error, Failed)
    assert "the metrics broke: LookupError('no such gauge'); Envoy and the pods serve on" in str(error)
    assert any(
        record.levelno == logging.ERROR and record.exc_info and "the metrics broke" in record.message
        for record in caplog.records
    )
    assert len(envoys(options)) == 1
    may_come_again(options)
    monkeypatch.setattr(assembly, "_measure", original)
    before = envoys(options)
    await handed_over(options)
    assert envoys(options) == before, "the next one adopts it"


async def test_a_look_that_breaks_does_not_end_the_control_plane(
    options: ServeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, looks = Reconciler.look, 0

    async def breaks_at_first(self: Reconciler) -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise LookupError("at the first look")
        await original(self)

    monkeypatch.setattr(Reconciler, "look", breaks_at_first)
    await handed_over(options)
    assert looks > 1


async def test_a_socket_is_its_owners_from_its_first_instant(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.write_text("left by one that was killed")
    before = os.umask(0o000)
    try:
        server = grpc.aio.server()
        running.bind_unix(server, path)
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert path.stat().st_mode & 0o777 == 0o600
        assert os.umask(0o000) == 0o000, "the mask is the process's: it must not stay"
        await server.stop(grace=None)
        with pytest.raises(Failed, match="the socket cannot be made"):
            running.bind_unix(grpc.aio.server(), tmp_path / "absent" / "control.sock")
        assert os.umask(0o000) == 0o000
    finally:
        os.umask(before)
