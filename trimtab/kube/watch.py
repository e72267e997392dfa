"""A mirror of the objects of one kind: listed once, then watched, and listed again only when it must be."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import orjson

from trimtab.core.errors import TrimtabError
from trimtab.kube.api import Api, Expired, Json, Resource, meaning

PAGE = 500
WATCH_S = 300  # the server ends a watch then, and we resume it where it was
TURN_S = 0.005  # of the loop, for what has come: a burst of hundreds of events takes longer
SILENCE_MAX_S = 150.0  # without even a bookmark, which comes each minute: the connection is dead
RETRY_FIRST_S = 0.2
RETRY_MAX_S = 10.0

T = TypeVar("T")
Key = tuple[str, str]  # namespace and name

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Selection:
    """Which objects: of a kind, with certain labels, in one namespace or in all (empty)."""

    resource: Resource
    labels: str = ""
    namespace: str = ""


class Mirror(Generic[T]):
    """Keeps `objects` as the API server has them, while `follow` runs.

    Each object is read by `read` from its JSON into as little as is needed; one that cannot be read is told
    in the log and passed over: it harms no other. `changed` is called with the key of whatever was set or
    went away. A list replaces all; between two lists the watch is resumed from the last version seen,
    bookmarks included.
    """

    def __init__(
        self,
        api: Api,
        selection: Selection,
        read: Callable[[Json], T],
        changed: Callable[[Key], None] = lambda _: None,
    ) -> None:
        self.objects: dict[Key, T] = {}
        self.listed = asyncio.Event()  # once the first list is complete
        self.lists = 0
        self.watches = 0
        self._api = api
        self._selection = selection
        self._read = read
        self.changed = changed
        self.version = ""  # of the last that was seen, bookmarks included; empty: to be listed
        self.heard_at_s = float("-inf")  # of the server last (monotonic): a bookmark comes each minute
        self._rest_s = RETRY_FIRST_S

    async def follow(self) -> None:
        """List, then watch, until it is cancelled. What goes wrong is tried again, ever more slowly."""
        while True:
            try:
                if not self.version:
                    await self._list()
                await self._watch()
                await asyncio.sleep(RETRY_FIRST_S)  # a server that ends each watch at once is not asked more
            except Expired:
                _logger.info("%s: our version is too old, listing anew", self._selection.resource.plural)
                self.version = ""
            except (TrimtabError, ValueError) as error:  # ValueError: half a line, or one above all bounds
                _logger.warning("watching %s: %s", self._selection.resource.plural, error)
                await asyncio.sleep(self._rest_s * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
                self._rest_s = min(RETRY_MAX_S, self._rest_s * 2)

    async def _list(self) -> None:
        path = self._selection.resource.path(self._selection.namespace)
        found: dict[Key, T] = {}
        query = {"limit": str(PAGE)} | self._labels()
        while True:
            page = orjson.loads(await self._page(path, query))
            for each in page["items"]:
                self._put(found, each)
            query["continue"] = page["metadata"].get("continue", "")
            if not query["continue"]:
                break
        self.version = page["metadata"]["resourceVersion"]
        self.heard_at_s = time.monotonic()
        before, self.objects = self.objects, found
        self.lists += 1
        for key in before.keys() | found.keys():
            if before.get(key) != found.get(key):
                self.changed(key)
        self.listed.set()

    async def _page(self, path: str, query: dict[str, str]) -> bytes:
        return await self._api.get(path, {name: value for name, value in query.items() if value})

    async def _watch(self) -> None:
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self.version,
            "timeoutSeconds": str(WATCH_S),
        }
        path = self._selection.resource.path(self._selection.namespace)
        self.watches += 1
        async with self._api.stream(path, query | self._labels(), SILENCE_MAX_S) as lines:
            until_s = time.monotonic() + TURN_S
            while line := await lines.readline():
                self.heard_at_s = time.monotonic()
                self._take(orjson.loads(line), path)
                self._rest_s = RETRY_FIRST_S
                if time.monotonic() >= until_s:  # `readline` waits for nothing while there are lines
                    await asyncio.sleep(0)
                    until_s = time.monotonic() + TURN_S

    def _take(self, event: dict[str, Any], path: str) -> None:
        kind, body = event["type"], event["object"]
        if kind == "ERROR":
            raise meaning(body.get("code", 500), orjson.dumps(body), path)
        self.version = body["metadata"]["resourceVersion"]
        if kind == "BOOKMARK":
            return
        key = _key(body)
        if kind == "DELETED":
            self.objects.pop(key, None)
        else:
            self._put(self.objects, body)
        self.changed(key)

    def _put(self, objects: dict[Key, T], body: Json) -> None:
        key = _key(body)
        try:
            objects[key] = self._read(body)
        except Exception as error:  # noqa: BLE001 -- whatever is wrong with it, the others are watched on
            objects.pop(key, None)
            _logger.warning("%s %s/%s is passed over: %r", self._selection.resource.plural, *key, error)

    def _labels(self) -> dict[str, str]:
        return {"labelSelector": self._selection.labels} if self._selection.labels else {}


def _key(body: Json) -> Key:
    metadata = body["metadata"]
    return metadata.get("namespace", ""), metadata["name"]
