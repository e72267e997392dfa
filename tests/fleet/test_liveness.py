"""A pod that hangs without dying: noticed, told in plain words, and not taken for one that is slow."""

from __future__ import annotations

import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

import aiohttp
import pytest

from trimtab.core.clock import ManualClock
from trimtab.core.names import EndpointName
from trimtab.core.pod import Pod, PodPhase
from trimtab.core.revision import RevisionKey
from trimtab.fleet import life, liveness
from trimtab.fleet.liveness import Liveness
from trimtab.fleet.readiness import Answer, Heard
from trimtab.fleet.records import PodRecord

PodIn = Callable[..., Awaitable[Pod]]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(life, "LISTEN_EACH_S", 0.05)
    monkeypatch.setitem(life.LOOK_EACH_S, PodPhase.READY, 0.05)
    monkeypatch.setattr("trimtab.fleet.readiness.ASK_TIMEOUT_S", 0.3)
    monkeypatch.setattr(liveness, "MARGIN_S", 0.0)
    monkeypatch.setattr(liveness, "SILENT_MIN_S", 0.0)


async def get(pod: Pod, path: str) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"http://{pod.address}{path}") as response:
        assert response.status == 200


async def test_a_pod_that_somebody_stopped(new_fleet: Any, revision: Any, pod_in: PodIn, until: Any) -> None:
    fleet = await new_fleet()
    one, other = [await pod_in(fleet, await fleet.start_pod(revision()), PodPhase.READY) for _ in range(2)]
    os.killpg(one.process_id, signal.SIGSTOP)
    found = await pod_in(fleet, one.id, PodPhase.FAILED)
    assert found.cause == f"it hangs: its process {one.process_id} is stopped (SIGSTOP)"
    await until(fleet._pods[one.id].ended.is_set)
    assert (await pod_in(fleet, other.id, PodPhase.READY)).cause == "", "its neighbour serves on"


async def test_a_pod_that_is_silent_for_longer_than_anybody_waits(
    new_fleet: Any, revision: Any, pod_in: PodIn
) -> None:
    fleet = await new_fleet(request_timeout_s=lambda _: 2.0)
    pod = await pod_in(fleet, await fleet.start_pod(revision()), PodPhase.READY)
    await get(pod, "/paused")
    found = await pod_in(fleet, pod.id, PodPhase.FAILED)
    assert found.cause.startswith("it hangs: its port is open, but nothing was answered for ")


async def test_a_pod_that_is_silent_for_a_slow_prediction_is_left_alone(
    new_fleet: Any, revision: Any, pod_in: PodIn, until: Any
) -> None:
    fleet = await new_fleet(request_timeout_s=lambda _: 600.0)
    pod = await pod_in(fleet, await fleet.start_pod(revision()), PodPhase.READY)
    live = fleet._pods[pod.id]
    await get(pod, "/paused")
    await until(lambda: live._liveness._told[0] is Answer.SILENT and live._liveness._told[1] > 4)
    assert live.phase is PodPhase.READY
    live.folder.path.joinpath("go-on").touch()
    await until(lambda: live._liveness._told[0] is Answer.READY)
    assert live._liveness._silent_since_s is None


@pytest.mark.parametrize("path", ["/live?within={within_s:.0f}", ""])
async def test_a_pod_that_says_so_itself(
    new_fleet: Any, revision: Any, pod_in: PodIn, runtimes: Any, until: Any, path: str
) -> None:
    """Of a server of which nobody knows what it means by another status, any answer is a sign of life."""
    runtimes["fake"] = replace(runtimes["fake"], live_path=path)
    fleet = await new_fleet()
    pod = await pod_in(fleet, await fleet.start_pod(revision()), PodPhase.READY)
    await get(pod, "/sick")
    if path:
        assert (await pod_in(fleet, pod.id, PodPhase.FAILED)).cause.startswith("it hangs: ")
    else:
        live = fleet._pods[pod.id]
        await until(lambda: live._liveness._told[1] > 5)
        assert live.phase is PodPhase.READY


@pytest.mark.parametrize("how", ["paused", "frozen", "loops"])
async def test_a_server_that_nobody_knows_is_silent_while_it_is_busy(
    new_fleet: Any, revision: Any, pod_in: PodIn, runtimes: Any, until: Any, how: str
) -> None:
    """One that has a connection at a time has none for us, whatever it gets done meanwhile.

    Then it waits now and then, as for its next request; one in an endless loop never does.
    """
    runtimes["fake"] = replace(runtimes["fake"], live_path="")
    fleet = await new_fleet(request_timeout_s=lambda _: 1.0)
    pod = await pod_in(fleet, await fleet.start_pod(revision()), PodPhase.READY)
    await get(pod, f"/{how}")
    if how != "paused":
        assert "nothing was answered" in (await pod_in(fleet, pod.id, PodPhase.FAILED)).cause
    else:
        live = fleet._pods[pod.id]
        await until(lambda: live._liveness._told[0] is Answer.SILENT and live._liveness._told[1] > 6)
        assert live.phase is PodPhase.READY


class Asked:
    """A prober that notes what it is asked, and hears nothing unless told otherwise."""

    def __init__(self, answer: Answer = Answer.SILENT) -> None:
        self.paths: list[str] = []
        self.answer = answer

    async def hear(self, host: str, port: int, path: str) -> Heard:
        self.paths.append(path)
        return Heard(self.answer)


def watched(timeout_s: Callable[[], float], clock: ManualClock) -> Liveness:
    key = RevisionKey(EndpointName("default", "iris"), 1)
    return Liveness(PodRecord("p", key, 1, live_path="/live?{within_s:.0f}"), timeout_s, clock)


@pytest.mark.parametrize("answer", [Answer.READY, Answer.SILENT])
async def test_a_process_that_is_stopped_for_a_moment_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    """Whatever was heard before: its leader need not be the one that answers, and a busy pod is silent."""
    clock, found = ManualClock(), [0]
    pod = watched(lambda: 600.0, clock)
    monkeypatch.setattr(liveness, "stopped", lambda _: found[0])

    async def looks(*seen: int) -> list[str]:
        causes = []
        for found[0] in seen:
            clock.advance(5.0)
            causes.append(await pod.look(Asked(answer), 7, (7, 8)))  # type: ignore[arg-type]
        return causes

    assert not any(await looks(0, 0, 0, 0, 7, 0, 7, 7, 0, 7, 8, 8, 0))
    assert (await looks(7, 7, 7))[-1] == "it hangs: its process 7 is stopped (SIGSTOP)"


async def test_a_minute_of_silence_is_none_on_a_busy_machine_however_soon_callers_give_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(liveness, "SILENT_MIN_S", 60.0)
    clock, asked = ManualClock(), Asked()
    pod, silent_s = watched(lambda: 1.0, clock), 0
    while not (cause := await pod.look(asked, 0, ())):  # type: ignore[arg-type]
        clock.advance(5.0)
        silent_s += 5
    assert cause == "it hangs: its port is open, but nothing was answered for 60 s"
    assert silent_s == 60


async def test_a_lower_timeout_holds_once_requests_of_the_higher_are_gone() -> None:
    clock, asked, timeout_s = ManualClock(), Asked(), [100.0]
    pod = watched(partial(timeout_s.__getitem__, 0), clock)
    causes = []
    for later_s, now in ((0, 100.0), (50, 10.0), (99, 10.0), (2, 10.0), (1, 20.0)):
        clock.advance(later_s)
        timeout_s[0] = now
        causes.append(await pod.look(asked, 0, ()))  # type: ignore[arg-type]
    assert asked.paths == ["/live?100", "/live?100", "/live?10", "/live?10", "/live?20"]
    assert causes[:2] == ["", ""]
    assert causes[2] == "it hangs: its port is open, but nothing was answered for 149 s"
