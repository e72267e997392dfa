"""What is told as events, how fast, and in whose turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.kube.words import until
from trimtab.control.kubernetes import events as module
from trimtab.control.kubernetes.events import NOTE_MAX, Events, News
from trimtab.core.clock import SystemClock
from trimtab.core.errors import Failed
from trimtab.core.names import EndpointName

FLAPS, QUIET = EndpointName("noisy", "flaps"), EndpointName("quiet", "iris")
GONE = EndpointName("quiet", "gone")


class Server:
    """Takes events; `refuses` those of a namespace."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.refuses = ""

    async def create(self, path: str, body: dict[str, Any]) -> bytes:
        if self.refuses and f"/{self.refuses}/" in path:
            raise Failed("is being terminated")
        self.told.append(body)
        return b"{}"


class Seen:
    """An object, as far as an event tells of it."""

    uid = "u"


def events_to(server: Server) -> Events:
    api: Any = server
    seen: Callable[[EndpointName], Any] = lambda name: None if name == GONE else Seen()  # noqa: E731
    return Events(api, SystemClock(), "pod", seen)


async def told(events: Events, server: Server, count: int) -> list[str]:
    running = asyncio.create_task(events.run())
    await until(lambda: len(server.told) >= count, within_s=20)
    running.cancel()
    return [body["regarding"]["name"] for body in server.told]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PER_S", 1e6)


async def test_one_that_flaps_neither_delays_nor_pushes_out_anothers() -> None:
    server = Server()
    events = events_to(server)
    events.tell(News(QUIET, "Serving", "Reconcile", "the first"))
    for number in range(3 * module.WAITING_MAX):
        events.tell(News(FLAPS, "ScaledUp", "Scale", f"{number}"))
    events.tell(News(QUIET, "Serving", "Reconcile", "the second"))
    names = await told(events, server, 2 + module.OF_ONE_MAX)
    assert names == ["iris", "flaps", "iris", *["flaps"] * (module.OF_ONE_MAX - 1)]
    notes = [body["note"] for body in server.told]
    assert notes[0] == "the first"
    assert notes[-1] == f"{3 * module.WAITING_MAX - 1}"


async def test_what_cannot_be_told_is_lost_and_holds_up_no_other() -> None:
    server = Server()
    server.refuses = "noisy"
    events = events_to(server)
    for name in (FLAPS, GONE, QUIET):
        events.tell(News(name, "Serving", "Reconcile", "x" * 2_000, warning=True))
    assert await told(events, server, 1) == ["iris"]
    (body,) = server.told
    assert (body["type"], body["regarding"]["uid"], len(body["note"])) == ("Warning", "u", NOTE_MAX)
    assert body["metadata"]["namespace"] == "quiet"


async def test_they_are_told_no_faster_than_their_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    rests: list[float] = []
    sleep = asyncio.sleep

    async def rest(seconds: float) -> None:
        rests.append(seconds)
        await sleep(0)

    monkeypatch.setattr(module, "PER_S", 7.0)
    server = Server()
    events = events_to(server)
    for _ in range(3):
        events.tell(News(QUIET, "Serving", "Reconcile", "again"))
    with monkeypatch.context() as patched:
        patched.setattr(module.asyncio, "sleep", rest)
        await told(events, server, 3)
    assert rests.count(1 / module.PER_S) >= 2, "one after each; the other rests are the test's own"
