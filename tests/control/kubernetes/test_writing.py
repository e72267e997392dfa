"""Status is written of every endpoint, whatever is wrong with another one's."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from tests.kube.words import until
from trimtab.control.kubernetes import writing
from trimtab.control.kubernetes.objects import read_endpoint
from trimtab.control.kubernetes.store import KubernetesStore
from trimtab.control.kubernetes.writing import Writer
from trimtab.core.clock import ManualClock, SystemClock
from trimtab.v1 import control_pb2 as v1


class Server:
    """Takes what is written."""

    def __init__(self) -> None:
        self.statuses: dict[str, dict[str, Any]] = {}
        self.version = 1

    async def apply(self, path: str, body: dict[str, Any]) -> bytes:
        self.version += 1
        self.statuses[body["metadata"]["name"]] = body.get("status", {})
        return orjson.dumps({**body, "metadata": body["metadata"] | {"resourceVersion": str(self.version)}})


async def test_one_that_cannot_be_looked_at_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "ROUND_S", 0.1)
    names = ("a", "b")
    metadata = {"namespace": "team", "uid": "u", "resourceVersion": "1"}
    metadata |= {"finalizers": ["serving.trimtab.dev/drain"]}
    objects = {("team", each): read_endpoint({"metadata": metadata | {"name": each}}) for each in names}
    told = {each: v1.Endpoint(status=v1.Status(state=v1.DEPLOYING)) for each in names}
    server = Server()
    view = lambda name: told[name.name]  # noqa: E731
    writer = Writer(server, SystemClock(), KubernetesStore(), lambda: objects, view, {})  # type: ignore[arg-type]
    running = asyncio.create_task(writer.run())
    try:
        await until(lambda: running.done() or server.statuses.keys() == set(names))
        del told["a"]  # a slip of ours: its view raises
        told["b"] = v1.Endpoint(status=v1.Status(state=v1.READY))
        await until(lambda: running.done() or server.statuses["b"].get("state") == "READY")
        assert not running.done()
        assert server.statuses["b"]["state"] == "READY"
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_what_is_told_from_the_same_is_not_told_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "ROUND_S", 0.1)
    metadata = {"name": "a", "namespace": "team", "uid": "u", "resourceVersion": "1"}
    metadata |= {"finalizers": ["serving.trimtab.dev/drain"]}
    objects = {("team", "a"): read_endpoint({"metadata": metadata})}
    told = v1.Endpoint(status=v1.Status(state=v1.DEPLOYING))
    made_from: list[tuple[object, ...] | None] = [("one",)]
    views = 0

    def view(_name: object) -> v1.Endpoint:
        nonlocal views
        views += 1
        return told

    asked = 0

    def by(_name: object) -> tuple[object, ...] | None:
        nonlocal asked
        asked += 1
        return made_from[0]

    server = Server()
    writer = Writer(
        server,  # type: ignore[arg-type]
        SystemClock(),
        KubernetesStore(),
        lambda: objects,
        view,
        {},
        told_by=by,
    )
    running = asyncio.create_task(writer.run())

    async def rest() -> None:
        """Until it was looked at some times more."""
        until_asked = asked + 4
        await until(lambda: asked >= until_asked)

    try:
        await until(lambda: server.statuses.get("a", {}).get("state") == "DEPLOYING")
        await rest()
        before = views
        await rest()
        assert views == before
        told.status.state = v1.READY
        await rest()
        assert server.statuses["a"]["state"] == "DEPLOYING", "by its word nothing has changed"
        made_from[0] = None  # nobody knows
        await until(lambda: server.statuses["a"]["state"] == "READY")
        told.status.state = v1.FAILED
        made_from[0] = ("one",)  # the same as before the last write: what that told is not what this says
        await until(lambda: server.statuses["a"]["state"] == "FAILED")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_how_many_pods_are_ready_is_written_of_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many endpoints whose pods come and go; what they are is written at once all the same."""
    monkeypatch.setattr(writing, "ROUND_S", 0.1)
    names = [f"e{number}" for number in range(30)]
    metadata = {"namespace": "team", "uid": "u", "resourceVersion": "1"}
    metadata |= {"finalizers": ["serving.trimtab.dev/drain"]}
    objects = {("team", each): read_endpoint({"metadata": metadata | {"name": each}}) for each in names}

    def of(state: v1.State, ready: int) -> v1.Endpoint:
        pods = [v1.Pod(id=str(number), phase="ready") for number in range(ready)]
        revision = v1.Revision(number=1, pods_wanted=2, pods=pods)
        return v1.Endpoint(status=v1.Status(state=state, serving_revision=1, revisions=[revision]))

    told, clock, server = dict.fromkeys(names, of(v1.READY, 1)), ManualClock(), Server()
    view, looked = lambda name: told[name.name], 0

    def by(_name: object) -> None:
        nonlocal looked
        looked += 1

    writer = Writer(server, clock, KubernetesStore(), lambda: objects, view, {}, told_by=by)  # type: ignore[arg-type]
    running = asyncio.create_task(writer.run())

    def written(pods: str) -> int:
        return sum(each.get("pods") == pods for each in server.statuses.values())

    try:
        await until(lambda: written("1/2") == 30)
        writer._ready.per_s = 0.0  # the allowance is used up, and none comes
        told |= dict.fromkeys(names, of(v1.READY, 2))
        so_far = looked
        await until(lambda: looked >= so_far + 90)
        assert written("2/2") == 0
        told["e29"] = of(v1.UPDATING, 2)
        await until(lambda: server.statuses["e29"]["state"] == "UPDATING")
        clock.advance(writing.READY_LATE_S)
        await until(lambda: written("2/2") == 30)
        told |= dict.fromkeys(names, of(v1.READY, 1))
        writer._ready.per_s = 10.0
        await until(lambda: written("1/2") > 0)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
