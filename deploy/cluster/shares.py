"""A command that is run several times at once, each time for a share of its work, on a cluster of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from deploy.cluster.machine import tell
from deploy.cluster.place import WHICH

SHARE = "TRIMTAB_KUBE_SHARE"  # in the environment of each: 1/2 is the first of two
NO_TESTS = 5  # pytest's status where a share has none of those that were asked for
GONE_WITHIN_S = 120.0  # a cluster and its cgroups


def run(command: Sequence[str], count: int) -> int:
    """Run the command `count` times at once, and return the worst of its statuses.

    It is given the number of its cluster, and which share is its own, in the environment. The first writes
    to our stdout and stderr; what the others said is shown after it has ended. Whoever ends us ends them:
    each is told once, and given the time to take its cluster down.
    """
    with contextlib.ExitStack() as files:
        said: list[IO[bytes] | None] = [None]
        said += [
            files.enter_context(tempfile.NamedTemporaryFile(prefix=f"trimtab-kube-{number}-", suffix=".log"))
            for number in range(2, count + 1)
        ]
        running = []
        try:
            for number, file in enumerate(said, start=1):
                running.append(_begin(command, number, count, file))
            statuses = [process.wait() for process in running]
        except BaseException:
            _end(running)
            raise
        finally:
            for number, file in enumerate(said, start=1):
                _show(file, number, count)
    return worst(statuses)


def worst(statuses: Sequence[int]) -> int:
    """Of several; that one of them had no tests is no failure, and that all of them had none is."""
    told = [128 - status if status < 0 else status for status in statuses]  # negative: of a signal
    return max((status for status in told if status != NO_TESTS), default=NO_TESTS)


def _begin(
    command: Sequence[str], number: int, count: int, file: IO[bytes] | None
) -> subprocess.Popen[bytes]:
    """In a process group of its own: the terminal's Ctrl-C reaches us alone, and nobody is told twice."""
    if file is not None:
        tell(f"share {number} of {count} says what it does in {file.name}; it is shown at the end")
    return subprocess.Popen(
        command,
        env=os.environ | {WHICH: str(number), SHARE: f"{number}/{count}"},
        stdin=subprocess.DEVNULL,
        stdout=file,
        stderr=file,
        process_group=0,
    )


def _end(running: Sequence[subprocess.Popen[bytes]]) -> None:
    left = [process for process in running if process.poll() is None]
    for process in left:
        process.terminate()
    for process in left:
        try:
            process.wait(GONE_WITHIN_S)
        except subprocess.TimeoutExpired:
            tell(f"process {process.pid} does not end; `make kube-down` removes what it leaves")
            continue
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what its tests had no time to end


def _show(file: IO[bytes] | None, number: int, count: int) -> None:
    if file is None:
        return
    tell(f"this is what share {number} of {count} said")
    with Path(file.name).open("rb") as told:  # opened anew: whoever does not end goes on writing where it was
        shutil.copyfileobj(told, sys.stdout.buffer)
    sys.stdout.flush()
