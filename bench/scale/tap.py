"""What the API server tells the control plane, seen on its way there.

Two watches of an API server that lacks a core are served tenths of a second apart, so that our own cannot
say when the control plane was shown a pod.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus, urlsplit

import httptools
import orjson
from kubernetes.aio import client, config

from bench.scale.pods import PODS, SeenPod, read_pod
from trimtab.fleet.kubernetes.template import ENDPOINT, REVISION
from trimtab.kube import Key

CHUNK_BYTES = 1 << 18
LABELS = f"labelSelector={ENDPOINT},{REVISION}"  # by which the control plane selects them
METHODS = b"GET ", b"POST ", b"PUT ", b"PATCH ", b"DELETE "
Take = Callable[[Key, SeenPod | None], object]


class Tap:
    """A port that leads to the API server. `take` is called with each event of pods that is passed on.

    It is called the moment after the event was handed to the control plane's connection.
    """

    def __init__(self, server: tuple[str, int], trust: ssl.SSLContext | None) -> None:
        self.take: Take = lambda _key, _pod: None
        self._server = server
        self._trust = trust
        self._listening: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    @classmethod
    async def before(cls, kubeconfig: Path) -> Tap:
        """Before the API server that `kubeconfig` names."""
        settings = client.Configuration()
        await config.load_kube_config(str(kubeconfig), client_configuration=settings)
        url = urlsplit(settings.host)
        trust = ssl.create_default_context(cafile=settings.ssl_ca_cert) if url.scheme == "https" else None
        return cls((str(url.hostname), url.port or 443), trust)

    async def open(self, host: str) -> str:
        """Returns the URL by which it is the API server."""
        self._listening = await asyncio.start_server(self._begin, host, 0)
        return f"http://{host}:{self._listening.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        if self._listening is not None:
            self._listening.close()
        for each in self._serving:
            each.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Kept until it has ended: the server itself would forget it with its connection."""
        serving = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        watched = asyncio.Event()
        try:
            with contextlib.suppress(OSError):
                inner = await asyncio.open_connection(*self._server, ssl=self._trust, limit=CHUNK_BYTES)
                await asyncio.gather(
                    self._requests(reader, inner[1], watched), self._answers(inner[0], writer, watched)
                )
        finally:
            writer.close()

    def _passed(self, key: Key, pod: SeenPod | None) -> None:
        self.take(key, pod)

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, watched: asyncio.Event
    ) -> None:
        try:
            while chunk := await reader.read(CHUNK_BYTES):
                if chunk.startswith(METHODS):  # of a request, whose head a client writes in one piece
                    watched.clear()
                    if _asks_for_pods(chunk):
                        watched.set()
                writer.write(chunk)
                await writer.drain()
        finally:
            writer.close()

    async def _answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, watched: asyncio.Event
    ) -> None:
        events = Events(self._passed)
        try:
            while chunk := await reader.read(CHUNK_BYTES):
                writer.write(chunk)
                if watched.is_set():
                    events.feed(chunk)
                await writer.drain()
        finally:
            writer.close()


def _asks_for_pods(chunk: bytes) -> bool:
    """Whether it is the head of a request to watch endpoints' pods."""
    line = unquote_plus(chunk.partition(b"\r\n")[0].decode("latin-1"))
    return line.startswith(f"GET {PODS.path()}?") and "watch=true" in line and LABELS in line


class Events:
    """The events in the encoded answer to a watch of pods, which may come in any pieces."""

    def __init__(self, take: Take) -> None:
        self._take = take
        self._parser = httptools.HttpResponseParser(self)
        self._begun = b""

    def feed(self, chunk: bytes) -> None:
        """Raises ValueError for what is no such answer."""
        try:
            self._parser.feed_data(chunk)
        except httptools.HttpParserError as error:
            raise ValueError(f"not an answer: {error}") from error

    def on_body(self, body: bytes) -> None:
        """The parser's call. What is refused is no event."""
        if self._parser.get_status_code() != 200:
            return
        *lines, self._begun = (self._begun + body).split(b"\n")
        for line in lines:
            self._event(orjson.loads(line))

    def _event(self, event: dict[str, Any]) -> None:
        kind, body = event["type"], event["object"]
        if kind in ("ADDED", "MODIFIED", "DELETED"):
            key = body["metadata"]["namespace"], body["metadata"]["name"]
            self._take(key, None if kind == "DELETED" else read_pod(body))
