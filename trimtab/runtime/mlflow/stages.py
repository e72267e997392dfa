"""The steps of a start, told to whoever waits for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from trimtab.core.clock import Clock
from trimtab.runtime.mlflow.log import say


class Stages:
    """Appends one line {"stage": NAME, "at_s": WALL} to a file each time a step of the start is COMPLETE.

    The steps, in this order:
      import  MLflow and what it needs are imported
      load    the model is in memory
      warm    the model answered its own input example, or has none
      ready   requests are answered from now on
    `told` gets each step's name and how many seconds it took.
    """

    def __init__(self, path: Path, clock: Clock, told: Callable[[str, float], None]) -> None:
        self._path = path
        self._clock = clock
        self._told = told
        self._since_s = clock.now_s()

    def complete(self, name: str) -> None:
        """Note that the step `name` is complete. A full disk costs the line, not the pod."""
        now_s = self._clock.now_s()
        self._told(name, now_s - self._since_s)
        self._since_s = now_s
        line = json.dumps({"stage": name, "at_s": self._clock.wall_s()}) + "\n"
        try:
            with self._path.open("a") as file:
                file.write(line)
        except OSError as error:
            say(f"cannot write {self._path}: {error}")
