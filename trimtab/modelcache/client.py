"""A pod's side of the cache: asks for a model, brings what was not there.

Whatever goes wrong with it is no error of the pod's: then it asks the registry, as if there were no cache.
"""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from trimtab.core.errors import InvalidInput, TrimtabError, Unreachable
from trimtab.modelcache.words import (
    CLAIM,
    CONTENTS_BYTES_MAX,
    RENEW_EACH_S,
    TOKEN_FILE,
    TOKEN_FOLDER,
    URL_VARIABLE,
    WAIT_MAX_S,
    Contents,
)

CONNECT_WITHIN_S = 3.0  # a node without a cache drops what is sent to it
SILENCE_MAX_S = WAIT_MAX_S + 10.0
CHUNK_BYTES = 1 << 20


class Damaged(InvalidInput):
    """What the cache gave out is not what was brought to it."""


@dataclass(frozen=True)
class Found:
    """A model on its way from the cache: `body` has its files' bytes."""

    contents: Contents
    tag: str
    body: http.client.HTTPResponse


@dataclass(frozen=True)
class Absent:
    """It is not there. With a `claim` others wait until we have brought it."""

    claim: str = ""


class NodeCache:
    """The cache of this node. Each method asks once; they raise Unreachable where it does not answer."""

    def __init__(self, url: str, token_file: Path) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._token_file = token_file

    @contextlib.contextmanager
    def get(self, key: str, *, wait_s: float = 0.0, claim: bool = True) -> Iterator[Found | Absent | None]:
        """What it has; None if another pod is bringing it and has not within `wait_s`."""
        query = f"?wait={wait_s:g}" + ("&claim=1" if claim else "")
        with self._asked("GET", key + query) as answer:
            if answer.status == 200:
                line = answer.readline(CONTENTS_BYTES_MAX)
                tag = answer.getheader("ETag", "")
                try:
                    found = Found(Contents.read(line), tag, answer)
                except InvalidInput as error:
                    raise Damaged(error.message, where=tag) from error
                yield found
            elif answer.status == 202:
                yield None
            elif answer.status == 404:
                yield Absent(answer.getheader(CLAIM, ""))
            else:
                raise _refused(answer)

    def put(self, key: str, contents: Contents, folder: Path) -> None:
        """Bring a model whose files lie in `folder`."""
        line = contents.line()
        size = len(line) + contents.size
        with self._asked("PUT", key, _bytes_of(line, contents, folder), size) as answer:
            if answer.status != 201:
                raise _refused(answer)

    def drop(self, key: str, tag: str) -> None:
        """Take away what is damaged, or older than what the registry has; another one since then stays."""
        with self._asked("DELETE", key, tag=tag) as answer:
            answer.read()

    @contextlib.contextmanager
    def claimed(self, key: str, claim: str) -> Iterator[None]:
        """While the block brings a model those who want it wait; however it ends, they wait no longer."""
        done = threading.Event()

        def renew() -> None:
            while not done.wait(RENEW_EACH_S):
                with contextlib.suppress(Unreachable), self._asked("POST", f"{key}/claim", claim=claim):
                    pass

        renewing = threading.Thread(target=renew, name="model-cache-claim", daemon=True)
        if claim:
            renewing.start()
        try:
            yield
        finally:
            done.set()
            if claim:
                renewing.join()
                with contextlib.suppress(Unreachable):
                    self._release(key, claim)

    def _release(self, key: str, claim: str) -> None:
        with self._asked("DELETE", f"{key}/claim", claim=claim):
            pass

    @contextlib.contextmanager
    def _asked(
        self,
        method: str,
        path: str,
        body: Iterator[bytes] | None = None,
        size: int = 0,
        *,
        tag: str = "",
        claim: str = "",
    ) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=CONNECT_WITHIN_S)
        try:
            headers = {"Authorization": f"Bearer {self._token_file.read_text().strip()}"}
            headers |= {"If-Match": tag} if tag else {}
            headers |= {CLAIM: claim} if claim else {}
            headers |= {"Content-Length": str(size)} if body is not None else {}
            connection.connect()
            connection.sock.settimeout(SILENCE_MAX_S)
            connection.request(method, f"/v1/models/{path}", body, headers)
            yield connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"the model cache of this node: {error!r}", where=self._host) from error
        finally:
            connection.close()


def of_this_node(environment: Mapping[str, str]) -> NodeCache | None:
    """The cache that the pod was told of, if it was."""
    url = environment.get(URL_VARIABLE, "")
    return NodeCache(url, Path(TOKEN_FOLDER, TOKEN_FILE)) if url else None


def unpack(found: Found, folder: Path) -> None:
    """Write its files below `folder`. Raises Damaged if there are not as many bytes as it told."""
    for path, size in found.contents.files:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            left = size
            while left:
                chunk = found.body.read(min(CHUNK_BYTES, left))
                if not chunk:
                    raise Damaged("is shorter than it should be", where=found.tag)
                file.write(chunk)
                left -= len(chunk)


def contents_of(folder: Path, digest: str, stamp: str) -> Contents:
    """Of a model's folder."""
    files = sorted((path.relative_to(folder).as_posix(), path.stat().st_size) for path in _files(folder))
    return Contents(digest, stamp, tuple(files))


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _bytes_of(line: bytes, contents: Contents, folder: Path) -> Iterator[bytes]:
    yield line
    for path, _ in contents.files:
        with (folder / path).open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk


def _refused(answer: http.client.HTTPResponse) -> TrimtabError:
    said = answer.read(1_000).decode(errors="replace").strip()
    return Unreachable(f"the model cache of this node answered {answer.status}: {said}")
