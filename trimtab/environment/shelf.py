"""The folder of environments: each under the name of its content, whole or absent.

environments/
  KEY/               one that is whole: venv/, environment.json, log; its json is touched when it is used
  .making-XXXX/      one being made; left over if its maker was killed
  .removing-XXXX/    one being removed
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from trimtab.host.files import private_folder, write_whole

MAKING, REMOVING = ".making-", ".removing-"
_KEY = re.compile(r"[0-9a-f]{24}")


@dataclass(frozen=True)
class Shelf:
    """Where environments lie."""

    root: Path

    def open(self) -> None:
        """Make the folder and sweep away what was left half made, or half removed. Raises TrimtabError."""
        private_folder(self.root)
        for path in self.root.iterdir():
            if path.name.startswith((MAKING, REMOVING)):
                shutil.rmtree(path, ignore_errors=True)

    def python(self, key: str) -> Path:
        """The interpreter of an environment, whether it is there or not."""
        return python_in(self.root / key)

    def whole(self, key: str) -> bool:
        """Whether it is there, and the Python that it was made with too."""
        return os.access(self.python(key), os.X_OK) and self._about(key).is_file()

    def incoming(self) -> Path:
        """A folder to make an environment in."""
        private_folder(self.root)
        return Path(tempfile.mkdtemp(dir=self.root, prefix=MAKING))

    def adopt(self, made: Path, key: str, about: dict[str, object]) -> None:
        """Put a finished environment under its name, in one step. One in its place that is broken goes."""
        write_whole(made / "environment.json", json.dumps(about, indent=2).encode())
        if (self.root / key).exists():
            self._put_aside(key)
        made.rename(self.root / key)

    def touch(self, key: str) -> None:
        """It is used now."""
        with suppress(OSError):
            os.utime(self._about(key))

    def by_use(self) -> list[str]:
        """All that are there, the latest used first."""
        with suppress(OSError):
            found = [path for path in self.root.iterdir() if _KEY.fullmatch(path.name)]
            return [path.name for path in sorted(found, key=_used_s, reverse=True)]
        return []

    def bytes_of(self, key: str) -> int:
        """What it took when it was made; 0 if that cannot be told."""
        with suppress(OSError, ValueError, TypeError, KeyError):
            return int(json.loads(self._about(key).read_text())["bytes"])
        return 0

    def key_of(self, python: Path) -> str:
        """The environment that an interpreter belongs to; empty if it is none of these."""
        with suppress(ValueError):
            first = python.relative_to(self.root).parts[0]
            return first if _KEY.fullmatch(first) else ""
        return ""

    def put_aside(self, keys: Collection[str]) -> list[Path]:
        """Take environments away: each is gone at once, and its files once `clear` has been through."""
        return [self._put_aside(key) for key in keys]

    @staticmethod
    def clear(aside: Collection[Path]) -> None:
        """Remove the files of what was put aside. Takes seconds: not for an event loop."""
        for path in aside:
            shutil.rmtree(path, ignore_errors=True)

    def _put_aside(self, key: str) -> Path:
        aside = Path(tempfile.mkdtemp(dir=self.root, prefix=REMOVING))
        with suppress(FileNotFoundError):
            (self.root / key).rename(aside / key)
        return aside

    def _about(self, key: str) -> Path:
        return self.root / key / "environment.json"


def python_in(folder: Path) -> Path:
    """The interpreter of the environment that lies, or is made, in `folder`."""
    return folder / "venv" / "bin" / "python"


def _used_s(folder: Path) -> float:
    with suppress(OSError):
        return (folder / "environment.json").stat().st_mtime
    return 0.0
