"""What pods of a revision were seen to take, remembered across restarts of the control plane."""

from __future__ import annotations

import json
from pathlib import Path

from trimtab.core.errors import TrimtabError
from trimtab.fleet.room import learn
from trimtab.host.files import write_whole

REVISIONS_MAX = 1_000


class Appetites:
    """Memory per pod by revision hash. A lost or broken file costs only what was learned."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._bytes: dict[str, int] = {}  # least recently seen first
        self._written: dict[str, int] = {}

    def load(self) -> None:
        """Read what an earlier control plane learned."""
        try:
            found = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return
        if isinstance(found, dict):
            self._bytes = {str(k): int(v) for k, v in found.items() if isinstance(v, int | float) and v > 0}
            self._written = dict(self._bytes)

    def of(self, revision_hash: str) -> int | None:
        """Bytes that a pod of this revision takes; None if none was seen."""
        return self._bytes.get(revision_hash)

    def saw(self, revision_hash: str, memory_bytes: int) -> None:
        """Count one observation of a ready pod."""
        known = self._bytes.pop(revision_hash, None)
        self._bytes[revision_hash] = learn(known, memory_bytes)
        while len(self._bytes) > REVISIONS_MAX:
            del self._bytes[next(iter(self._bytes))]

    def correct(self, revision_hash: str, memory_bytes: int) -> None:
        """Take back what a pod taught that had to be killed: one that leaks must not block its successors."""
        known = self._bytes.get(revision_hash)
        if known is not None:
            self._bytes[revision_hash] = min(known, memory_bytes)

    def unsaved(self) -> dict[str, int] | None:
        """What differs from the file enough to matter (5 %), as a copy; None if nothing does."""
        same = self._bytes.keys() == self._written.keys() and all(
            abs(now - self._written[key]) <= self._written[key] // 20 for key, now in self._bytes.items()
        )
        return None if same else dict(self._bytes)

    def save(self, values: dict[str, int]) -> None:
        """Write `values`; a disk that is full leaves the file as it was."""
        try:
            write_whole(self._path, json.dumps(values).encode())
        except (OSError, TrimtabError):
            return
        self._written = values
