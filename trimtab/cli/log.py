"""The control plane's own log: lines on stderr, which `up --detach` sends to a file that stays bounded."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from pathlib import Path

from trimtab.host.files import keep_tail

LOG_BYTES_MAX = 8 << 20
BOUND_PERIOD_S = 30.0


def log_path_of(home: Path) -> Path:
    """Where the output of a detached control plane goes."""
    return home / "control.log"


def log_to_stderr() -> None:
    """Times, level and room of each line; warnings only from libraries."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("trimtab").setLevel(logging.INFO)


async def with_bounded_log(home: Path, work: Awaitable[None]) -> None:
    """Do `work`, and meanwhile keep the log from filling the disk."""
    bounding = asyncio.create_task(_bound(log_path_of(home)))
    try:
        await work
    finally:
        bounding.cancel()


async def _bound(log_path: Path) -> None:
    while True:
        await asyncio.sleep(BOUND_PERIOD_S)
        keep_tail(log_path, LOG_BYTES_MAX)
