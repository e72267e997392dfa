"""A program of the cluster that hangs for a while."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

import psutil

from deploy.cluster.place import here


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
def stopped(name: str, for_s: float) -> Iterator[None]:
    """It hangs: connections are taken, and nothing is answered. It goes on after so long if we are killed."""
    process = program(name)
    guard = subprocess.Popen(
        ["sh", "-c", f"sleep {for_s:.0f}; kill -CONT {process.pid}"], start_new_session=True
    )
    process.suspend()
    try:
        yield
    finally:
        process.resume()
        guard.kill()
        guard.wait()
