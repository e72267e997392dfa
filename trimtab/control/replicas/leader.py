"""The leader's side: tells each follower what was published, and takes what it tells of its Envoys.

Nothing is queued here: each follower is told the way from what it was told last to what is published now, at
its own pace. Until `lead` is called nobody is told anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from trimtab.control.replicas.changes import messages, streams_of
from trimtab.v1 import replication_pb2 as v1
from trimtab.v1.replication_pb2_grpc import ReplicationServicer, add_ReplicationServicer_to_server
from trimtab.xds.server import AdsServer
from trimtab.xds.snapshot import Snapshot

BEAT_S = 2.0  # each side says something at least this often
SILENCE_MAX_S = 10.0  # then the other side is taken for gone
FOLLOWERS_MAX = 16

log = logging.getLogger(__name__)

TakeFlush = Callable[[Sequence[bytes]], Awaitable[None]]
Requests = AsyncIterator[v1.FollowerMessage]
Context = grpc.aio.ServicerContext[v1.FollowerMessage, v1.LeaderMessage]


@dataclass(frozen=True)
class _Lead:
    term: int
    take_flush: TakeFlush


class Leader(ReplicationServicer):
    """The service that followers call. Envoys of theirs are counted in `ads` for as long as they are heard.

    With a `name`, only who shows a certificate for that name is answered: it is ours and followers', and the
    same authority has signed Envoys'.
    """

    def __init__(self, ads: AdsServer, name: str = "") -> None:
        self._ads = ads
        self._name = name
        self._lead: _Lead | None = None
        self._streams: dict[str, object] = {}  # the newest of each follower

    def lead(self, term: int, take_flush: TakeFlush) -> None:
        """From now on, in this term of the Lease. `take_flush` takes statistics that followers hand on."""
        self._lead = _Lead(term, take_flush)

    def add_to(self, server: grpc.aio.Server) -> None:
        """Add the service to a server that is not yet started."""
        add_ReplicationServicer_to_server(self, server)

    async def Follow(self, requests: Requests, context: Context) -> None:  # type: ignore[override]  # noqa: N802
        lead = self._lead
        if not self._may_follow(context):
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, f"this is for {self._name} alone")
        if lead is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "this control plane does not lead")
        assert lead is not None
        hello = await _hello(requests, context)
        if hello.term != lead.term:
            told = f"this is the leader of term {lead.term}, not of {hello.term}"
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, told)
        if len(self._streams) >= FOLLOWERS_MAX and hello.follower not in self._streams:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{FOLLOWERS_MAX} follow already")
        await self._serve(lead, hello, requests, context)

    async def _serve(
        self, lead: _Lead, hello: v1.FollowerHello, requests: Requests, context: Context
    ) -> None:
        mine = self._streams[hello.follower] = object()
        log.info("%s follows", hello.follower)
        tasks = {
            asyncio.create_task(self._tell(lead.term, dict(hello.versions), context.write)),
            asyncio.create_task(self._hear(lead, hello.follower, mine, requests)),
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                with contextlib.suppress(TimeoutError):
                    task.result()
        finally:
            if self._streams.get(hello.follower) is mine:
                del self._streams[hello.follower]
                self._ads.relayed(hello.follower, ())
                log.info("%s does not follow any more", hello.follower)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _tell(
        self, term: int, versions: dict[str, str], write: Callable[[v1.LeaderMessage], Awaitable[None]]
    ) -> None:
        told: Snapshot | None = None
        with self._ads.publications() as published:
            while True:
                published.clear()
                snapshot = self._ads.snapshot
                if snapshot is not None and snapshot is not told:
                    for message in messages(term, snapshot, told, versions):
                        await write(message)
                    told = snapshot
                else:
                    await write(v1.LeaderMessage(term=term))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(BEAT_S):
                        await published.wait()

    async def _hear(self, lead: _Lead, follower: str, mine: object, requests: Requests) -> None:
        """Until it has ended, was silent for too long, or has opened another stream."""
        while self._streams.get(follower) is mine:
            async with asyncio.timeout(SILENCE_MAX_S):
                message = await anext(requests, None)
            if message is None or self._streams.get(follower) is not mine:
                return
            if message.HasField("envoys"):
                self._ads.relayed(follower, streams_of(message.envoys))
            elif message.HasField("statistics"):
                await lead.take_flush(message.statistics.messages)

    def _may_follow(self, context: Context) -> bool:
        if not self._name:
            return True
        shown: Any = context.auth_context()
        return self._name.encode() in shown.get("x509_subject_alternative_name", ())


async def _hello(requests: Requests, context: Context) -> v1.FollowerHello:
    message = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SILENCE_MAX_S):
            message = await anext(requests, None)
    if message is None or not message.hello.follower:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first message has to say who follows")
    assert message is not None
    return message.hello
