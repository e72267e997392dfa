"""Stages of something that takes a while: a live line on a terminal, plain lines elsewhere; all on stderr."""

from __future__ import annotations

import threading
import time
from types import TracebackType

from rich.console import Console

TERMINAL_PERIOD_S = 1.0
PLAIN_PERIOD_S = 10.0  # a log should show that we live, not fill up


class Stages:
    """Shows the stage under way, and a line with its time for each one that is done.

    A context manager; between its ends one thread keeps the time shown up to date.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        self._spinner = self._console.status("")
        self._terminal = self._console.is_terminal
        self._over = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="stages", daemon=True)
        self._name = ""
        self._detail = ""
        self._began_s = 0.0

    def __enter__(self) -> Stages:
        if self._terminal:
            self._spinner.start()
        self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._ticker.join()
        self._spinner.stop()

    def begin(self, name: str, detail: str = "") -> None:
        """The stage `name` is under way now."""
        if name != self._name:
            self._began_s = time.monotonic()
        self._name, self._detail = name, detail
        self._spinner.update(self._text())

    def detail(self, text: str) -> None:
        """What to say beside the present stage, e.g. how much was copied."""
        self._detail = text

    def done(self, name: str, took_s: float, detail: str = "") -> None:
        """The stage `name` is over."""
        if name == self._name:
            self._name = ""
        self.say(f"{name:<11}{took_s:>7.1f} s  {detail}".rstrip())

    def say(self, text: str) -> None:
        """A line above the live one."""
        self._console.print(text)

    def elapsed_s(self) -> float:
        """Seconds since the present stage began."""
        return time.monotonic() - self._began_s

    def _text(self) -> str:
        return f"{self._name:<11}{self.elapsed_s():>5.0f} s  {self._detail}".rstrip()

    def _tick(self) -> None:
        while not self._over.wait(TERMINAL_PERIOD_S if self._terminal else PLAIN_PERIOD_S):
            if not self._name:
                continue
            if self._terminal:
                self._spinner.update(self._text())
            else:
                self.say(f"{self._text()} …")
