"""Pods of the local fleet from start to end, with real processes."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import stat
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from trimtab.core.errors import Exhausted, Failed
from trimtab.core.pod import Pod, PodPhase
from trimtab.fleet import life
from trimtab.fleet.memory import Memory
from trimtab.host.process import Mark, marked_with, stray_members

GIB = 1 << 30


async def get(pod: Pod, path: str) -> None:
    def ask() -> None:
        try:
            urllib.request.urlopen(f"http://{pod.address}{path}", timeout=10).close()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return  # some paths end the server

    await asyncio.to_thread(ask)


def oom_score(pod: Pod) -> int:
    return int(Path(f"/proc/{pod.process_id}/oom_score_adj").read_text())


async def test_a_pod_starts_serves_and_stops(new_fleet, revision, pod_in, until, home):
    fleet = await new_fleet()
    pod_id = await fleet.start_pod(revision())
    assert pod_id.startswith("iris.default-r1-")
    pod = await pod_in(fleet, pod_id, PodPhase.READY)
    assert [stage.name for stage in pod.stages] == ["start", "import", "load", "ready"]
    assert pod.started_at_s <= pod.ready_at_s
    assert psutil.pid_exists(pod.process_id)
    assert psutil.Process(pod.process_id).nice() == 5
    assert oom_score(pod) == 1000
    await until(lambda: (fleet.pods()[0].memory_bytes or 0) > 1 << 20)
    await until(lambda: (fleet.pods()[0].cpu_seconds or 0) > 0)
    assert fleet.log_tail(pod_id, 10) == ("starting", "ready to serve")

    fleet.changed.clear()
    await fleet.stop_pod(pod_id, 5.0)
    assert fleet.pods()[0].phase is PodPhase.STOPPING
    assert fleet.changed.is_set()
    await fleet.stop_pod(pod_id, 5.0)  # may be repeated
    await until(lambda: fleet.pods() == ())
    assert not psutil.pid_exists(pod.process_id)
    assert list((home / "pods").iterdir()) == []
    assert fleet.log_tail(pod_id, 1) == ("ready to serve",)
    await fleet.stop_pod(pod_id, 5.0)
    await fleet.stop_pod("never-was", 5.0)


async def test_what_a_pod_inherits(new_fleet, revision, pod_in, until, monkeypatch):
    monkeypatch.setenv("TRIMTAB_LISTEN", "1.2.3.4:5")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://registry")
    fleet = await new_fleet()
    pod = await pod_in(fleet, await fleet.start_pod(revision()), PodPhase.READY)
    await get(pod, "/env")
    await until(lambda: any(line.startswith("ENV") for line in fleet.log_tail(pod.id, 5)))
    (line,) = [line for line in fleet.log_tail(pod.id, 5) if line.startswith("ENV")]
    seen = json.loads(line.removeprefix("ENV "))
    assert seen["MLFLOW_TRACKING_URI"] == "http://registry"
    assert seen["BEHAVIOUR"] == "normal"
    assert seen["FROM_RUNTIME"] == "1"
    assert [name for name in seen if name.startswith("TRIMTAB_")] == ["TRIMTAB_PROCESS"]


async def test_nobody_else_can_read_a_pods_folder(new_fleet, revision, home):
    fleet = await new_fleet()
    pod_id = await fleet.start_pod(revision())
    for path in (home, home / "pods", home / "pods" / pod_id, home / "logs" / "pods"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


async def test_a_crash_at_load_is_told_with_its_error(new_fleet, revision, pod_in, until, home):
    fleet = await new_fleet()
    pod = await pod_in(fleet, await fleet.start_pod(revision("crash")), PodPhase.FAILED)
    assert "ValueError: bad weights" in pod.cause
    assert "last stage reached: load" in pod.cause
    assert pod.exit_status == 1
    assert "ValueError: bad weights" in fleet.log_tail(pod.id, 3)[-1]
    await fleet.forget_pod(pod.id)
    assert fleet.pods() == ()
    await until(lambda: not (home / "pods" / pod.id).exists())
    assert "ValueError: bad weights" in fleet.log_tail(pod.id, 3)[-1]  # kept for a while


async def test_a_hang_at_load_ends_at_the_start_timeout(new_fleet, revision, pod_in, until):
    fleet = await new_fleet()
    pod = await pod_in(fleet, await fleet.start_pod(revision("hang", timeout_s=1.0)), PodPhase.FAILED)
    assert pod.cause == "did not become ready within 1 s; last stage reached: load"
    await until(lambda: not psutil.pid_exists(pod.process_id))
    assert [p.id for p in fleet.pods()] == [pod.id]  # until it is forgotten


async def test_an_exit_of_a_ready_pod_is_told(new_fleet, revision, pod_in):
    fleet = await new_fleet()
    pod = await pod_in(fleet, await fleet.start_pod(revision()), PodPhase.READY)
    fleet.changed.clear()
    await get(pod, "/exit")
    pod = await pod_in(fleet, pod.id, PodPhase.FAILED)
    assert pod.exit_status == 7
    assert pod.cause == "ended by itself with exit status 7: ready to serve"
    assert fleet.changed.is_set()
    assert pod.memory_bytes is None


async def test_a_kill_from_outside_is_told(new_fleet, revision, pod_in):
    fleet = await new_fleet()
    pod = await pod_in(fleet, await fleet.start_pod(revision()), PodPhase.READY)
    os.kill(pod.process_id, signal.SIGKILL)
    pod = await pod_in(fleet, pod.id, PodPhase.FAILED)
    assert "SIGKILL" in pod.cause
    assert "memory killer" in pod.cause


async def test_a_pod_that_ignores_sigterm_is_killed_after_the_grace(new_fleet, revision, pod_in, until):
    fleet = await new_fleet()
    pod = await pod_in(fleet, await fleet.start_pod(revision("stubborn")), PodPhase.READY)
    await fleet.stop_pod(pod.id, 0.3)
    assert psutil.pid_exists(pod.process_id)
    await until(lambda: fleet.pods() == ())
    assert not psutil.pid_exists(pod.process_id)


async def test_what_a_pod_started_goes_with_it(new_fleet, revision, pod_in, until, home):
    fleet = await new_fleet()
    pod = await pod_in(fleet, await fleet.start_pod(revision("family")), PodPhase.READY)
    assert len(marked_with(Mark(home, "pod", pod.id))) == 3
    await fleet.stop_pod(pod.id, 5.0)
    await until(lambda: fleet.pods() == ())
    assert stray_members(home) == []


async def test_children_of_a_killed_leader_go_too(new_fleet, revision, pod_in, until, home):
    fleet = await new_fleet()
    pod = await pod_in(fleet, await fleet.start_pod(revision("family")), PodPhase.READY)
    os.kill(pod.process_id, signal.SIGKILL)
    await pod_in(fleet, pod.id, PodPhase.FAILED)
    await until(lambda: stray_members(home) == [])


async def test_a_pod_above_its_own_limit_is_ended(new_fleet, revision, pod_in):
    fleet = await new_fleet()
    limit = 128 << 20
    pod = await pod_in(fleet, await fleet.start_pod(revision(memory_bytes=limit)), PodPhase.READY)
    await get(pod, "/eat")
    pod = await pod_in(fleet, pod.id, PodPhase.FAILED)
    assert pod.cause.startswith("used ")
    assert pod.cause.endswith("its limit is 128 MiB (resources.memory)")


async def test_when_the_machine_runs_out_the_eater_goes_not_its_neighbour(new_fleet, revision, pod_in, until):
    available = [8 * GIB]
    fleet = await new_fleet(memory=lambda: Memory(16 * GIB, available[0]))
    neighbour = await pod_in(fleet, await fleet.start_pod(revision()), PodPhase.READY)
    eater = await pod_in(fleet, await fleet.start_pod(revision()), PodPhase.READY)
    await get(eater, "/eat")
    await until(lambda: any((p.memory_bytes or 0) > 128 << 20 for p in fleet.pods()))
    available[0] = 100 << 20
    eater = await pod_in(fleet, eater.id, PodPhase.FAILED)
    assert "this machine had only 100 MiB left" in eater.cause
    assert [p.phase for p in fleet.pods() if p.id == neighbour.id] == [PodPhase.READY]


async def test_a_pod_that_does_not_fit_is_not_started(new_fleet, revision, home):
    fleet = await new_fleet(memory=lambda: Memory(8 * GIB, 600 << 20))
    assert fleet.room(revision()).pods == 1
    await fleet.start_pod(revision())
    assert fleet.room(revision()).pods == 0  # what the first has yet to take is spoken for
    with pytest.raises(Exhausted, match=r"this machine: .* free, a pod takes 64 MiB"):
        await fleet.start_pod(revision())
    assert len(list((home / "pods").iterdir())) == 1


async def test_a_missing_model_is_told_with_a_remedy(new_fleet, revision, models):
    fleet = await new_fleet()
    (models / ("sha256-" + "ab" * 32)).rename(models / "elsewhere")
    with pytest.raises(Failed) as caught:
        await fleet.start_pod(revision())
    assert caught.value.hint == "deploy again"


async def test_a_full_disk_leaves_no_process(new_fleet, revision, home, monkeypatch):
    fleet = await new_fleet()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(Exhausted, match="disk is full"):
            await fleet.start_pod(revision())
    assert fleet.pods() == ()
    assert list((home / "pods").iterdir()) == []
    assert stray_members(home) == []


async def test_a_server_that_cannot_be_started_leaves_nothing(new_fleet, revision, home, runtimes):
    runtimes["fake"] = replace(runtimes["fake"], command=lambda _: ("/no/such/program",))
    fleet = await new_fleet()
    with pytest.raises(Failed, match="no pod can be started"):
        await fleet.start_pod(revision())
    assert list((home / "pods").iterdir()) == []


async def test_ports_for_grpc_and_metrics_are_its_own_and_known_to_whoever_adopts_it(
    new_fleet, revision, pod_in, runtimes
):
    launches = []

    def command(launch):
        launches.append(launch)
        return fake(launch)

    fake = runtimes["fake"].command
    runtimes["fake"] = replace(runtimes["fake"], command=command, grpc_port=True, metrics_port=True)
    fleet = await new_fleet()
    pods = [await pod_in(fleet, await fleet.start_pod(revision()), PodPhase.READY) for _ in range(2)]
    assert len({port for pod in pods for port in (pod.port, pod.grpc_port, pod.metrics_port)} - {0}) == 6
    assert [(launch.grpc_port, launch.metrics_port) for launch in launches] == [
        (pod.grpc_port, pod.metrics_port) for pod in pods
    ]
    name = pods[0].revision.endpoint
    assert {launch.called for launch in launches} == {(name.name, str(name))}
    await fleet.close()
    adopted = (await new_fleet()).pods()
    assert [pod.addresses for pod in adopted] == [pod.addresses for pod in pods]
    assert [pod.metrics_address for pod in adopted] == [pod.metrics_address for pod in pods]


@pytest.mark.parametrize("loses", [True, False])
async def test_a_server_that_lost_a_worker_is_ended_if_it_starts_no_other(
    new_fleet, revision, pod_in, runtimes, until, monkeypatch, loses
):
    monkeypatch.setattr("trimtab.fleet.life.LISTEN_EACH_S", 0.2)
    runtimes["fake"] = replace(runtimes["fake"], loses_workers=loses)
    fleet = await new_fleet()
    pod = await pod_in(fleet, await fleet.start_pod(revision()), PodPhase.READY)
    await get(pod, "/lose-worker")
    if loses:
        pod = await pod_in(fleet, pod.id, PodPhase.FAILED)
        assert "lost its worker process" in pod.cause
    else:
        live = fleet._pods[pod.id]
        looked = live._listen_at_s
        await until(lambda: live._listen_at_s > looked + 1.0)
        assert live.phase is PodPhase.READY


async def test_a_server_of_ones_own_runs_where_its_files_are(new_fleet, revision, pod_in, runtimes, models):
    runtimes["fake"] = replace(runtimes["fake"], runs_in_model_folder=True)
    fleet = await new_fleet()
    pod = await pod_in(fleet, await fleet.start_pod(revision()), PodPhase.READY)
    assert psutil.Process(pod.process_id).cwd() == str(next(models.iterdir()))


async def test_a_stranger_on_the_port_is_not_taken_for_the_pod(new_fleet, revision, pod_in, until):
    """Two fleets may draw the same port; who answers there first must not pass for the other's pod."""
    fleet = await new_fleet()
    first = await pod_in(fleet, await fleet.start_pod(revision()), PodPhase.READY)
    second_id = await fleet.start_pod(revision("hang"))
    second = fleet._pods[second_id]
    second.record = second.record.with_changes(port=first.port)
    await until(lambda: len(second.view().stages) >= 3)
    for _ in range(3):
        await second._look_at_start(fleet._watch.prober)
    assert second.phase is PodPhase.STARTING


async def test_a_ready_pod_whose_port_died_is_given_up(new_fleet, revision, pod_in, monkeypatch):
    monkeypatch.setattr("trimtab.fleet.life.LISTEN_EACH_S", 0.05)
    monkeypatch.setitem(life.LOOK_EACH_S, PodPhase.READY, 0.05)
    fleet = await new_fleet()
    pod = await pod_in(fleet, await fleet.start_pod(revision()), PodPhase.READY)
    await get(pod, "/deaf")
    pod = await pod_in(fleet, pod.id, PodPhase.FAILED)
    assert pod.cause == f"its process lives, but port {pod.port} refuses connections"


async def test_many_pods_have_ports_and_ids_of_their_own(new_fleet, revision, pod_in):
    fleet = await new_fleet()
    ids = [await fleet.start_pod(revision()) for _ in range(6)]
    pods = [await pod_in(fleet, pod_id, PodPhase.READY) for pod_id in ids]
    assert len({pod.port for pod in pods}) == 6
    assert len({pod.process_id for pod in pods}) == 6
    assert [pod.id for pod in fleet.pods()] == ids  # oldest first
