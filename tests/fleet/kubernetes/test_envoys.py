"""The count of Envoys: read, and written when it should be another one."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from trimtab.autoscaler.envoys import Sizing
from trimtab.core.clock import ManualClock
from trimtab.core.errors import Conflict, InvalidInput, Unreachable
from trimtab.fleet.kubernetes.envoys import READ_AGAIN_AFTER_S, Envoys, Sized, parse_sized
from trimtab.fleet.kubernetes.scale import LOOK_EACH_S

WRITES_2 = ["GET", "PATCH 2"]  # to what was read just before
PATH = "/apis/apps/v1/namespaces/trimtab/deployments/t-envoy/scale"


@dataclass
class World:
    """An API server, the time, and what Envoys tell."""

    count: int = 1
    busy: dict[str, float] = field(default_factory=dict)
    there: set[str] = field(default_factory=set)
    away: bool = False
    calls: list[str] = field(default_factory=list)
    written: int = 0  # how often, by anybody
    stopped: bool = False  # we are, between our look and our write: another one writes 5
    clock: ManualClock = field(default_factory=ManualClock)

    async def get(self, path: str) -> bytes:
        return self._answer("GET", path)

    async def merge(self, path: str, body: dict[str, Any]) -> bytes:
        if self.stopped:
            self.count, self.written = 5, self.written + 1
        if body["metadata"]["resourceVersion"] != str(self.written):
            raise Conflict("it changed meanwhile")
        if not self.away:
            self.count, self.written = body["spec"]["replicas"], self.written + 1
        return self._answer(f"PATCH {body['spec']['replicas']}", path)

    def _answer(self, call: str, path: str) -> bytes:
        assert path == PATH
        if self.away:
            raise Unreachable("no answer")
        self.calls.append(call)
        spec = {"replicas": self.count} if self.count else {}
        return orjson.dumps({"metadata": {"resourceVersion": str(self.written)}, "spec": spec})

    def envoys(self) -> Envoys:
        sized = Sized("trimtab", "t-envoy", Sizing(2, 6, down_window_s=20.0))
        return Envoys(self, self.clock, sized, lambda _: self.busy, lambda: self.there)  # type: ignore[arg-type]

    def tell(self, *busy: float) -> None:
        self.busy = {f"envoy-{number}": share for number, share in enumerate(busy)}
        self.there = set(self.busy)


async def looks(envoys: Envoys, world: World, count: int) -> None:
    for _ in range(count):
        await envoys.look()
        world.clock.advance(LOOK_EACH_S)


async def test_the_count_follows_the_load_and_is_written_when_it_changes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    world = World()
    envoys = world.envoys()
    await looks(envoys, world, 2)
    assert world.calls == ["GET", *WRITES_2], "of the chart there is one; no more is asked while it holds"
    world.tell(0.9, 0.8)
    await looks(envoys, world, 2)
    assert world.calls[3:] == ["GET", "PATCH 4"]
    assert "Envoys: 4, before 2; 2 used 1.70 of a worker together, the busiest 0.90" in caplog.text
    world.tell(0.1, 0.1, 0.1, 0.1)
    await looks(envoys, world, 3)
    assert world.calls[5:] == [], "not before the window is over"
    await looks(envoys, world, 1)
    assert world.calls[5:] == WRITES_2


async def test_what_somebody_changed_is_set_back() -> None:
    world = World()
    envoys = world.envoys()
    world.tell(0.1, 0.1)
    await looks(envoys, world, 1)
    world.count = 0
    await looks(envoys, world, int(READ_AGAIN_AFTER_S / LOOK_EACH_S) + 1)
    assert world.calls == ["GET", *WRITES_2, "GET", *WRITES_2]


async def test_who_was_stopped_between_its_look_and_its_write_takes_nothing_back() -> None:
    world = World()
    envoys = world.envoys()
    world.tell(0.1, 0.1)
    world.stopped = True
    await looks(envoys, world, 1)
    assert world.count == 5
    world.stopped = False
    await looks(envoys, world, 1)
    assert world.calls == ["GET", "GET", "GET"], "it looks anew, and 5 are there until the window is over"


async def test_one_that_is_there_and_silent_keeps_them_all() -> None:
    world = World(count=4)
    envoys = world.envoys()
    world.tell(0.1, 0.1, 0.1)
    world.there |= {"silent"}
    await looks(envoys, world, 10)
    assert world.count == 4
    world.there -= {"silent"}
    await looks(envoys, world, 6)
    assert world.count == 2


async def test_an_api_server_that_is_away_is_told_of_once_and_asked_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World(away=True)
    envoys = world.envoys()
    world.tell(0.1, 0.1)
    await looks(envoys, world, 3)
    assert caplog.text.count("the number of Envoys was not set: no answer") == 1
    world.away = False
    await looks(envoys, world, 1)
    assert world.count == 2
    world.tell(1.0, 1.0)
    world.away = True
    await looks(envoys, world, 1)
    world.away, world.count = False, 3
    await looks(envoys, world, 1)
    assert world.calls[-3:] == ["GET", "GET", "PATCH 4"], "read again: who knows what was written"


def test_which_envoys_is_read() -> None:
    found = parse_sized("trimtab/t-envoy:min=2,max=10", 0.5, 300.0)
    assert found == Sized("trimtab", "t-envoy", Sizing(2, 10, 0.5, 300.0))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "t-envoy:min=2,max=3",
        "ns/e",
        "ns/e:min=2",
        "ns/e:min=3,max=2",
        "ns/e:min=0,max=2",
        "ns/e:min=1,max=2,x=1",
    ],
)
def test_what_names_no_envoys_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="names no Envoys") as raised:
        parse_sized(text, 0.5, 300.0)
    assert raised.value.where == "--envoys"
