"""Calls to the API server: JSON out, bytes in, and errors that say what to do.

The official client's `kubernetes.aio` finds the server, the certificates and the token (from a kubeconfig, or
in a pod) and keeps the connections; its typed objects, which cost half a millisecond a pod, stay unused.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode
from urllib.request import getproxies_environment

import aiohttp
import orjson
from aiohttp.http_exceptions import LineTooLong
from kubernetes.aio import client, config
from yaml import YAMLError

from trimtab.core.errors import (
    Conflict,
    Exhausted,
    Failed,
    InvalidInput,
    NotFound,
    Problem,
    TrimtabError,
    Unauthorised,
    Unreachable,
)

Json = dict[str, Any]

CALL_TIMEOUT_S = 30.0
ERROR_BYTES_MAX = 1 << 20

_NO_SHAPE = (AttributeError, LookupError, TypeError, ValueError)  # of YAML that is no kubeconfig
_NO_KUBECONFIG = (config.ConfigException, OSError, YAMLError, *_NO_SHAPE)
_APPLY = "application/apply-patch+yaml"  # JSON is YAML too


class Expired(Conflict):
    """The server no longer knows the version that was asked for: 410 Gone. List anew."""


@dataclass(frozen=True)
class Resource:
    """A kind of object as its paths spell it: `Resource("apps/v1", "deployments")`."""

    version: str
    plural: str

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Of one object, of those in a namespace, or of all."""
        root = f"/apis/{self.version}" if "/" in self.version else f"/api/{self.version}"
        within = f"/namespaces/{namespace}" if namespace else ""
        parts = "".join(f"/{part}" for part in (name, subresource) if part)
        return f"{root}{within}/{self.plural}{parts}"


class Api:
    """One API server. Make it with `connect`, inside the running loop; `close` it there too.

    `owner` is the field manager of all that is written: what others have set stays theirs. `guard` is called
    before each write, and raises if we may not write any more.
    """

    def __init__(self, inner: client.ApiClient, owner: str) -> None:
        self._inner = inner
        self.owner = owner
        self.guard: Callable[[], None] = lambda: None

    @classmethod
    async def connect(cls, owner: str, kubeconfig: str | None = None, context: str | None = None) -> Api:
        """By `kubeconfig`, or as a pod if that is None and we are one. Raises InvalidInput."""
        # Else each call would look for proxies anew, and for a ~/.netrc.
        settings = client.Configuration(client_session_kwargs={"trust_env": bool(getproxies_environment())})
        try:
            if kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ:
                config.load_incluster_config(client_configuration=settings)
            else:
                await config.load_kube_config(kubeconfig, context, client_configuration=settings)
            return cls(client.ApiClient(settings), owner)
        except _NO_KUBECONFIG as error:
            hint = "give a kubeconfig: export KUBECONFIG=FILE; `kubectl get nodes` should work with it"
            raise InvalidInput(
                f"no Kubernetes to speak to: {error}", where="kubeconfig", hint=hint
            ) from error

    async def close(self) -> None:
        """Drop the connections."""
        await self._inner.close()

    async def get(
        self, path: str, query: Mapping[str, str] | None = None, accept: str = "application/json"
    ) -> bytes:
        """What is there. Raises NotFound, Unauthorised, Unreachable or Failed."""
        return await self._call("GET", path, query, accept=accept)

    async def apply(self, path: str, body: Json, owner: str = "", *, force: bool = True) -> bytes:
        """Server-side apply: our fields become as `body` has them, whoever set them before.

        `owner` is the field manager, ours by default. Without `force` what another one has set otherwise
        raises Conflict.
        """
        query = {"fieldManager": owner or self.owner, "force": "true" if force else "false"}
        return await self._call("PATCH", path, query, body, _APPLY)

    async def create(self, path: str, body: Json, query: Mapping[str, str] | None = None) -> bytes:
        """A new object. Raises Conflict if it is there."""
        named = {"fieldManager": self.owner} | dict(query or {})
        return await self._call("POST", path, named, body)

    async def replace(self, path: str, body: Json) -> bytes:
        """The whole object, as it was read: Conflict if somebody has written it since."""
        return await self._call("PUT", path, {"fieldManager": self.owner}, body)

    async def merge(self, path: str, body: Json) -> bytes:
        """Changes the fields in `body`; lists are merged by their keys. Raises NotFound and the others."""
        kind = "application/strategic-merge-patch+json"
        return await self._call("PATCH", path, {"fieldManager": self.owner}, body, kind)

    async def delete(self, path: str, body: Json | None = None) -> None:
        """Begin to delete; what is not there is no error."""
        try:
            await self._call("DELETE", path, None, body)
        except NotFound:
            return

    @asynccontextmanager
    async def stream(
        self, path: str, query: Mapping[str, str], read_timeout_s: float
    ) -> AsyncIterator[aiohttp.StreamReader]:
        """The lines of an answer that goes on. Raises as `get` does."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CALL_TIMEOUT_S, sock_read=read_timeout_s)
        with _explained(path):
            answer = await self._send("GET", path, query, None, {"Accept": "application/json"}, timeout)
            with _until_left(answer):
                if answer.status != 200:
                    raise meaning(answer.status, await answer.content.read(ERROR_BYTES_MAX), path)
                yield answer.content

    async def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Json | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> bytes:
        if method != "GET":
            self.guard()
        timeout = aiohttp.ClientTimeout(total=CALL_TIMEOUT_S)
        with _explained(path):
            headers = {"Accept": accept, "Content-Type": content_type}
            answer = await self._send(method, path, query, body, headers, timeout)
            with _until_left(answer):
                content: bytes = await answer.read()
        if answer.status >= 300:
            raise meaning(answer.status, content, path)
        return content

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Json | None,
        headers: dict[str, str],
        within: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        whole = f"{path}?{urlencode(query)}" if query else path
        made = await self._inner.param_serialize(
            method, whole, header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        answer = await self._inner.call_api(*made, _request_timeout=within)
        response: aiohttp.ClientResponse = answer.response
        return response


@contextmanager
def _until_left(answer: aiohttp.ClientResponse) -> Iterator[None]:
    """Of an answer that is left before its end the connection ends at once.

    Else TLS waits for the other side's farewell: for half a minute where that is gone.
    """
    transport = None if answer.connection is None else answer.connection.transport
    try:
        yield
    finally:
        if transport is not None and not answer.content.is_eof():  # it is kept for another call after that
            transport.abort()
        answer.close()


@contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        hint = "see whether the API server runs: `kubectl get --raw /readyz`"
        told = str(error) or "no answer in time"
        raise Unreachable(f"the API server does not answer: {told}", where=path, hint=hint) from error
    except LineTooLong as error:  # neither a ClientError nor a ValueError: whoever reads would end by it
        raise Failed("a line of the answer has no end", where=path) from error


def quota_of(message: str) -> str:
    """` `NAME`` of the quota that the API server says is exceeded; empty if it says none."""
    found = re.search(r"exceeded quota: ([^,\s]+)", message)
    return f" `{found[1]}`" if found else ""


def meaning(status: int, content: bytes, path: str) -> TrimtabError:
    """What the API server refused, in its own words, as one of our errors."""
    try:
        said = orjson.loads(content)
    except orjson.JSONDecodeError:
        said = {}
    message = said.get("message") or f"status {status}"
    if status in (400, 422):
        causes = (said.get("details") or {}).get("causes") or ()
        problems = tuple(Problem(each.get("field", ""), each.get("message", "")) for each in causes)
        return InvalidInput(message, where=path, problems=problems)
    if status == 403 and "exceeded quota" in message:
        hint = f"raise the ResourceQuota{quota_of(message)} of the namespace, or free some of it"
        return Exhausted(message, where=path, hint=hint)
    if status == 403 and "is being terminated" in message:
        hint = "wait until its namespace has gone and make it anew, or use another one"
        return Failed(message, where=path, hint=hint)
    if status == 403 and "not yet ready to handle request" in message:  # of its admission, as it begins
        kind, hint = _BUSY
        return kind(message, where=path, hint=hint)
    if status == 404 and message.startswith("namespaces "):
        hint = "make it first (`kubectl create namespace NAME`), or use another one"
        return NotFound(message, where=path, hint=hint)
    kind, hint = _MEANINGS.get(status, (Failed, ""))
    return kind(message, where=path, hint=hint)


_BUSY: tuple[type[TrimtabError], str] = (Unreachable, "the API server is busy or starts: try again")
_MEANINGS: dict[int, tuple[type[TrimtabError], str]] = {
    401: (Unauthorised, "its token was not taken: see whoever made it"),
    403: (Unauthorised, "give whoever asked a Role that allows it"),
    404: (NotFound, ""),
    409: (Conflict, "it changed meanwhile: try again"),
    410: (Expired, "list anew"),
    429: _BUSY,
    500: _BUSY,
    503: _BUSY,
    504: _BUSY,
}
