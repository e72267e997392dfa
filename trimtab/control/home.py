"""The folder of one control plane, and the lock that keeps a second one out of it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO

from trimtab.control.options import Started
from trimtab.core.errors import Conflict, Failed
from trimtab.host.files import private_folder, socket_path, write_whole


@dataclass(frozen=True)
class Home:
    """Paths below one home. `open` makes what is missing, readable by its owner only."""

    path: Path

    @classmethod
    def open(cls, path: Path) -> Home:
        """Raises InvalidInput, Unauthorised or Exhausted, naming the folder."""
        home = cls(Path(os.path.abspath(path.expanduser())))  # noqa: PTH100 - a link in the path stays as written
        for folder in (home.path, home.run, home.models, home.control_socket.parent):
            private_folder(folder)
        return home

    @property
    def run(self) -> Path:
        return self.path / "run"

    @property
    def models(self) -> Path:
        return self.path / "models"

    @property
    def control_socket(self) -> Path:
        return socket_path(self.path, "control.sock")

    def model_folder(self, digest: str) -> Path:
        return self.models / digest.replace(":", "-")

    def has_model(self, digest: str) -> bool:
        """Whether the model's files are there: they come in one step, so one of them is all."""
        folder = self.model_folder(digest)
        return folder.is_dir() and any(folder.iterdir())

    def announce(self, started: Started) -> None:
        """Tell clients where the control plane is."""
        write_whole(self._announcement, json.dumps(asdict(started), indent=2).encode())

    def last_announced(self) -> Started | None:
        """What the last control plane of this home said; it may be gone, or have been a newer one."""
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            told = json.loads(self._announcement.read_text())
            return Started(**{field.name: told[field.name] for field in fields(Started)})
        return None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the home; the kernel lets go of it whatever way the process ends.

        Raises Conflict, or Failed if the lock cannot be opened.
        """
        with self._lock_file() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                other = self.last_announced()
                who = f" (process {other.pid}, listening on {other.listen})" if other else ""
                raise Conflict(
                    f"a control plane runs on it already{who}",
                    where=str(self.path),
                    hint="use that one, stop it with `trimtab down`, or give another --home",
                ) from None
            yield

    def _lock_file(self) -> IO[str]:
        path = self.run / "lock"
        try:
            return path.open("a")
        except OSError as error:
            hint = "free disk space, mend its rights, or give another --home"
            raise Failed(f"cannot be opened: {error.strerror}", where=str(path), hint=hint) from error

    @property
    def _announcement(self) -> Path:
        return self.run / "control.json"
