"""Waiting for the end of a process that may not be our child."""

from __future__ import annotations

import asyncio
import os

from trimtab.host.process import Process

LOOK_EACH_S = 0.1  # where the kernel cannot tell


async def exited(process: Process) -> None:
    """Return when the group's leader has ended: at once on Linux, else within LOOK_EACH_S."""
    descriptor = _descriptor(process.pid)
    if descriptor is None:
        while process.alive():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(LOOK_EACH_S)
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    try:
        loop.add_reader(descriptor, ended.set)
        if process.present():  # else the id was used again before we opened it
            await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    process.alive()  # collects the exit status of a child


def _descriptor(pid: int) -> int | None:
    """A descriptor that becomes readable when the process ends; None if there is no such thing here."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:  # it has ended, or the kernel is too old
        return None
