"""What passes between a control plane and its API server is seen, and nothing of it is another."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from bench.scale.pods import SeenPod, Sightings
from bench.scale.tap import Events, Tap
from trimtab.kube import Key

SELECTED = {"watch": "true", "labelSelector": "serving.trimtab.dev/endpoint,serving.trimtab.dev/revision"}


def _event(kind: str, name: str, *, ready: bool = True) -> dict[str, object]:
    labels = {"serving.trimtab.dev/endpoint": "iris", "serving.trimtab.dev/revision": "1"}
    metadata = {"name": name, "namespace": "team", "uid": name, "labels": labels}
    conditions = [{"type": "ContainersReady", "status": str(ready)}]
    status = {"podIP": "10.0.0.1", "conditions": conditions}
    return {"type": kind, "object": {"metadata": metadata, "status": status}}


EVENTS = [
    _event("ADDED", "a", ready=False),
    _event("MODIFIED", "a"),
    {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "7"}}},
    _event("DELETED", "a"),
]
SHOWN = [("a", False), ("a", True), ("a", None)]


def _told(found: list[tuple[str, bool | None]]) -> Events:
    return Events(lambda key, pod: found.append((key[1], pod.ready if pod else None)))


@given(st.lists(st.integers(1, 400), min_size=1, max_size=8))
def test_events_are_read_in_any_pieces(sizes: list[int]) -> None:
    body = b"".join(json.dumps(event).encode() + b"\n" for event in EVENTS)
    chunks = [body[at : at + 100] for at in range(0, len(body), 100)]
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    raw += b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in chunks) + b"0\r\n\r\n"
    found: list[tuple[str, bool | None]] = []
    events, at, number = _told(found), 0, 0
    while at < len(raw):
        size = sizes[number % len(sizes)]
        events.feed(raw[at : at + size])
        at, number = at + size, number + 1
    assert found == SHOWN


def test_a_refusal_is_no_event_and_noise_no_answer() -> None:
    found: list[tuple[str, bool | None]] = []
    _told(found).feed(b"HTTP/1.1 410 Gone\r\nContent-Length: 18\r\n\r\n" + b'{"kind":"Status"}\n')
    assert not found
    with pytest.raises(ValueError, match="not an answer"):
        _told(found).feed(b"noise\r\n\r\n")


@pytest.fixture
async def server() -> AsyncIterator[int]:
    """An API server of which only pods are watched; of anything else it tells what it was asked."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.query.get("watch") != "true":
            return web.Response(text=f"{request.method} {request.path_qs} {await request.text()}")
        response = web.StreamResponse()
        await response.prepare(request)
        for event in EVENTS:
            await response.write(json.dumps(event).encode() + b"\n")
        return response

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield runner.addresses[0][1]
    await runner.cleanup()


async def test_all_passes_and_only_the_watch_of_pods_is_told(server: int) -> None:
    tap, found = Tap(("127.0.0.1", server), None), list[tuple[str, bool | None]]()
    tap.take = lambda key, pod: found.append((key[1], pod.ready if pod else None))
    url = await tap.open("127.0.0.1")
    whole = [json.dumps(event).encode() + b"\n" for event in EVENTS]
    try:
        async with aiohttp.ClientSession() as session:
            async with session.post(f"{url}/any?a=b", data=b"body") as answer:
                assert await answer.text() == "POST /any?a=b body"
            async with session.get(f"{url}/api/v1/pods", params={"watch": "true"}) as answer:
                assert await answer.read() == b"".join(whole)
            assert not found, "another selection than that of endpoints' pods"
            for _ in range(2):
                async with session.get(f"{url}/api/v1/pods", params=SELECTED) as answer:
                    assert await answer.read() == b"".join(whole)
                async with session.get(f"{url}/any") as answer:  # on the same connection
                    assert await answer.text() == "GET /any "
    finally:
        await tap.close()
    assert found == [*SHOWN, *SHOWN]


def test_a_pod_is_shown_once_for_each_life() -> None:
    def pod(uid: str, *, ready: bool = True, leaves: bool = False) -> SeenPod:
        return SeenPod(uid, "c", "10.0.0.1", ready, leaves)

    key: Key = ("team", "p")
    sightings, told = Sightings({("team", "old"): pod("o")}), list[tuple[str, str]]()
    sightings.shown = lambda pod: told.append(("shown", pod.uid))
    sightings.gone = lambda pod: told.append(("gone", pod.uid))
    for seen in (pod("1", ready=False), pod("1"), pod("1"), pod("2"), pod("2", leaves=True), None):
        sightings.take(key, seen)
    sightings.take(("team", "old"), pod("o"))
    assert told == [("shown", "1"), ("gone", "1"), ("shown", "2"), ("gone", "2")]
    assert sightings.ready == {("team", "old"): pod("o")}


def test_a_pod_that_answers_again_is_shown_again() -> None:
    sightings, told = Sightings(), list[str]()
    sightings.shown = lambda pod: told.append("shown")
    sightings.gone = lambda pod: told.append("gone")
    for ready in (True, False, False, True):
        sightings.take(("team", "p"), SeenPod("1", "c", "10.0.0.1", ready, leaves=False))
    assert told == ["shown", "gone", "shown"]
