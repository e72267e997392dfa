"""Signals that come before a control plane has begun to serve."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from trimtab.control.running import cancelled_by_signals


async def test_who_waits_for_its_turn_ends_when_it_is_told_to() -> None:
    with cancelled_by_signals():
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(20):
            await asyncio.Event().wait()
        pytest.fail("nothing else ends this")
    await asyncio.sleep(0)  # and what comes after it is not cancelled


async def test_whoever_else_cancels_it_is_heard() -> None:
    async def waits() -> None:
        with cancelled_by_signals():
            await asyncio.Event().wait()

    task = asyncio.create_task(waits())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
