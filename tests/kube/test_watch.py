"""What a mirror makes of objects that nobody expected. It needs no cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson

from tests.kube.words import until
from trimtab.kube import Key, Mirror, Resource, Selection


def pod(name: str, revision: str | None) -> dict[str, Any]:
    labels = {} if revision is None else {"revision": revision}
    return {"metadata": {"namespace": "team", "name": name, "resourceVersion": "7", "labels": labels}}


def revision_of(body: dict[str, Any]) -> int:
    return int(body["metadata"]["labels"]["revision"])


class Server:
    """Answers one list, then one watch that goes on."""

    def __init__(self, listed: list[dict[str, Any]]) -> None:
        self._listed = listed
        self.lines = asyncio.StreamReader()

    async def get(self, path: str, query: dict[str, str]) -> bytes:
        return orjson.dumps({"metadata": {"resourceVersion": "5"}, "items": self._listed})

    @asynccontextmanager
    async def stream(
        self, path: str, query: dict[str, str], read_timeout_s: float
    ) -> AsyncIterator[asyncio.StreamReader]:
        yield self.lines

    def tell(self, kind: str, body: dict[str, Any]) -> None:
        self.lines.feed_data(orjson.dumps({"type": kind, "object": body}) + b"\n")


async def test_an_object_that_cannot_be_read_harms_no_other() -> None:
    server = Server([pod("theirs", None), pod("a", "1"), pod("odd", "one")])
    heard: list[Key] = []
    mirror = Mirror(server, Selection(Resource("v1", "pods")), revision_of, heard.append)  # type: ignore[arg-type]
    following = asyncio.create_task(mirror.follow())
    try:
        await until(lambda: mirror.listed.is_set() or following.done())
        assert mirror.objects == {("team", "a"): 1}
        server.tell("ADDED", pod("another", None))
        server.tell("MODIFIED", pod("a", None))  # who may edit it took the label away
        server.tell("ADDED", pod("b", "2"))
        await until(lambda: ("team", "b") in heard or following.done())
        assert mirror.objects == {("team", "b"): 2}
        assert not following.done()
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
