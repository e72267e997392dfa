"""The shared memory through which Triton talks with the processes of its Python models.

It lies in /dev/shm under names that two servers of one machine may not share, and stays there when a server
is killed. The names of ours hold the server's process id: the next one that starts sweeps away those of
which no such process lives.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

FOLDER = Path("/dev/shm")  # noqa: S108 -- where the kernel has it; the names tell ours from others'
_OURS = re.compile(r"trimtab-triton-(?P<process>\d+)-.*")


def prefix_of(process_id: int) -> str:
    """How the names of a server's regions begin."""
    return f"trimtab-triton-{process_id}-"


def sweep(folder: Path = FOLDER) -> None:
    """Remove the regions of servers that are gone; what cannot be removed is left."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            ours = _OURS.fullmatch(path.name)
            if ours and not _lives(int(ours["process"])):
                path.unlink(missing_ok=True)


def _lives(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
