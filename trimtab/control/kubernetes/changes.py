"""What the control API is asked for, written to ServingEndpoint objects as `kubectl apply` would."""

from __future__ import annotations

import asyncio
import contextlib
from weakref import WeakValueDictionary

import orjson

from trimtab.control.changes import Conditions
from trimtab.control.endpoints import Endpoints
from trimtab.control.kubernetes.objects import (
    ENDPOINTS,
    SeenEndpoint,
    identity,
    path_of,
    read_endpoint,
    spec_body,
    spec_of,
)
from trimtab.control.kubernetes.plane import Watched
from trimtab.control.kubernetes.watching import Intake
from trimtab.control.records import EndpointRecord
from trimtab.control.words import describe_rollback
from trimtab.core.errors import Conflict, NotFound
from trimtab.core.names import EndpointName
from trimtab.core.spec import EndpointSpec
from trimtab.kube import Api, Json

MANAGER = "trimtab-cli"  # owns the specs that come by the control API; what others own is left to them


class KubernetesChanges:
    """See `control.changes.Changes`. A change is taken from the API server's answer, as from its watch."""

    def __init__(self, api: Api, endpoints: Endpoints, watched: Watched, intake: Intake) -> None:
        self._api = api
        self._endpoints = endpoints
        self._watched = watched
        self._intake = intake
        self._turns: WeakValueDictionary[EndpointName, asyncio.Lock] = WeakValueDictionary()

    async def apply(self, name: EndpointName, spec: EndpointSpec, asked: Conditions) -> EndpointRecord:
        """See `Changes`. Raises Conflict too where another manager owns what would change."""
        body = {**identity(name), "spec": spec_body(spec)}
        self._endpoints.check(name, spec_of(read_endpoint(_as_written(body))))
        async with self._turns.setdefault(name, asyncio.Lock()):
            self._check_writable(name, asked)  # what was asked for while we waited is there by now
            with self._intake.asked(name, asked):
                seen = await self._write(name, body, asked)
                if seen.deleting:
                    raise _ends(name)
                self._watched.take(seen)
                self._intake.try_again(seen)
        problem = self._intake.problems.get(name)
        if problem is not None:
            raise problem
        return self._endpoints.get(name)

    async def rollback(self, name: EndpointName, number: int, by: str) -> None:
        """See `Changes`."""
        found, spec = self._endpoints.rolled_back(name, number)
        before = self._endpoints.get(name).wanted_revision
        what = describe_rollback(before, found.revision.key.number)
        await self.apply(name, spec, Conditions(by, what=what))

    async def delete(self, name: EndpointName) -> None:
        """See `Changes`."""
        self._endpoints.get(name)
        await self._api.delete(path_of(name))
        with contextlib.suppress(NotFound):  # the watch was sooner
            self._endpoints.delete(name)

    def _check_writable(self, name: EndpointName, asked: Conditions) -> None:
        """An object that drains takes what is written to it along, even when its endpoint has gone."""
        self._endpoints.check_writable(name, must=asked.must, expected_generation=asked.expected_generation)
        seen = self._watched.seen(name)
        if seen is not None and seen.deleting:
            raise _ends(name)

    async def _write(self, name: EndpointName, body: Json, asked: Conditions) -> SeenEndpoint:
        if asked.must == "create":
            answer = await self._api.create(ENDPOINTS.path(name.namespace), body)
        else:
            answer = await self._apply(name, body)
        return read_endpoint(orjson.loads(answer))

    async def _apply(self, name: EndpointName, body: dict[str, object]) -> bytes:
        try:
            return await self._api.apply(path_of(name), body, MANAGER, force=False)
        except Conflict as error:
            hint = (
                "change it where it is declared, for example in Git; or take it over:"
                " kubectl apply --server-side --force-conflicts --field-manager=trimtab-cli -f FILE"
            )
            raise Conflict(error.message, where=name.short, hint=hint) from error


def _ends(name: EndpointName) -> Conflict:
    hint = "wait until it is gone (`kubectl get servingendpoints`), then try again"
    return Conflict(f"`{name.short}` is being deleted", where="name", hint=hint)


def _as_written(body: dict[str, object]) -> dict[str, object]:
    """As if the API server had it already, to look at it before it has."""
    named = body["metadata"]
    assert isinstance(named, dict)
    return {**body, "metadata": {**named, "uid": "", "resourceVersion": "0"}}
