"""The cache's files: whole or absent, never more than it may have; the least used of who has most goes first.

FOLDER/
  .incoming-XXXX                       a model on its way in; left over if we were killed
  NAMESPACE/SERVICE-ACCOUNT/KEY.TAG    a model; its time is that of its last use
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trimtab.core.clock import Clock
from trimtab.core.errors import Exhausted

INCOMING = ".incoming-"
MODELS_MAX = 10_000  # of any size: each is a file


@dataclass(frozen=True)
class Owner:
    """Whose models they are: nobody else is given them, and nobody else has brought them."""

    namespace: str
    account: str


@dataclass
class Entry:
    """A model that is there."""

    owner: Owner
    key: str
    tag: str
    path: Path
    size: int
    used_at_s: float  # wall clock


@dataclass(frozen=True)
class _Place:
    owner: Owner
    size: int
    path: Path


class Shelf:
    """Holds at most `bytes_max`, what is on its way in included. One thread uses it."""

    def __init__(self, folder: Path, bytes_max: int, clock: Clock) -> None:
        self._folder, self._bytes_max, self._clock = folder, bytes_max, clock
        self._entries: dict[tuple[Owner, str], Entry] = {}
        self._coming: set[_Place] = set()
        self.evicted = 0

    def open(self) -> None:
        """Find what an earlier one left."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for left in self._folder.glob(f"{INCOMING}*"):
            left.unlink()
        for path in self._folder.glob("*/*/*.*"):
            key, _, tag = path.name.partition(".")
            owner = Owner(path.parent.parent.name, path.parent.name)
            told = path.stat()
            self._replace(Entry(owner, key, tag, path, told.st_size, told.st_mtime))
        self._make_room(None, 0)

    @property
    def bytes(self) -> int:
        """Of all models, those on their way in too."""
        return sum(entry.size for entry in self._entries.values()) + sum(p.size for p in self._coming)

    def find(self, owner: Owner, key: str) -> Entry | None:
        """It counts as used now. One whose file is not as long as it was is not there."""
        entry = self._entries.get((owner, key))
        if entry is None:
            return None
        try:
            whole = entry.path.stat().st_size == entry.size
        except OSError:
            whole = False
        if not whole:
            self._remove(entry)
            return None
        entry.used_at_s = self._clock.wall_s()
        with contextlib.suppress(OSError):
            os.utime(entry.path, (entry.used_at_s, entry.used_at_s))
        return entry

    def drop(self, owner: Owner, key: str, tag: str) -> None:
        """If it is still that one."""
        entry = self._entries.get((owner, key))
        if entry is not None and entry.tag == tag:
            self._remove(entry)

    @contextlib.contextmanager
    def place(self, owner: Owner, key: str, size: int) -> Iterator[Path]:
        """A file to write `size` bytes to; it is there for others once the block has ended with all of them.

        Raises Exhausted where there is no room for it, even if all else went.
        """
        self._make_room(owner, size)
        tag = secrets.token_hex(8)
        place = _Place(owner, size, self._folder / f"{INCOMING}{tag}")
        self._coming.add(place)
        try:
            yield place.path
            if place.path.exists() and place.path.stat().st_size == size:
                self._adopt(place, key, tag)
        finally:
            self._coming.discard(place)
            place.path.unlink(missing_ok=True)

    def _adopt(self, place: _Place, key: str, tag: str) -> None:
        owner = place.owner
        path = self._folder / owner.namespace / owner.account / f"{key}.{tag}"
        path.parent.mkdir(parents=True, exist_ok=True)
        place.path.rename(path)
        self._replace(Entry(owner, key, tag, path, place.size, self._clock.wall_s()))

    def _replace(self, entry: Entry) -> None:
        """The newer one of two is kept: we may have been killed between them."""
        place = entry.owner, entry.key
        before = self._entries.get(place)
        if before is not None and before.used_at_s > entry.used_at_s:
            before, entry = entry, before
        if before is not None:
            before.path.unlink(missing_ok=True)
        self._entries[place] = entry

    def _make_room(self, owner: Owner | None, size: int) -> None:
        """Raises Exhausted."""
        coming = sum(place.size for place in self._coming)
        if coming + size > self._bytes_max:
            whose = f" of {owner.namespace}/{owner.account}" if owner else ""
            hint = "raise modelCache.size of the chart"
            message = f"{size} bytes{whose} do not fit: {self._bytes_max} in all, {coming} on their way in"
            raise Exhausted(message, where="model cache", hint=hint)
        while self.bytes + size > self._bytes_max or len(self._entries) >= MODELS_MAX:
            self._remove(self._least())
            self.evicted += 1

    def _least(self) -> Entry:
        """Of the namespace that has the most bytes, so that none pushes another one out."""
        held: Counter[str] = Counter()
        for entry in self._entries.values():
            held[entry.owner.namespace] += entry.size
        most = max(held, key=lambda namespace: (held[namespace], namespace))
        its = (entry for entry in self._entries.values() if entry.owner.namespace == most)
        return min(its, key=lambda entry: (entry.used_at_s, entry.key))

    def _remove(self, entry: Entry) -> None:
        """Whoever reads it now reads it to its end."""
        self._entries.pop((entry.owner, entry.key), None)
        entry.path.unlink(missing_ok=True)
