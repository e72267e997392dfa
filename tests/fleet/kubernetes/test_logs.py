"""Lines of pods' logs, as an API server gives them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from tests.kube.words import until
from trimtab.core.errors import InvalidInput, NotFound
from trimtab.fleet.kubernetes import logs
from trimtab.fleet.kubernetes.logs import Logs

PODS = ("a/iris-r1-x", "a/iris-r1-y")


class Server:
    """Has the logs of containers that have begun, by pod and container."""

    def __init__(self, written: Mapping[tuple[str, str], str]) -> None:
        self.written = dict(written)
        self.asked: list[tuple[str, str]] = []

    @asynccontextmanager
    async def stream(
        self, path: str, query: Mapping[str, str], _silence_s: float
    ) -> AsyncIterator[asyncio.StreamReader]:
        asked = path.split("/")[6], query["container"]
        self.asked.append(asked)
        if asked not in self.written:
            raise InvalidInput(f"container {asked[1]} is waiting to start: PodInitializing")
        if self.written[asked] == "gone":
            raise NotFound("no such pod")
        reader = asyncio.StreamReader()
        reader.feed_data(self.written[asked].encode())
        reader.feed_eof()
        yield reader


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LOOK_EACH_S", 0.01)


async def told(server: Server, *, follow: bool, count: int | None = None) -> list[tuple[str, str]]:
    found = []
    async for line in Logs(server).follow(lambda: PODS, 10, follow):  # type: ignore[arg-type]
        found.append(line)
        if len(found) == count:
            break
    return sorted(found)


async def test_a_pod_whose_model_is_being_brought_tells_of_that() -> None:
    """And one that has gone of nothing."""
    server = Server({("iris-r1-x", "bring"): "brings\nit\n", ("iris-r1-y", "model"): "gone"})
    assert await told(server, follow=False) == [(PODS[0], "brings"), (PODS[0], "it")]


async def test_one_that_serves_tells_what_its_server_wrote_alone() -> None:
    server = Server({("iris-r1-x", "model"): "serves\n", ("iris-r1-x", "bring"): "brought\n"})
    assert await told(server, follow=False) == [(PODS[0], "serves")]


async def test_who_follows_waits_for_the_server() -> None:
    server = Server({("iris-r1-x", "bring"): "brings\n"})
    following = asyncio.create_task(told(server, follow=True, count=1))
    await until(lambda: server.asked.count(("iris-r1-x", "model")) >= 3)
    server.written["iris-r1-x", "model"] = "serves\n"
    assert await asyncio.wait_for(following, 10) == [(PODS[0], "serves")]
    assert ("iris-r1-x", "bring") not in server.asked


async def test_whoever_takes_their_time_with_a_line_gets_the_others_all_the_same() -> None:
    """As one does who sends them on."""
    server = Server({("iris-r1-x", "model"): "a\nb\nc\n", ("iris-r1-y", "model"): "d\n"})
    found = []
    async for _, line in Logs(server).follow(lambda: PODS, 10, False):  # type: ignore[arg-type]
        await asyncio.sleep(2 * logs.LOOK_EACH_S)
        found.append(line)
    assert sorted(found) == ["a", "b", "c", "d"]
