"""The follower's side: serves Envoys what the leader published last, and tells it what they say.

It serves on with what it has while there is no leader. What Envoys tell of their requests meanwhile is not
kept: it is unknown to the next leader, as it would be if nobody had been there. The leader is the one that
the Lease names, in the term that the Lease shows: messages of another one, which slept through the end of
its lease for example, are not taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import grpc

from trimtab.control.replicas.changes import Replica, streams_message
from trimtab.control.replicas.leader import BEAT_S, SILENCE_MAX_S
from trimtab.control.running import relay
from trimtab.core.clock import Clock
from trimtab.core.errors import InvalidInput, Unreachable
from trimtab.envoy.intake import Flushes
from trimtab.envoy.otlp import Flush
from trimtab.kube.lease import Holder
from trimtab.v1 import replication_pb2 as v1
from trimtab.v1.replication_pb2_grpc import ReplicationStub
from trimtab.xds.server import AdsServer, StreamStatus

RETRY_FIRST_S = 0.2
RETRY_MAX_S = 2.0
REPORTS_APART_S = 0.05  # what changes meanwhile is one report
FLUSHES_MAX = 64  # that wait to be handed on: a minute of one Envoy
FLUSHES_BYTES_MAX = 32 << 20
FLUSH_AGE_MAX_S = 3.0  # the leader takes what comes for news
FLUSH_BYTES_MAX = 12 << 20  # a server of ours takes messages of 16 MB

log = logging.getLogger(__name__)

Connect = Callable[[str], grpc.aio.Channel]


@dataclass(frozen=True)
class _Waiting:
    """A flush that is to be handed on."""

    messages: tuple[bytes, ...]
    at_s: float

    @property
    def size(self) -> int:
        return sum(map(len, self.messages))


class Follower:
    """Follows whoever leads, by what `saw` was told last; `serve` is called with something to serve."""

    def __init__(
        self, name: str, ads: AdsServer, clock: Clock, connect: Connect, serve: Callable[[], Awaitable[None]]
    ) -> None:
        self._name = name
        self._ads = ads
        self._clock = clock
        self._connect = connect
        self._serve = serve
        self._holder: Holder | None = None
        self._moved = asyncio.Event()  # another one leads, or nobody
        self._news = asyncio.Event()  # for the leader
        self._flushes = Flushes(clock, self._gathered)
        self._waiting: deque[_Waiting] = deque()
        self._following = False
        self.dropped = 0  # flushes that no leader was told of

    def saw(self, holder: Holder | None) -> None:
        """Who holds the Lease now; None: nobody."""
        if holder != self._holder:
            self._holder = holder
            self._moved.set()

    def take(self, message: bytes) -> None:
        """A message of an Envoy's statistics."""
        self._flushes.take(message)

    async def run(self) -> None:
        """Until it is cancelled. Raises what `serve` raises."""
        rest_s = RETRY_FIRST_S
        telling = asyncio.create_task(relay(self._ads.changed, self._news))
        try:
            while True:
                self._moved.clear()
                holder = self._holder
                if holder is None or not holder.address:
                    await self._moved.wait()
                    continue
                began_s = self._clock.now_s()
                await self._followed(holder)
                lived = self._clock.now_s() - began_s > SILENCE_MAX_S
                rest_s = RETRY_FIRST_S if lived or self._moved.is_set() else min(RETRY_MAX_S, 2 * rest_s)
                await asyncio.sleep(rest_s * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)

    async def _followed(self, holder: Holder) -> None:
        """One stream, to its end: whatever ends it, it is tried again."""
        try:
            async with self._connect(holder.address) as channel:
                call: Any = ReplicationStub(channel).Follow()  # type: ignore[call-arg]  # without an iterator we write
                try:
                    await self._exchange(holder, call)
                finally:
                    call.cancel()
        except grpc.aio.AioRpcError as error:
            log.info("%s is not followed: %s %s", holder.name, error.code().name, error.details())
        except (InvalidInput, Unreachable, TimeoutError) as error:
            log.info("%s is not followed: %s", holder.name, str(error) or "it is silent")

    async def _exchange(self, holder: Holder, call: Any) -> None:
        replica = Replica(self._ads.snapshot)
        hello = v1.FollowerHello(follower=self._name, term=holder.term, versions=replica.versions)
        await call.write(v1.FollowerMessage(hello=hello))
        self._waiting.clear()
        self._following = True
        tasks = {
            asyncio.create_task(self._hear(holder, call, replica)),
            asyncio.create_task(self._tell(call)),
            asyncio.create_task(_set(self._moved)),
        }
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._following = False
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _hear(self, holder: Holder, call: Any, replica: Replica) -> None:
        while True:
            async with asyncio.timeout(SILENCE_MAX_S):
                message = await call.read()
            if message is grpc.aio.EOF:  # type: ignore[attr-defined]
                raise Unreachable(f"{await call.code()}: {await call.details()}")
            if message.term != holder.term:
                raise InvalidInput(f"it leads in term {message.term}, and the Lease is in {holder.term}")
            snapshot = replica.take(message)
            if snapshot is not None:
                self._ads.publish(snapshot)
                await self._serve()

    async def _tell(self, call: Any) -> None:
        told: tuple[StreamStatus, ...] | None = None
        told_at_s = 0.0
        while True:
            self._news.clear()
            streams, now_s = self._ads.streams(), self._clock.now_s()
            if streams != told or now_s - told_at_s >= BEAT_S:
                await call.write(streams_message(streams))
                told, told_at_s = streams, now_s
                await asyncio.sleep(REPORTS_APART_S)
            while self._waiting:
                flush = self._waiting.popleft()
                if self._clock.now_s() - flush.at_s <= FLUSH_AGE_MAX_S:
                    await call.write(
                        v1.FollowerMessage(statistics=v1.StatisticsFlush(messages=flush.messages))
                    )
                else:
                    self.dropped += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S):
                    await self._news.wait()

    def _gathered(self, _flush: Flush, messages: tuple[bytes, ...], began_s: float) -> None:
        flush = _Waiting(messages, began_s)
        if not self._following or flush.size > FLUSH_BYTES_MAX:
            self.dropped += 1
            return
        self._waiting.append(flush)
        size = sum(one.size for one in self._waiting)
        while len(self._waiting) > FLUSHES_MAX or size > FLUSHES_BYTES_MAX:
            size -= self._waiting.popleft().size
            self.dropped += 1
        self._news.set()


async def _set(event: asyncio.Event) -> None:
    await event.wait()
