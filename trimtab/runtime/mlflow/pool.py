"""The threads that predict: a bounded number, with a bounded queue before them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from time import perf_counter as now_s
from typing import Any, TypeVar

from trimtab.core.errors import Exhausted

T = TypeVar("T")

FORGETS = 0.99  # what is left of the slowest call with each one after it: 5 % after 300


class Pool:
    """At most `threads` calls run at once and `queue` more wait, first in, first out.

    A call that was given up by its caller (timeout, shutdown) leaves the queue if it had not begun.
    If it had, it keeps its thread until it returns: Python cannot stop a thread.
    """

    def __init__(self, threads: int, queue: int) -> None:
        self.threads = threads
        self._held_max = threads + queue
        self._held = 0
        self._lock = threading.Lock()
        self._moved_s: dict[int, float] = {}  # by thread: when its call began, or moved on
        self._slowest_s = 0.0
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="predict")

    @property
    def running(self) -> int:
        """Calls that hold a thread now."""
        return min(self._held, self.threads)

    @property
    def queued(self) -> int:
        """Calls that wait for a thread now."""
        return max(0, self._held - self.threads)

    @property
    def longest_s(self) -> float:
        """For how long the slowest of the running calls has not moved; 0 if none runs."""
        moved_s = list(self._moved_s.values())
        return now_s() - min(moved_s) if moved_s else 0.0

    @property
    def slowest_s(self) -> float:
        """For how long the slowest of the calls that ended of late held its thread without moving."""
        return self._slowest_s

    def moves(self) -> None:
        """Called within a call: it goes on, as a stream does that has sent one more part."""
        self._moved_s[threading.get_ident()] = now_s()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Begin `call` in a thread, or queue it. Raises Exhausted at once if there is no room for it.

        `call` must raise nothing but `Exception`: a SystemExit would end the thread.
        """
        with self._lock:
            if self._held >= self._held_max:
                raise Exhausted(f"this pod holds {self._held} requests already", hint="try again in a second")
            self._held += 1
        future = self._executor.submit(self._run, call)
        future.add_done_callback(self._release)
        return future

    def close(self) -> None:
        """Drop what waits; running calls go on."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _run(self, call: Callable[[], T]) -> T:
        thread = threading.get_ident()
        self._moved_s[thread] = now_s()
        try:
            return call()
        finally:
            took_s = now_s() - self._moved_s.pop(thread)
            self._slowest_s = max(took_s, self._slowest_s * FORGETS)

    def _release(self, _: Future[Any]) -> None:
        with self._lock:
            self._held -= 1
