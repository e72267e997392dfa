"""Tasks on several processes that live and die with this one."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from typing import Any, TypeVar

from trimtab.core.errors import Failed

R = TypeVar("R")


def as_done(call: Callable[..., R], tasks: Sequence[tuple[Any, ...]], jobs: int) -> Generator[tuple[int, R]]:
    """(index of the task, what `call` gave for it), as each ends; `jobs` at a time, one within this process.

    Close it (`contextlib.closing`) where something may go wrong in between: then the processes end at once.
    Raises what a call raised, and Failed if a process ended.
    """
    if jobs == 1:
        yield from ((index, call(*task)) for index, task in enumerate(tasks))
        return
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))
    try:
        with _interrupts_held():
            futures = {pool.submit(call, *task): index for index, task in enumerate(tasks)}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        hint = "it may have run out of memory: try --jobs 1, or a shorter part of the trace"
        raise Failed("a simulating process ended", where="simulate", hint=hint) from error
    except BaseException:
        for process in active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """What is started meanwhile never sees a Ctrl-C, not even while it imports: it is for us to end it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
