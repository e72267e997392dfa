"""Faults that no API server is asked for: processes that end at once, and a program that stays away."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import psutil

from deploy.cluster import init
from deploy.cluster.place import here
from tests.kube.words import PODS
from trimtab.kube import Api


async def kill_container(api: Api, namespace: str, pod: str, container: str) -> None:
    """SIGKILL to all its processes. The pod stays, and its kubelet starts the container again."""
    for process in await processes_of(api, namespace, pod, container):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


async def processes_of(api: Api, namespace: str, pod: str, container: str) -> list[int]:
    """As this machine numbers them."""
    status = orjson.loads(await api.get(PODS.path(namespace, pod)))["status"]
    (wanted,) = (each for each in status["containerStatuses"] if each["name"] == container)
    mark = wanted["containerID"].rpartition("/")[2]
    found = [process for process in psutil.pids() if _is_of(process, mark)]
    assert found, f"no process is of the container {container} of {pod}"
    return found


def _is_of(process: int, container: str) -> bool:
    try:
        return container in Path(f"/proc/{process}/cgroup").read_text()
    except OSError:
        return False


def program(name: str) -> psutil.Process:
    """Of this checkout's cluster."""
    (found,) = (
        process
        for process in psutil.process_iter(["cmdline"])
        if (words := process.info["cmdline"])
        and words[0].endswith(name)
        and any(here().id in word for word in words)
    )
    return found


@contextlib.contextmanager
def killed(name: str, for_s: float) -> Iterator[None]:
    """It is killed, and not started again within the block; but after so long, whatever becomes of us."""
    held = init.hold_of(here().folder / "logs", name)
    held.parent.mkdir(exist_ok=True)
    held.write_text(str(time.time() + for_s))
    program(name).kill()
    try:
        yield
    finally:
        held.unlink()


@contextlib.contextmanager
def stopped(name: str, for_s: float) -> Iterator[None]:
    """It hangs: connections are taken, and nothing is answered. It goes on after so long if we are killed."""
    with paused([program(name).pid], for_s):
        yield


@contextlib.contextmanager
def paused(processes: list[int], for_s: float) -> Iterator[None]:
    """SIGSTOP, and SIGCONT at the end of the block; or after so long if we are killed."""
    numbers = " ".join(map(str, processes))
    guard = subprocess.Popen(["sh", "-c", f"sleep {for_s:.0f}; kill -CONT {numbers}"], start_new_session=True)
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)
        guard.kill()
        guard.wait()
