"""Under load, parts are killed at several instants of a change. It converges, and nothing is left over."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

pytestmark = pytest.mark.e2e

# Seconds after the command returned: before a pod is there, as it loads, about the switch, in the drain.
INSTANTS_S = (0.0, 1.5, 2.8, 4.5)
LOAD = "900:8"  # a sixth of what two pods bear: far from what would move the limit, and with it their number


@pytest.fixture
def serving(platform: Any, models: dict[str, str]) -> Any:
    platform.up()
    platform("deploy", models["steady"], "--name", "iris", "--concurrency", "2..2")
    return platform


def settled(platform: Any, revision: int, pods: int) -> bool:
    """It serves as was asked for, with these pods and no others."""
    status = platform.status("iris")
    there = [(r["number"], pod["phase"]) for r in status["revisions"] for pod in r.get("pods", [])]
    serves = (status["state"], status["serving_revision"]) == ("READY", revision)
    return serves and there == [(revision, "ready")] * pods


@pytest.mark.slow
def test_the_control_plane_is_killed_at_any_instant_of_an_update(
    serving: Any, models: dict[str, str], until: Any
) -> None:
    load = serving.traffic("iris", LOAD).arrives()
    for index, instant_s in enumerate(INSTANTS_S):
        name, revision = (("other", 2), ("steady", 1))[index % 2]
        serving("deploy", models[name], "--name", "iris", "--concurrency", "2..2", "--no-wait")
        time.sleep(instant_s)
        os.kill(serving.control_pid(), signal.SIGKILL)
        serving.up()
        until(
            lambda revision=revision: settled(serving, revision, 2),
            what=f"killed at {instant_s}",
        )
        assert serving.strays("iris") == []
    sent = load.end()
    assert sent["sent"] >= 50, "too little traffic to tell"
    assert (sent["failed"], sent["dropped"]) == (0, 0), sent
    assert len(serving("history", "iris")["changes"]) == 1 + len(INSTANTS_S), "nothing was deployed twice"


@pytest.mark.slow
def test_the_control_plane_is_killed_while_scaling(serving: Any, models: dict[str, str], until: Any) -> None:
    load = serving.traffic("iris", LOAD).arrives()
    kept = serving.pids("iris")
    for pods, instant_s in ((4, 0.3), (2, 0.3), (3, 1.5), (2, 2.0)):
        concurrency = f"{pods}..{pods}"
        serving("deploy", models["steady"], "--name", "iris", "--concurrency", concurrency, "--no-wait")
        time.sleep(instant_s)
        os.kill(serving.control_pid(), signal.SIGKILL)
        serving.up()
        until(lambda pods=pods: settled(serving, 1, pods), what=f"{pods} pods")
        assert kept <= serving.pids("iris"), "the oldest stay"
        assert serving.strays("iris") == []
    sent = load.end()
    assert (sent["failed"], sent["dropped"]) == (0, 0), sent


def test_envoy_and_a_pod_are_killed_during_an_update(
    serving: Any, models: dict[str, str], until: Any
) -> None:
    serving("deploy", models["other"], "--name", "iris", "--concurrency", "2..2", "--no-wait")
    envoy = serving.envoy()["process_id"]

    def new() -> list[int]:
        """Processes of the new revision, however far they are by now."""
        pods = [pod for r in serving.status("iris")["revisions"] if r["number"] == 2 for pod in r["pods"]]
        return [pod["process_id"] for pod in pods if pod["process_id"]]

    pids = until(new, what="the new pods start")
    os.kill(envoy, signal.SIGKILL)
    os.kill(pids[0], signal.SIGKILL)
    until(lambda: settled(serving, 2, 2), what="the update ends well")
    assert serving.strays("iris") == []
    sent = serving.traffic("iris", "2:15").result()
    assert (sent["sent"], sent["failed"]) == (30, 0), sent


def test_a_pod_is_killed_while_it_drains(serving: Any, models: dict[str, str], until: Any) -> None:
    load = serving.traffic("iris", LOAD).arrives()
    serving("deploy", models["other"], "--name", "iris", "--concurrency", "2..2")
    for pod in serving.pods("iris", "draining"):
        os.kill(pod["process_id"], signal.SIGKILL)
    until(lambda: settled(serving, 2, 2), what="the old pods are gone")
    sent = load.end()
    assert (sent["failed"], sent["dropped"]) == (0, 0), sent


def test_everything_is_killed_at_once(serving: Any, until: Any) -> None:
    victims = {serving.control_pid(), serving.envoy()["process_id"], *serving.pids("iris")}
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    serving.up()
    until(lambda: settled(serving, 1, 2), what="it is back")
    assert not victims & serving.pids("iris")
    assert serving.strays("iris") == []
    assert serving.traffic("iris", "2:15").result()["failed"] == 0
