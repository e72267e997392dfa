"""Who asks over the network, and whether they may: by the API server's own rights on ServingEndpoints.

A bearer token is shown to TokenReview; what is asked for, to SubjectAccessReview. So whoever may
`kubectl get` an endpoint may ask for it here, and nobody else. Answers are remembered for a while, up to a
bound.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

import orjson

from trimtab.core.clock import Clock
from trimtab.core.errors import Unauthorised
from trimtab.kube import Api, Json, Resource

TOKEN_REVIEWS = Resource("authentication.k8s.io/v1", "tokenreviews")
ACCESS_REVIEWS = Resource("authorization.k8s.io/v1", "subjectaccessreviews")
GROUP = "serving.trimtab.dev"
ALLOWED_S = 30.0  # for which a right that was taken away may still hold
REFUSED_S = 3.0  # one that was given holds soon
KEPT_MAX = 4_096  # answers, of each of the two kinds
AT_ONCE = 16  # reviews: who guesses tokens shall not keep the API server busy
TOKEN_BYTES_MAX = 16 << 10

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True)
class User:
    """As the API server knows them."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True)
class Asked:
    """What somebody wants to do: an empty namespace stands for all, an empty name for any."""

    verb: str
    namespace: str = ""
    name: str = ""
    group: str = GROUP
    resource: str = "servingendpoints"
    subresource: str = ""

    def __str__(self) -> str:
        whole = f"{self.resource}/{self.subresource}" if self.subresource else self.resource
        where = f"in the namespace `{self.namespace}`" if self.namespace else "in all namespaces"
        return f"{self.verb} {whole} {where}"


class Access:
    """Asks the API server, and remembers what it said."""

    def __init__(self, api: Api, clock: Clock) -> None:
        self._api = api
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._users: _Answers[bytes, User | None] = _Answers(clock)
        self._rights: _Answers[tuple[User, Asked], str | None] = _Answers(clock)

    async def user(self, token: str) -> User:
        """Whose token it is. Raises Unauthorised, or what the API server has to say."""
        if not token or len(token) > TOKEN_BYTES_MAX:
            hint = "send `authorization: Bearer TOKEN`; one of your own: kubectl create token NAME"
            raise Unauthorised("nobody is named: there is no bearer token", where="authorization", hint=hint)
        mark = hashlib.sha256(token.encode()).digest()  # the token itself is not kept
        found = await self._users.get(mark, lambda: self._whose(token), lambda user: user is not None)
        if found is None:
            hint = "it may have run out: make another one, or log in to the cluster anew"
            raise Unauthorised("the API server does not know this token", where="authorization", hint=hint)
        return found

    async def check(self, user: User, asked: Asked) -> None:
        """Raises Unauthorised if they may not."""
        refused = await self._rights.get(
            (user, asked), lambda: self._why_not(user, asked), lambda refused: refused is None
        )
        if refused is not None:
            hint = "give them a Role with that verb; the chart's ClusterRoles are part of `edit` and `view`"
            told = f": {refused}" if refused else ""
            raise Unauthorised(f"{user.name} may not {asked}{told}", where=GROUP, hint=hint)

    async def _whose(self, token: str) -> User | None:
        status = await self._review(TOKEN_REVIEWS, "TokenReview", {"token": token})
        if not status.get("authenticated"):
            return None
        told = status["user"]
        extra = tuple(sorted((key, tuple(values)) for key, values in (told.get("extra") or {}).items()))
        groups = tuple(told.get("groups") or ())
        return User(told["username"], told.get("uid", ""), groups, extra)

    async def _why_not(self, user: User, asked: Asked) -> str | None:
        """The reason that the API server gives, which may be empty; None: they may."""
        attributes = {
            "verb": asked.verb,
            "namespace": asked.namespace,
            "name": asked.name,
            "group": asked.group,
            "resource": asked.resource,
            "subresource": asked.subresource,
        }
        spec = {
            "user": user.name,
            "uid": user.uid,
            "groups": list(user.groups),
            "extra": {key: list(values) for key, values in user.extra},
            "resourceAttributes": attributes,
        }
        status = await self._review(ACCESS_REVIEWS, "SubjectAccessReview", spec)
        return None if status.get("allowed") else str(status.get("reason", ""))

    async def _review(self, resource: Resource, kind: str, spec: Json) -> Json:
        async with self._turn:
            body = {"apiVersion": resource.version, "kind": kind, "spec": spec}
            answer = await self._api.create(resource.path(), body)
        found: Json = orjson.loads(answer).get("status") or {}
        return found


class _Answers(Generic[K, V]):
    """Those that still hold; the oldest go first where there are too many."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: OrderedDict[K, tuple[float, V]] = OrderedDict()

    async def get(self, key: K, ask: Callable[[], Awaitable[V]], good: Callable[[V], bool]) -> V:
        """That of before, or a new one, which holds longer if it is `good`. What raises is not kept."""
        found = self._kept.get(key)
        if found is not None and self._clock.now_s() < found[0]:
            return found[1]
        answer = await ask()
        self._kept[key] = self._clock.now_s() + (ALLOWED_S if good(answer) else REFUSED_S), answer
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)
        return answer
