"""Pods that serve and hang, looked at over real sockets: what gives one up, and what must not."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import aiohttp.web
import pytest

from trimtab.core.clock import ManualClock
from trimtab.core.names import EndpointName
from trimtab.core.revision import RevisionKey
from trimtab.fleet.kubernetes import lives
from trimtab.fleet.kubernetes.lives import Lives
from trimtab.fleet.kubernetes.seen import SeenPod
from trimtab.fleet.readiness import Prober

KEY = RevisionKey(EndpointName("team", "iris"), 1)
TIMEOUT_S = 30.0


class FakeServer:
    """Answers 503 while `red` says why; says nothing while `silent`."""

    def __init__(self) -> None:
        self.red, self.silent, self.port = "", False, 0
        self.asked: list[str] = []

    async def answer(self, request: aiohttp.web.BaseRequest) -> aiohttp.web.StreamResponse:
        self.asked.append(request.path_qs)
        if self.silent and request.transport is not None:
            request.transport.abort()
        return aiohttp.web.Response(status=503 if self.red else 200, text=self.red)


@pytest.fixture
async def servers() -> AsyncIterator[tuple[FakeServer, FakeServer]]:
    """The model's, and that of the sidecar."""
    made = (FakeServer(), FakeServer())
    runners = []
    for each in made:
        runner = aiohttp.web.ServerRunner(aiohttp.web.Server(each.answer))
        await runner.setup()
        site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        each.port = runner.addresses[0][1]
        runners.append(runner)
    yield made
    for runner in runners:
        await runner.cleanup()


class Looking:
    """Looks at one pod of an MLflow model, by a clock that is moved by hand."""

    def __init__(self, pod: SeenPod) -> None:
        self.pod, self.timeout_s, self.clock = pod, TIMEOUT_S, ManualClock()
        self.hung: list[str] = []
        self.lives = Lives(
            self.clock, lambda: [self.pod], lambda _: self.timeout_s, lambda _, cause: self.hung.append(cause)
        )

    async def look(self, prober: Prober, times: int = 1, apart_s: float = 15.0) -> list[str]:
        for _ in range(times):
            await self.lives.look(prober)
            self.clock.advance(apart_s)
        return self.hung


@pytest.fixture
async def prober() -> AsyncIterator[Prober]:
    made = Prober()
    yield made
    await made.close()


@pytest.fixture
def looking(servers: tuple[FakeServer, FakeServer], monkeypatch: pytest.MonkeyPatch) -> Looking:
    model, hold = servers
    monkeypatch.setattr(lives, "HOLD_PORT", hold.port)
    pod = SeenPod("iris-r1-x", KEY, 0.0, "127.0.0.1", answers=True, gate=True, can_hold=True, port=model.port)
    return Looking(pod)


async def test_one_that_calls_itself_stuck_twice_is_given_up(
    looking: Looking, servers: tuple[FakeServer, FakeServer], prober: Prober
) -> None:
    model, _ = servers
    assert await looking.look(prober, 3) == []
    model.red = "a prediction has run for 46 s\nmore"
    assert await looking.look(prober) == [], "the first may meet the end of it"
    assert await looking.look(prober) == ["it hangs: a prediction has run for 46 s"]
    assert set(model.asked) == {"/health/live?within=45"}
    looking.timeout_s = 300.0
    await looking.look(prober)
    assert model.asked[-1] == "/health/live?within=315", "a change of it starts no pod anew"


async def test_of_many_each_is_looked_at_so_many_a_second(
    looking: Looking, servers: tuple[FakeServer, FakeServer], prober: Prober
) -> None:
    model, _ = servers
    pods = [replace(looking.pod, name=f"iris-r1-{number}") for number in range(60)]
    many, began_s = Lives(looking.clock, lambda: pods, lambda _: TIMEOUT_S, lambda *_: None), time.monotonic()
    await many.look(prober)
    assert len(model.asked) == len(pods) <= lives.PER_S * (time.monotonic() - began_s) + 1


async def test_silence_counts_while_the_container_beside_it_answers(
    looking: Looking, servers: tuple[FakeServer, FakeServer], prober: Prober
) -> None:
    model, _ = servers
    model.silent = True
    assert await looking.look(prober, 4) == [], "45 s"
    (cause,) = await looking.look(prober)
    assert cause == "it hangs: nothing was answered for 60 s, while the container beside it answers"


async def test_a_network_that_is_away_takes_no_pod_along(
    looking: Looking, servers: tuple[FakeServer, FakeServer], prober: Prober
) -> None:
    model, hold = servers
    model.silent = hold.silent = True
    assert await looking.look(prober, 30) == []
    hold.silent = False
    assert await looking.look(prober, 3) == [], "from when it could be told"
    assert await looking.look(prober)


@pytest.mark.parametrize(
    "change",
    [
        lambda pod: replace(pod, gate=False),
        lambda pod: replace(pod, leaving=True),
        lambda pod: replace(pod, deleting=True),
        lambda pod: replace(pod, runtime="custom"),
    ],
)
async def test_what_does_not_serve_or_cannot_say_it_is_not_asked(
    looking: Looking,
    servers: tuple[FakeServer, FakeServer],
    prober: Prober,
    change: Callable[[SeenPod], SeenPod],
) -> None:
    model, _ = servers
    looking.pod = change(looking.pod)
    model.red = "stuck"
    assert await looking.look(prober, 3) == []
    assert model.asked == []


async def test_without_a_sidecar_silence_is_nobodys(
    looking: Looking, servers: tuple[FakeServer, FakeServer], prober: Prober
) -> None:
    model, _ = servers
    looking.pod = replace(looking.pod, can_hold=False)
    model.silent = True
    assert await looking.look(prober, 30) == []
    model.silent, model.red = False, "stuck"
    assert await looking.look(prober, 2) == ["it hangs: stuck"]
