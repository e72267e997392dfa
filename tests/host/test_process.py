"""Real processes: marked, found again, ended as a group, and never mistaken for another."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from trimtab.host import watch
from trimtab.host.process import EXEC_WITHIN_S, Mark, Process, find, marked_with, spawn, stray_members
from trimtab.host.watch import exited

Start = Callable[..., Process]

SLEEP = "import time; time.sleep(60)"
WITH_CHILD = (
    "import subprocess, sys, time;"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); print('up', flush=True);"
    "time.sleep({})"
)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts Python processes with a mark of this test's home; all end with it."""
    started: list[Process] = []

    def begin(code: str = SLEEP, kind: str = "pod", id_: str = "a", **options: int) -> Process:
        mark = Mark(tmp_path, kind, id_)
        argv = [sys.executable, "-c", code]
        process = spawn(argv, mark, env=dict(os.environ), log_path=tmp_path / "log", cwd=tmp_path, **options)
        started.append(process)
        return process

    def ended() -> bool:
        """Kills again and again: one that has just begun does not show its mark yet."""
        for member in stray_members(tmp_path):
            member.kill()
        return not any(process.alive() for process in started)

    yield begin
    until(ended, "all have ended")


def until(condition: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline_s, f"never happened: {what}"
        time.sleep(0.02)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("home", ["/h", "/with:colon", "/with space/ü"])
def test_a_mark_is_read_as_it_was_written(home: str) -> None:
    mark = Mark(Path(home), "pod", "iris.default-r3-k7f2q")
    assert Mark.parse(str(mark)) == mark


@pytest.mark.parametrize("text", ["", "pod", "pod:a", "pod:a:", "nothing of ours"])
def test_what_is_no_mark_is_none(text: str) -> None:
    assert Mark.parse(text) is None


def test_runs_in_a_session_of_its_own_with_its_output_in_the_log(start: Start, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("before\n")
    process = start("import sys; print('out'); print('err', file=sys.stderr)")
    until(lambda: not process.alive(), "it ends")
    assert process.exit_status() == 0
    assert (tmp_path / "log").read_text().splitlines()[0] == "before"
    assert sorted((tmp_path / "log").read_text().splitlines()[1:]) == ["err", "out"]
    assert os.getsid(start().pid) != os.getsid(0)


def test_niceness_and_memory_score_are_set(start: Start) -> None:
    process = start(nice=5, oom_score_adj=900)
    assert psutil.Process(process.pid).nice() == 5
    assert Path(f"/proc/{process.pid}/oom_score_adj").read_text().strip() == "900"


def test_a_command_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="not-there"):
        spawn(["/not-there"], Mark(tmp_path, "pod", "a"), env={}, log_path=tmp_path / "log", cwd=tmp_path)


def test_found_again_by_home_and_kind_oldest_first(start: Start, tmp_path: Path) -> None:
    first, envoy, last = start(id_="b"), start(kind="envoy"), start(id_="a")
    assert [found.pid for found in find(tmp_path)] == [first.pid, envoy.pid, last.pid]
    assert [(found.pid, found.mark.id) for found in find(tmp_path, "pod")] == [
        (first.pid, "b"),
        (last.pid, "a"),
    ]
    assert find(tmp_path / "elsewhere") == []


def test_one_in_the_middle_of_its_exec_is_found(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`spawn` may return before the new program shows an environment: until then there is an empty one."""
    process = start()
    read, looks = psutil.Process.environ, []

    def environ(info: psutil.Process) -> dict[str, str]:
        if info.pid != process.pid or len(looks) == 3:
            return read(info)
        looks.append(info)
        return {}

    monkeypatch.setattr(psutil.Process, "environ", environ)
    assert [found.pid for found in find(tmp_path)] == [process.pid]


def test_one_that_never_has_an_environment_holds_nobody_up(start: Start, tmp_path: Path) -> None:
    bare = subprocess.Popen([sys.executable, "-S", "-c", SLEEP], env={})
    try:
        process, began_s = start(), time.monotonic()
        assert [found.pid for found in find(tmp_path)] == [process.pid]
        assert time.monotonic() - began_s < 10 * EXEC_WITHIN_S
    finally:
        bare.kill()
        bare.wait()


def test_one_found_again_is_controlled_like_ones_own(start: Start, tmp_path: Path) -> None:
    process = start()
    (found,) = find(tmp_path)
    assert found.created_at_s == process.created_at_s
    found.signal_group(signal.SIGTERM)
    until(lambda: not process.alive(), "it ends")
    assert not found.alive()
    assert found.exit_status() is None
    assert process.exit_status() == -signal.SIGTERM
    assert find(tmp_path) == []


def test_a_group_ends_with_all_its_members(start: Start, tmp_path: Path) -> None:
    process = start(WITH_CHILD.format(60))
    until(lambda: len(stray_members(tmp_path)) == 2, "it has a child")
    assert len(process.members()) == 2
    assert [found.pid for found in find(tmp_path)] == [process.pid]
    process.signal_group(signal.SIGKILL)
    until(lambda: not stray_members(tmp_path), "both have ended")


def test_what_a_dead_leader_left_behind_is_ended_too(start: Start, tmp_path: Path) -> None:
    process = start(WITH_CHILD.format(0))
    until(lambda: not process.alive(), "the leader ends")
    assert len(marked_with(process.mark)) == 1
    assert find(tmp_path) == []
    process.signal_group(signal.SIGKILL)
    until(lambda: not stray_members(tmp_path), "the child has ended")


def test_an_id_that_was_used_again_is_never_signalled(tmp_path: Path) -> None:
    """The kernel's answer to "who is this" differs from what we remember: nobody of ours."""
    stranger = subprocess.Popen([sys.executable, "-c", SLEEP], start_new_session=True)
    try:
        info = psutil.Process(stranger.pid)
        info._create_time = info.create_time() - 100
        info._ident = (stranger.pid, info._create_time - 100)
        remembered = Process(Mark(tmp_path, "pod", "a"), info, None)
        assert not remembered.alive()
        remembered.signal_group(signal.SIGKILL)
        with pytest.raises(subprocess.TimeoutExpired):
            stranger.wait(0.3)
    finally:
        stranger.kill()
        stranger.wait()


def test_signalling_one_that_has_gone_is_no_error(start: Start) -> None:
    process = start("pass")
    until(lambda: not process.alive(), "it ends")
    process.signal_group(signal.SIGTERM)
    assert process.members() == []


@pytest.mark.parametrize("with_descriptor", [True, False])
async def test_the_end_of_a_process_is_noticed(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_descriptor: bool
) -> None:
    if not with_descriptor:
        monkeypatch.delattr(os, "pidfd_open")
    process = start()
    (found,) = find(tmp_path)
    waits = [asyncio.create_task(exited(one)) for one in (process, found, process)]
    await asyncio.sleep(watch.LOOK_EACH_S)
    assert not any(wait.done() for wait in waits)
    process.signal_group(signal.SIGKILL)
    await asyncio.wait_for(asyncio.gather(*waits), 10)
    assert process.exit_status() == -signal.SIGKILL
    await asyncio.wait_for(exited(found), 10)


async def test_waiting_can_be_given_up(start: Start) -> None:
    process = start()
    descriptors = open_descriptors()
    for _ in range(5):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(exited(process), 0.01)
    assert open_descriptors() == descriptors
    assert process.alive()
