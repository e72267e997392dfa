"""Where a pod gets its model: from its tracking server, or from the cache of its node if that server lets it.

The server is asked in any case what the URI means: whom it refuses gets nothing from the cache either. Only
if it does not answer at all the cache alone is asked, for what was brought there by the same credentials.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from trimtab.core.errors import TrimtabError, Unreachable
from trimtab.modelcache.client import Absent, Damaged, Found, NodeCache, contents_of, unpack
from trimtab.modelcache.words import WAIT_MAX_S, key_of
from trimtab.source import cache, download, resolve, stamp_of

CACHED = ("models", "runs")  # schemes of what never changes; a store's folder may be written over
PATIENCE_S = 600.0  # with another pod that brings the model; then it is fetched beside that one
DAMAGED_MAX = 3


def bring(uri: str, models: Path, node: NodeCache | None = None) -> Path:
    """The folder with the model's files, read-only. Raises what `resolve` and `download` do."""
    for there in models.glob("sha256-*"):
        return there  # whole, or it would not have that name; a pod has one model
    began_s = time.monotonic()
    if node is None or urlsplit(uri).scheme not in CACHED:
        folder, whence = _from_its_server(uri, models)
    else:
        folder, whence = _Bringing(uri, models, node).bring()
    size = f"{cache.size_of(folder) / 1e6:.1f} MB"
    _say(f"model: {uri} from {whence}, {size} in {time.monotonic() - began_s:.1f} s")
    return folder


def _from_its_server(uri: str, models: Path) -> tuple[Path, str]:
    source = download(resolve(uri), models)
    return cache.folder_of(models, source.digest), source.asked


class _Bringing:
    """One model, with a cache."""

    def __init__(self, uri: str, models: Path, node: NodeCache) -> None:
        self._uri, self._models, self._node = uri, models, node
        self._key = key_of(uri, os.environ)

    def bring(self) -> tuple[Path, str]:
        try:
            source = resolve(self._uri)
            stamp = stamp_of(source)
        except Unreachable as error:
            folder = self._if_there()
            if folder is None:
                raise
            return folder, f"this node's model cache, since {error.where} does not answer"
        found = self._or_claim(stamp)
        if isinstance(found, Path):
            return found, f"this node's model cache, as {source.asked} has it"
        with self._node.claimed(self._key, found.claim):
            digest = download(source, self._models).digest
            folder = cache.folder_of(self._models, digest)
            self._put(folder, digest, stamp)
        return folder, source.asked

    def _if_there(self) -> Path | None:
        """Whatever was brought last under this name, by these credentials."""
        try:
            with self._node.get(self._key, claim=False) as found:
                return self._taken(found) if isinstance(found, Found) else None
        except TrimtabError as error:
            _say(f"model: {error}")
            return None

    def _or_claim(self, stamp: str) -> Path | Absent:
        """The model, if the cache has it as its registry does; else it is ours to bring."""
        deadline_s, damaged = time.monotonic() + PATIENCE_S, 0
        while (left_s := deadline_s - time.monotonic()) > 0 and damaged < DAMAGED_MAX:
            try:
                with self._node.get(self._key, wait_s=min(WAIT_MAX_S, left_s)) as found:
                    if isinstance(found, Absent):
                        return found
                    if found is None:
                        continue
                    if found.contents.stamp == stamp:
                        return self._taken(found)
                self._node.drop(self._key, found.tag)  # its registry has another one under this name since
            except Damaged as error:
                damaged += 1
                _say(f"model: what this node's cache has of it {error.message}, and is fetched anew")
                with contextlib.suppress(Unreachable):
                    self._node.drop(self._key, error.where)
            except Unreachable as error:
                _say(f"model: {error}")
                break
        return Absent()

    def _taken(self, found: Found) -> Path:
        """Raises Damaged if it is not what was brought there."""
        with cache.incoming(self._models) as folder:
            copied = folder / "model"
            copied.mkdir()
            unpack(found, copied)
            digest = cache.digest_of(copied)
            if digest != found.contents.digest:
                raise Damaged("is not what was brought there", where=found.tag)
            cache.adopt(copied, self._models, digest)
        return cache.folder_of(self._models, digest)

    def _put(self, folder: Path, digest: str, stamp: str) -> None:
        try:
            self._node.put(self._key, contents_of(folder, digest, stamp), folder)
        except Unreachable as error:
            _say(f"model: not kept for others of this node: {error}")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
