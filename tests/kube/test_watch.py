"""What a mirror makes of objects that nobody expected. It needs no cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from tests.kube.answering import answering
from tests.kube.words import until
from trimtab.kube import Key, Mirror, Resource, Selection, watch


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


async def test_a_connection_that_has_died_without_a_word_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the machine of an API server goes: bookmarks would come, and none does."""
    monkeypatch.setattr(watch, "SILENCE_MAX_S", 0.2)
    asked: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            return web.json_response({"metadata": {"resourceVersion": "5"}, "items": [pod("a", "1")]})
        asked.append(request.query["resourceVersion"])
        response = web.StreamResponse()
        await response.prepare(request)
        body = pod("b", "2")
        await response.write(orjson.dumps({"type": "ADDED", "object": body}) + b"\n")
        await asyncio.Event().wait()
        return response

    async with answering(answer, tmp_path) as api:
        mirror = Mirror(api, Selection(Resource("v1", "pods")), revision_of)
        following = asyncio.create_task(mirror.follow())
        try:
            await until(lambda: len(asked) >= 2 or following.done())
            assert asked[:2] == ["5", "7"], "from where it was"
            assert mirror.objects == {("team", "a"): 1, ("team", "b"): 2}
            assert mirror.lists == 1
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
