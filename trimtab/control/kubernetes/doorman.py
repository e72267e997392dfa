"""The control API over the network: each call names somebody by a token, who must have the right to it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from trimtab.control import codec
from trimtab.control.api import refuse
from trimtab.control.kubernetes.access import Access, Asked, User
from trimtab.core.errors import Unauthorised
from trimtab.v1 import control_pb2 as v1

SERVICE = "/trimtab.v1.Control/"
BEARER = "bearer "

# What each call takes. Nothing is listed for what only the pod itself may ask.
_VERBS: dict[str, tuple[str, ...]] = {
    "CreateEndpoint": ("create",),
    "UpdateEndpoint": ("patch",),
    "ApplyEndpoint": ("create", "patch"),
    "GetEndpoint": ("get",),
    "ListEndpoints": ("list",),
    "DeleteEndpoint": ("delete",),
    "WatchEndpoint": ("get",),
    "ListHistory": ("get",),
    "RollbackEndpoint": ("patch",),
    "ListDecisions": ("get",),
    "ReplayDecisions": ("get",),
    "StreamLogs": ("get",),
    "GetPlatform": (),
}


def wanted(method: str, request: Any) -> tuple[Asked, ...]:
    """What a call would do. Raises Unauthorised if it is not for the network, InvalidInput for a bad name."""
    if method not in _VERBS:
        hint = "kubectl exec deploy/trimtab-control -- trimtab …"
        raise Unauthorised(f"{method} is for the control plane's own pod", where="control API", hint=hint)
    if isinstance(request, v1.ListEndpointsRequest):
        return (Asked("list", request.namespace),)
    if not _VERBS[method]:
        return ()
    name = codec.endpoint_name(request.ref)
    # The name of what is made anew is no part of the question, as it is not for the API server.
    found = [Asked(verb, name.namespace, "" if verb == "create" else name.name) for verb in _VERBS[method]]
    if method == "StreamLogs":
        found.append(Asked("get", name.namespace, group="", resource="pods", subresource="log"))
    return tuple(found)


class Doorman(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # takes none as it runs
    """Stands before every call of a server; who asked is put into what is asked, for the history."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        """See grpc.aio."""
        handler = await continuation(details)
        if handler is None:
            return None
        method = details.method.removeprefix(SERVICE)
        token = _token(details.invocation_metadata)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(method, token, handler.unary_stream),
                handler.request_deserializer,
                handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._call(method, token, handler.unary_unary),
            handler.request_deserializer,
            handler.response_serializer,
        )

    def _call(self, method: str, token: str, inner: Any) -> Any:
        async def answer(request: Any, context: Any) -> Any:
            user = await self._let_in(method, token, request, context)
            answer = await inner(request, context)
            if isinstance(answer, v1.Platform) and not await self._sees_all(user):
                _hide(answer)
            return answer

        return answer

    def _stream(self, method: str, token: str, inner: Any) -> Any:
        async def answer(request: Any, context: Any) -> AsyncIterator[Any]:
            await self._let_in(method, token, request, context)
            async with contextlib.aclosing(inner(request, context)) as answers:
                async for each in answers:
                    yield each

        return answer

    async def _sees_all(self, user: User) -> bool:
        try:
            await self._access.check(user, Asked("list"))
        except Unauthorised:
            return False
        return True

    async def _let_in(self, method: str, token: str, request: Any, context: Any) -> User:
        try:
            user = await self._access.user(token)
            for asked in wanted(method, request):
                await self._access.check(user, asked)
        except Exception as error:
            await refuse(context, error)
            raise AssertionError("abort does not return") from error
        _name(request, user)
        return user


def _hide(platform: v1.Platform) -> None:
    """Envoy's words name whatever it refused, which may be somebody else's."""
    for envoy in platform.envoys:
        for subscription in envoy.subscriptions:
            if subscription.nack:
                subscription.nack = "refused; whoever may list the endpoints of all namespaces is told why"
    platform.ClearField("warnings")


def _name(request: Any, user: User) -> None:
    if "by" in request.DESCRIPTOR.fields_by_name:
        request.by = user.name


def _token(metadata: Any) -> str:
    """What stands behind `authorization: Bearer`; empty if nothing does."""
    for key, value in metadata or ():
        if key.lower() == "authorization" and isinstance(value, str) and value.lower().startswith(BEARER):
            return value[len(BEARER) :].strip()
    return ""
