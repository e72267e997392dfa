"""The cache of a node, as pods reach it over HTTP.

GET     /v1/models/KEY[?wait=S][&claim=1]  200 and the model, with its ETag; 404, with a claim if asked for:
                                           it is the caller's to bring; 202: another one is bringing it
PUT     /v1/models/KEY                     201; 507 if it does not fit
DELETE  /v1/models/KEY, with If-Match      204; gone, if it was that one
POST    /v1/models/KEY/claim               204 if it is still the caller's; 409
DELETE  /v1/models/KEY/claim               204; others need not wait any longer
GET     /healthz                           200

Who asks is told by a token of its pod, made for this cache alone. What a pod brings is kept for its service
account, which is that of its endpoint, in its namespace: nobody else is given it, or could have brought it.
What it brings is not read here: who takes it compares its digest.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path

import orjson
from aiohttp import web

from trimtab.core.clock import Clock
from trimtab.core.errors import Exhausted, TrimtabError
from trimtab.kube import Api, Resource
from trimtab.modelcache.claims import Claims
from trimtab.modelcache.shelf import Entry, Owner, Shelf
from trimtab.modelcache.words import AUDIENCE, CLAIM, WAIT_MAX_S

AT_ONCE_MAX = 256  # requests; those that wait included
SILENCE_MAX_S = 30.0  # of a pod, in the middle of a model
CHUNK_BYTES = 1 << 20
LOOK_EACH_S = 1.0
TOKEN_BYTES_MAX = 16 << 10
TOKEN_REVIEWS = Resource("authentication.k8s.io/v1", "tokenreviews")
_ACCOUNT = re.compile(r"system:serviceaccount:([a-z0-9-]{1,63}):([a-z0-9][a-z0-9.-]{0,252})")
_KEY = r"{key:[0-9a-f]{64}}"

OWNER: web.RequestKey[Owner] = web.RequestKey("owner", Owner)

log = logging.getLogger(__name__)

Identify = Callable[[str], Awaitable[Owner | None]]


class Server:
    """Answers pods. `identify` tells whose token it is, None if nobody's; it may raise."""

    def __init__(self, shelf: Shelf, identify: Identify, clock: Clock) -> None:
        self._shelf, self._identify, self._clock = shelf, identify, clock
        self._claims = Claims()
        self._changed = asyncio.Condition()
        self._busy = 0

    def app(self) -> web.Application:
        """To be run by aiohttp."""
        app = web.Application(middlewares=[self._guarded])
        path = f"/v1/models/{_KEY}"
        app.router.add_get("/healthz", self._healthy)
        app.router.add_get(path, self._get)
        app.router.add_put(path, self._put)
        app.router.add_delete(path, self._drop)
        app.router.add_post(f"{path}/claim", self._renew)
        app.router.add_delete(f"{path}/claim", self._release)
        return app

    @web.middleware
    async def _guarded(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.path == "/healthz":
            return await handler(request)
        if self._busy >= AT_ONCE_MAX:
            return web.Response(status=503, text="too much is asked of this cache")
        self._busy += 1
        try:
            owner = await self._who(request)
            if owner is None:
                return web.Response(status=401, text=f"show a token of your pod for {AUDIENCE}")
            request[OWNER] = owner
            return await handler(request)
        except Exhausted as error:
            return web.Response(status=507, text=str(error))
        except TrimtabError as error:
            return web.Response(status=503, text=str(error))
        finally:
            self._busy -= 1

    async def _who(self, request: web.Request) -> Owner | None:
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if kind != "Bearer" or not token or len(token) > TOKEN_BYTES_MAX:
            return None
        return await self._identify(token)

    async def _healthy(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _get(self, request: web.Request) -> web.StreamResponse:
        owner, key = _what(request)
        wait_s, may_claim = _wait(request), "claim" in request.query
        deadline_s = self._clock.now_s() + wait_s
        while True:
            entry = self._shelf.find(owner, key)
            if entry is not None:
                return await self._send(request, entry)
            if not may_claim:
                return web.Response(status=404)
            claim = secrets.token_hex(8)
            if self._claims.take((owner, key), claim, self._clock.now_s()):
                return web.Response(status=404, headers={CLAIM: claim})
            left_s = deadline_s - self._clock.now_s()
            if left_s <= 0:
                return web.Response(status=202)
            await self._some_change(min(left_s, LOOK_EACH_S))

    async def _send(self, request: web.Request, entry: Entry) -> web.StreamResponse:
        response = web.StreamResponse(headers={"ETag": entry.tag})
        response.content_length = entry.size
        response.content_type = "application/octet-stream"
        with entry.path.open("rb") as file:
            await response.prepare(request)
            while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
                async with asyncio.timeout(SILENCE_MAX_S):
                    await response.write(chunk)
        await response.write_eof()
        log.info("%s/%s was given %d bytes", entry.owner.namespace, entry.owner.account, entry.size)
        return response

    async def _put(self, request: web.Request) -> web.Response:
        owner, key = _what(request)
        size = request.content_length
        if not size:
            return web.Response(status=411, text="say how long it is")
        evicted = self._shelf.evicted
        with self._shelf.place(owner, key, size) as path:
            if not await _received(request, path):
                return web.Response(status=408, text="it did not come")
        log.info(
            "%s/%s brought %d bytes; %d models went", *_names(owner), size, self._shelf.evicted - evicted
        )
        await self._tell()
        return web.Response(status=201)

    async def _drop(self, request: web.Request) -> web.Response:
        owner, key = _what(request)
        tag = request.headers.get("If-Match", "")
        self._shelf.drop(owner, key, tag)
        log.info("%s/%s had %s taken away", *_names(owner), tag)
        return web.Response(status=204)

    async def _renew(self, request: web.Request) -> web.Response:
        claim = request.headers.get(CLAIM, "")
        renewed = self._claims.renew(_what(request), claim, self._clock.now_s())
        return web.Response(status=204 if renewed else 409)

    async def _release(self, request: web.Request) -> web.Response:
        self._claims.end(_what(request), request.headers.get(CLAIM, ""))
        await self._tell()
        return web.Response(status=204)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _some_change(self, within_s: float) -> None:
        try:
            async with asyncio.timeout(within_s), self._changed:
                await self._changed.wait()
        except TimeoutError:
            return


def token_reviews(api: Api) -> Identify:
    """Asks the API server whose a token is; whether its pod is still there is part of that."""

    async def identify(token: str) -> Owner | None:
        spec = {"token": token, "audiences": [AUDIENCE]}
        body = {"apiVersion": TOKEN_REVIEWS.version, "kind": "TokenReview", "spec": spec}
        status = orjson.loads(await api.create(TOKEN_REVIEWS.path(), body)).get("status") or {}
        if not status.get("authenticated") or AUDIENCE not in (status.get("audiences") or ()):
            return None
        found = _ACCOUNT.fullmatch((status.get("user") or {}).get("username", ""))
        return Owner(found[1], found[2]) if found else None

    return identify


async def _received(request: web.Request, path: Path) -> bool:
    """Whether all of it came; if not, what did is of no use."""
    length = 0
    with path.open("xb") as file:
        try:
            while True:
                async with asyncio.timeout(SILENCE_MAX_S):
                    chunk = await request.content.read(CHUNK_BYTES)
                if not chunk:
                    break
                await asyncio.to_thread(file.write, chunk)
                length += len(chunk)
        except TimeoutError:
            return False
    return length == request.content_length


def _what(request: web.Request) -> tuple[Owner, str]:
    return request[OWNER], request.match_info["key"]


def _names(owner: Owner) -> tuple[str, str]:
    return owner.namespace, owner.account


def _wait(request: web.Request) -> float:
    try:
        return min(WAIT_MAX_S, max(0.0, float(request.query.get("wait", "0"))))
    except ValueError:
        return 0.0
