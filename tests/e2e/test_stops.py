"""The ways to end: only the control plane, or everything; requests under way are answered."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from trimtab.host.process import stray_members

pytestmark = pytest.mark.e2e


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as made:
        yield made


def under_way(platform: Any, until: Any, count: int) -> None:
    """Wait until as many requests are at their pods."""

    def in_flight() -> bool:
        return sum(pod.get("in_flight") or 0 for pod in platform.pods("slow")) >= count

    until(in_flight, what=f"{count} requests are under way")


def test_sigterm_hands_over_and_ctrl_c_stops_everything(
    platform: Any, models: dict[str, str], until: Any, callers: ThreadPoolExecutor
) -> None:
    foreground = platform.foreground()
    platform("deploy", models["waits"], "--name", "slow", "--concurrency", "2..2")
    before = (platform.pids("slow"), platform.envoy()["process_id"])

    during = callers.submit(platform.ask, "slow", 8.0)
    under_way(platform, until, 1)
    foreground.send_signal(signal.SIGTERM)
    assert foreground.wait(90) == 0
    assert platform.run("status").returncode == 3, "nobody is there to ask"
    assert platform.ask("slow", 0.1) == 200, "Envoy and the pods serve on"
    assert during.result(90) == 200

    foreground = platform.foreground()
    assert (platform.pids("slow"), platform.envoy()["process_id"]) == before, "all were adopted"
    during = callers.submit(platform.ask, "slow", 8.0)
    under_way(platform, until, 1)
    foreground.send_signal(signal.SIGINT)
    assert foreground.wait(90) == 0
    assert during.result(90) == 200, "what was under way was answered"
    assert stray_members(platform.home) == []


def test_down_lets_requests_finish_waiting_ones_too(
    platform: Any, models: dict[str, str], until: Any, callers: ThreadPoolExecutor
) -> None:
    platform.up()
    platform("deploy", models["waits"], "--name", "slow", "--concurrency", "2..2", "--set", "max_pods=2")
    answers = [callers.submit(platform.ask, "slow", 5.0) for _ in range(4)]  # two of them wait in Envoy
    under_way(platform, until, 2)
    platform("down")
    assert [answer.result(90) for answer in answers] == [200] * 4
    assert stray_members(platform.home) == []
    assert platform("down")["stopped"] == [], "there is nothing left to stop"
    platform.up()
    until(lambda: len(platform.pids("slow")) == 2, what="the endpoint is back")
    assert platform.ask("slow", 0.0) == 200


@pytest.mark.slow
def test_a_draining_pod_serves_what_waits_for_it(
    platform: Any, models: dict[str, str], until: Any, callers: ThreadPoolExecutor
) -> None:
    """A request is bound to its pod when it arrives: an update must not cost those that wait there."""
    platform.up()
    platform("deploy", models["waits"], "--name", "slow", "--concurrency", "2..2", "--set", "max_pods=2")
    answers = [callers.submit(platform.ask, "slow", 8.0) for _ in range(6)]
    under_way(platform, until, 2)
    platform("deploy", models["steady"], "--name", "slow", "--concurrency", "2..2")
    assert [pod["phase"] for pod in platform.pods("slow", "draining")] == ["draining"] * 2
    assert [answer.result(90) for answer in answers] == [200] * 6
    until(lambda: not platform.pods("slow", "draining"), what="the old pods have gone")


def test_a_name_is_free_again_as_soon_as_it_is_deleted(
    platform: Any, models: dict[str, str], callers: ThreadPoolExecutor
) -> None:
    platform.up()
    platform("deploy", models["waits"], "--name", "slow", "--concurrency", "2..2")
    during = callers.submit(platform.ask, "slow", 3.0)
    time.sleep(0.5)  # it may as well arrive late: then it is told that there is nothing
    platform("delete", "slow")
    platform("deploy", models["steady"], "--name", "slow", "--concurrency", "1..1")
    status = platform.status("slow")
    assert (status["state"], status["serving_revision"]) == ("READY", 1)
    assert len(platform("history", "slow")["changes"]) == 1
    assert during.result(90) in (200, 404)
    assert platform.strays("slow") == []
