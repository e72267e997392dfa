"""A control plane that comes later takes over what an earlier one left, whatever state that is in."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from trimtab.core.pod import PodPhase
from trimtab.host.process import Mark, Process, spawn, stray_members

SERVER = Path(__file__).with_name("fake_server.py")
CONTROL_PLANE = Path(__file__).with_name("control_plane.py")


@contextlib.contextmanager
def start(program: Path, *arguments: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the block, whatever becomes of the test."""
    argv = [sys.executable, str(program), *map(str, arguments)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def sleeper(home: Path) -> Iterator[Process]:
    """A process with the mark of a pod, and no record."""
    home.mkdir()
    mark = Mark(home, "pod", "iris.default-r1-aaaaa")
    process = spawn(["sleep", "600"], mark, env=dict(os.environ), log_path=home / "log", cwd=home)
    yield process
    process.signal_group(signal.SIGKILL)
    process._child.wait(timeout=5)


async def test_pods_survive_a_killed_control_plane_and_are_found_again(
    new_fleet, home, models, tmp_path, until
):
    state = tmp_path / "state"
    with start(CONTROL_PLANE, home, models, SERVER, state) as earlier:
        await until(lambda: state.exists() and state.read_text().endswith("\n"))
        earlier.kill()
    left = json.loads(state.read_text())
    assert len(left) == 2

    fleet = await new_fleet()
    found = {pod.id: pod for pod in fleet.pods()}
    assert {pod.phase for pod in found.values()} == {PodPhase.READY}  # at once: they were ready before
    now = {pod.id: [pod.process_id, pod.port, pod.started_at_s, pod.ready_at_s] for pod in found.values()}
    assert now == left
    assert fleet.changed.is_set()
    for pod in found.values():
        await fleet.stop_pod(pod.id, 5.0)
    await until(lambda: fleet.pods() == ())
    assert stray_members(home) == []


@pytest.mark.parametrize("after_s", [0.005, 0.03, 0.11, 0.17, 0.24])
async def test_killed_at_any_instruction_nothing_is_lost_or_left(
    new_fleet, home, models, tmp_path, until, after_s
):
    state = tmp_path / "state"
    with start(CONTROL_PLANE, home, models, SERVER, state) as earlier:
        await until(lambda: state.exists() and state.read_text().endswith("\n"))
        earlier.stdin.write(b"go\n")
        earlier.stdin.flush()
        await asyncio.sleep(after_s)  # not for luck: wherever it then is must do
        earlier.kill()
    left = json.loads(state.read_text())

    fleet = await new_fleet()
    ready = {pod.id: pod.process_id for pod in fleet.pods() if pod.phase is PodPhase.READY}
    assert left.keys() <= ready.keys()
    assert all(left[pod_id][0] == ready[pod_id] for pod_id in left)

    def settled() -> bool:
        return all(pod.phase in (PodPhase.READY, PodPhase.FAILED) for pod in fleet.pods())

    await until(settled)
    for pod in fleet.pods():
        await fleet.stop_pod(pod.id, 5.0)
        await fleet.forget_pod(pod.id)
    await until(lambda: fleet.pods() == ())
    await until(lambda: stray_members(home) == [])
    assert list((home / "pods").iterdir()) == []


async def test_the_end_of_an_adopted_pod_is_noticed(new_fleet, revision, pod_in):
    first = await new_fleet()
    pod = await pod_in(first, await first.start_pod(revision()), PodPhase.READY)
    await first.close()
    second = await new_fleet()
    await pod_in(second, pod.id, PodPhase.READY)
    os.kill(pod.process_id, signal.SIGTERM)
    pod = await pod_in(second, pod.id, PodPhase.FAILED)
    assert "earlier control plane" in pod.cause
    assert pod.exit_status is None


async def test_a_pod_that_was_starting_becomes_ready_for_the_later_one(new_fleet, revision, pod_in):
    first = await new_fleet()
    pod_id = await first.start_pod(revision())
    await first.close()
    second = await new_fleet()
    assert [pod.id for pod in second.pods()] == [pod_id]
    pod = await pod_in(second, pod_id, PodPhase.READY)
    assert pod.ready_at_s is not None


async def test_the_start_timeout_counts_from_the_start(new_fleet, revision, pod_in):
    first = await new_fleet()
    pod_id = await first.start_pod(revision("hang", timeout_s=0.5))
    await first.close()
    second = await new_fleet()
    pod = await pod_in(second, pod_id, PodPhase.FAILED)
    assert "did not become ready within 0.5 s" in pod.cause


async def test_a_marked_process_without_a_record_is_killed(new_fleet, sleeper, until):
    fleet = await new_fleet()
    assert fleet.pods() == ()
    await until(lambda: not sleeper.alive())


async def test_a_process_with_an_unreadable_record_is_killed(new_fleet, sleeper, until, home):
    folder = home / "pods" / sleeper.mark.id
    folder.mkdir(parents=True)
    (folder / "pod.json").write_text("{torn")
    (folder / "log").write_text("what it said\n")
    fleet = await new_fleet()
    assert fleet.pods() == ()
    await until(lambda: not sleeper.alive())
    assert not folder.exists()
    assert fleet.log_tail(sleeper.mark.id, 5) == ("what it said",)


async def test_another_homes_processes_are_left_alone(new_fleet, tmp_path, home):
    mark = Mark(tmp_path / "other", "pod", "iris.default-r1-bbbbb")
    process = spawn(["sleep", "600"], mark, env=dict(os.environ), log_path=tmp_path / "log", cwd=tmp_path)
    try:
        fleet = await new_fleet()
        assert fleet.pods() == ()
        assert process.alive()
    finally:
        process.signal_group(signal.SIGKILL)
        process._child.wait(timeout=5)


async def test_a_pod_that_ended_meanwhile_has_failed(new_fleet, revision, pod_in, until, home):
    first = await new_fleet()
    pod = await pod_in(first, await first.start_pod(revision("family")), PodPhase.READY)
    await first.close()
    os.kill(pod.process_id, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(pod.process_id)], timeout=5)
    second = await new_fleet()
    found = await pod_in(second, pod.id, PodPhase.FAILED)
    assert found.cause == "ended while the control plane was away"
    await until(lambda: stray_members(home) == [])  # its children are swept up
    await second.forget_pod(pod.id)
    assert second.pods() == ()


async def test_the_cause_of_a_failure_outlives_the_control_plane(new_fleet, revision, pod_in):
    first = await new_fleet()
    pod = await pod_in(first, await first.start_pod(revision("crash")), PodPhase.FAILED)
    await first.close()
    second = await new_fleet()
    found = await pod_in(second, pod.id, PodPhase.FAILED)
    assert (found.cause, found.exit_status) == (pod.cause, 1)


async def test_a_pod_told_to_stop_is_not_taken_back(new_fleet, revision, pod_in, until):
    first = await new_fleet()
    pod = await pod_in(first, await first.start_pod(revision()), PodPhase.READY)
    first._pods[pod.id].process.signal_group(signal.SIGSTOP)  # it cannot obey before the first has gone
    await first.stop_pod(pod.id, 60.0)
    await first.close()
    second = await new_fleet()
    assert [p.phase for p in second.pods()] == [PodPhase.STOPPING]
    os.kill(pod.process_id, signal.SIGCONT)
    await until(lambda: second.pods() == ())


async def test_a_record_of_another_version_is_understood(new_fleet, revision, pod_in, home):
    first = await new_fleet()
    pod = await pod_in(first, await first.start_pod(revision()), PodPhase.READY)
    await first.close()
    path = home / "pods" / pod.id / "pod.json"
    record = json.loads(path.read_text())
    kept = {name: record[name] for name in ("revision", "port", "runtime")}
    path.write_text(json.dumps(kept | {"version": 99, "hash": 17, "cause": None, "shape": {"new": True}}))
    second = await new_fleet()
    found = await pod_in(second, pod.id, PodPhase.READY)
    assert (found.process_id, found.port, found.revision) == (pod.process_id, pod.port, pod.revision)


async def test_half_made_folders_are_swept_away(new_fleet, home):
    (home / "pods" / "iris.default-r1-ccccc").mkdir(parents=True)
    fleet = await new_fleet()
    assert fleet.pods() == ()
    assert list((home / "pods").iterdir()) == []
