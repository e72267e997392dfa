"""The control API over gRPC: translates messages, leaves the work to others."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, Protocol, TypeVar

import grpc

from trimtab.control import codec
from trimtab.control.changes import Changes, Conditions
from trimtab.control.endpoints import Endpoints
from trimtab.control.reconcile import Reconciler
from trimtab.control.replay import checked, replay, replay_message
from trimtab.control.store import Store
from trimtab.control.wire_errors import DETAILS_KEY, TEXT_BYTES_MAX, code_of, cut, message_of, to_details
from trimtab.core.clock import Clock
from trimtab.core.errors import InvalidInput, TrimtabError
from trimtab.core.names import EndpointName
from trimtab.core.revision import RevisionKey
from trimtab.fleet.protocol import Fleet
from trimtab.v1 import control_pb2 as v1
from trimtab.v1 import control_pb2_grpc

log = logging.getLogger(__name__)

WATCH_APART_S = 0.2
WATCH_EACH_S = 5.0  # a watcher that waits for nothing is answered at least this often
LIST_MAX = 1_000
LOG_LINES_MAX = 10_000
DEFAULT_GRACE_S = 30.0
GRACE_MAX_S = 3_600.0

Context = grpc.aio.ServicerContext[Any, Any]
Request = TypeVar("Request")
Response = TypeVar("Response")


class PlatformView(Protocol):
    """What the API needs of the platform around it."""

    def describe(self) -> v1.Platform: ...

    def endpoint(self, name: EndpointName) -> v1.Endpoint: ...

    async def prune(self, *, dry_run: bool) -> v1.PruneResponse: ...

    def stop(self, grace_s: float) -> None: ...


def _answers(
    method: Callable[[Any, Request, Context], Awaitable[Response]],
) -> Callable[[Any, Request, Context], Awaitable[Response]]:
    """Tells a TrimtabError as a status with details; anything else as INTERNAL, and it is logged."""

    @functools.wraps(method)
    async def answer(self: Any, request: Request, context: Context) -> Response:
        try:
            return await method(self, request, context)
        except Exception as error:
            await refuse(context, error)
            raise AssertionError("abort does not return") from error

    return answer


def _streams(
    method: Callable[[Any, Request, Context], AsyncGenerator[Response, None]],
) -> Callable[[Any, Request, Context], AsyncIterator[Response]]:
    """The same for a call that answers with a stream; the method is closed however the stream ends."""

    @functools.wraps(method)
    async def answer(self: Any, request: Request, context: Context) -> AsyncIterator[Response]:
        try:
            async with contextlib.aclosing(method(self, request, context)) as responses:
                async for response in responses:
                    yield response
        except Exception as error:  # noqa: BLE001 - told to the caller, and logged there
            await refuse(context, error)

    return answer


async def refuse(context: Context, error: Exception) -> None:
    if isinstance(error, TrimtabError):
        await context.abort(code_of(error), message_of(error), ((DETAILS_KEY, to_details(error)),))
    log.error("a call of the control API failed", exc_info=error)
    await context.abort(grpc.StatusCode.INTERNAL, cut(f"internal error: {error!r}", TEXT_BYTES_MAX))


class ControlApi(control_pb2_grpc.ControlServicer):
    """One method per call of proto/trimtab/v1/control.proto, where each is described."""

    def __init__(
        self,
        endpoints: Endpoints,
        store: Store,
        fleet: Fleet,
        reconciler: Reconciler,
        platform: PlatformView,
        clock: Clock,
        changes: Changes,
    ) -> None:
        self._endpoints = endpoints
        self._store = store
        self._fleet = fleet
        self._reconciler = reconciler
        self._platform = platform
        self._clock = clock
        self._changes = changes

    @_answers
    async def CreateEndpoint(self, request: v1.CreateEndpointRequest, context: Context) -> v1.Endpoint:
        return await self._apply(request.ref, request.spec, Conditions(request.by, must="create"))

    @_answers
    async def UpdateEndpoint(self, request: v1.UpdateEndpointRequest, context: Context) -> v1.Endpoint:
        asked = Conditions(request.by, "update", request.expected_generation)
        return await self._apply(request.ref, request.spec, asked)

    @_answers
    async def ApplyEndpoint(self, request: v1.ApplyEndpointRequest, context: Context) -> v1.Endpoint:
        asked = Conditions(request.by, client_stages_s=dict(request.client_stages_s))
        return await self._apply(request.ref, request.spec, asked)

    @_answers
    async def GetEndpoint(self, request: v1.GetEndpointRequest, context: Context) -> v1.Endpoint:
        return self._platform.endpoint(codec.endpoint_name(request.ref))

    @_answers
    async def ListEndpoints(
        self, request: v1.ListEndpointsRequest, context: Context
    ) -> v1.ListEndpointsResponse:
        names = [record.name for record in self._endpoints.all()]
        wanted = [name for name in names if request.namespace in ("", name.namespace)]
        return v1.ListEndpointsResponse(endpoints=[self._platform.endpoint(name) for name in wanted])

    @_answers
    async def DeleteEndpoint(
        self, request: v1.DeleteEndpointRequest, context: Context
    ) -> v1.DeleteEndpointResponse:
        name = codec.endpoint_name(request.ref)
        await self._changes.delete(name)
        log.info("%s: deletion asked for by %s", name, request.by or "somebody")
        self._reconciler.wake.set()
        return v1.DeleteEndpointResponse()

    @_streams
    async def WatchEndpoint(
        self, request: v1.GetEndpointRequest, context: Context
    ) -> AsyncGenerator[v1.Endpoint, None]:
        name = codec.endpoint_name(request.ref)
        last = self._platform.endpoint(name)
        yield last
        while any(record.name == name for record in self._endpoints.all()):
            now = self._platform.endpoint(name)
            if now != last:
                yield now
                last = now
            await self._next_look()
            await asyncio.sleep(WATCH_APART_S)

    @_answers
    async def ListHistory(self, request: v1.ListHistoryRequest, context: Context) -> v1.ListHistoryResponse:
        changes = self._endpoints.history(codec.endpoint_name(request.ref), _limit(request.limit, 50))
        return v1.ListHistoryResponse(
            changes=[
                v1.Change(
                    generation=change.generation,
                    at_s=change.at_s,
                    by=change.by,
                    what=change.what,
                    revision=change.revision,
                    spec=codec.spec_to_proto(change.spec),
                    outcome=change.outcome,
                )
                for change in changes
            ]
        )

    @_answers
    async def RollbackEndpoint(self, request: v1.RollbackEndpointRequest, context: Context) -> v1.Endpoint:
        name = codec.endpoint_name(request.ref)
        await self._changes.rollback(name, request.revision, request.by)
        self._reconciler.wake.set()
        return self._platform.endpoint(name)

    @_answers
    async def ListDecisions(
        self, request: v1.ListDecisionsRequest, context: Context
    ) -> v1.ListDecisionsResponse:
        name = codec.endpoint_name(request.ref)
        self._endpoints.get(name)
        before_s = request.before_s or self._clock.wall_s() + 1.0
        limit = _limit(request.limit, 20)
        found = self._store.log.latest(
            name, limit, before_s, axis=request.axis, changes_only=request.changes_only
        )
        return v1.ListDecisionsResponse(decisions=found)

    @_answers
    async def ReplayDecisions(
        self, request: v1.ReplayDecisionsRequest, context: Context
    ) -> v1.ReplayDecisionsResponse:
        name, changed = codec.endpoint_name(request.ref), dict(request.set)
        self._endpoints.get(name)
        checked(changed)
        until_s = request.until_s or self._clock.wall_s() + 1.0
        log = self._store.log.to_replay(name, request.since_s, until_s)
        # Hours of decisions take seconds: beside the loop, which goes on deciding.
        found = await asyncio.to_thread(replay, log, changed)
        return replay_message(found, request.since_s)

    @_streams
    async def StreamLogs(
        self, request: v1.StreamLogsRequest, context: Context
    ) -> AsyncGenerator[v1.LogLine, None]:
        keys = self._revisions_to_tell(request)
        logs = self._merged_logs(keys, _lines(request.lines), request.follow)
        async with contextlib.aclosing(logs):
            async for pod, line in logs:
                yield v1.LogLine(pod=pod, line=line)

    @_answers
    async def GetPlatform(self, request: v1.GetPlatformRequest, context: Context) -> v1.Platform:
        return self._platform.describe()

    @_answers
    async def Prune(self, request: v1.PruneRequest, context: Context) -> v1.PruneResponse:
        return await self._platform.prune(dry_run=request.dry_run)

    @_answers
    async def Shutdown(self, request: v1.ShutdownRequest, context: Context) -> v1.ShutdownResponse:
        if not 0 <= request.grace_s <= GRACE_MAX_S:
            hint = f"0 to {GRACE_MAX_S:.0f} seconds"
            raise InvalidInput(f"is {request.grace_s:g}", where="grace_s", hint=hint)
        self._platform.stop(request.grace_s or DEFAULT_GRACE_S)
        return v1.ShutdownResponse()

    async def _apply(self, ref: v1.EndpointRef, spec: v1.Spec, asked: Conditions) -> v1.Endpoint:
        name = codec.endpoint_name(ref)
        record = await self._changes.apply(name, codec.spec_from_proto(name, spec), asked)
        log.info("%s: generation %d by %s", name, record.generation, asked.by or "somebody")
        self._reconciler.spec_changed(name)
        return self._platform.endpoint(name)

    def _revisions_to_tell(self, request: v1.StreamLogsRequest) -> list[RevisionKey]:
        name = codec.endpoint_name(request.ref)
        record = self._endpoints.get(name)
        if request.revision and request.revision not in self._endpoints.revisions(name):
            hint = f"see `trimtab history {name.short}`"
            raise InvalidInput(
                f"`{name.short}` has no revision {request.revision}", where="revision", hint=hint
            )
        numbers = (
            {request.revision} if request.revision else {record.wanted_revision, record.serving_revision}
        )
        return [RevisionKey(name, number) for number in sorted(numbers - {0})]

    async def _merged_logs(
        self, keys: list[RevisionKey], lines: int, follow: bool
    ) -> AsyncGenerator[tuple[str, str], None]:
        """The lines of several revisions, in turn, or side by side while following."""
        if not follow:
            for key in keys:
                async for told in self._fleet.follow_log(key, lines, False):
                    yield told
            return
        queue: asyncio.Queue[tuple[str, str] | Exception | None] = asyncio.Queue(maxsize=LOG_LINES_MAX)
        tasks = [asyncio.create_task(self._copy_log(key, lines, queue)) for key in keys]
        try:
            left = len(tasks)
            while left:
                found = await queue.get()
                if isinstance(found, Exception):
                    raise found
                if found is None:
                    left -= 1
                else:
                    yield found
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _copy_log(
        self, key: RevisionKey, lines: int, to: asyncio.Queue[tuple[str, str] | Exception | None]
    ) -> None:
        """Puts None at the end, or what went wrong."""
        try:
            async for told in self._fleet.follow_log(key, lines, True):
                await to.put(told)
        except Exception as error:  # noqa: BLE001 - raised by who reads the queue
            await to.put(error)
        else:
            await to.put(None)

    async def _next_look(self) -> None:
        try:
            async with asyncio.timeout(WATCH_EACH_S), self._reconciler.looked:
                await self._reconciler.looked.wait()
        except TimeoutError:
            return


def _limit(asked: int, default: int) -> int:
    if asked < 0 or asked > LIST_MAX:
        raise InvalidInput(f"is {asked}", where="limit", hint=f"1 to {LIST_MAX}, or 0 for {default}")
    return asked or default


def _lines(asked: int) -> int:
    if asked < 0 or asked > LOG_LINES_MAX:
        raise InvalidInput(f"is {asked}", where="lines", hint=f"1 to {LOG_LINES_MAX}, or 0 for 100")
    return asked or 100
