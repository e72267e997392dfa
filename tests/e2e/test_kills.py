"""Under load, `kill -9` of each part in turn."""

from __future__ import annotations

import os
import signal
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.e2e


def runs(pid: int) -> bool:
    """Whether it does anything still: a detached process that ended waits for whoever is init here."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.fixture
def serving(platform: Any, models: dict[str, str]) -> Any:
    platform.up()
    platform("deploy", models["steady"], "--name", "iris", "--concurrency", "3..12")
    return platform


def test_the_control_plane_is_killed(platform: Any, models: dict[str, str], until: Any) -> None:
    """Then 30 requests/s of 150 ms each, one at a time in a pod: no fewer than five pods keep up."""
    platform.up()
    ceiling = ("--set", "max_pods=8")
    platform("deploy", models["one-by-one"], "--name", "iris", "--concurrency", "3..40", *ceiling)
    serving = platform
    pids = serving.pids("iris")
    envoy = serving.envoy()["process_id"]
    load = serving.traffic("iris", "900:3").arrives()
    os.kill(serving.control_pid(), signal.SIGKILL)
    until(lambda: serving.run("status", "iris").returncode == 3, what="the control plane is gone")
    serving.up()
    assert pids <= serving.pids("iris"), "the same pods serve"
    assert serving.envoy()["process_id"] == envoy
    assert serving.status("iris")["serving_revision"] == 1
    spike = serving.traffic("iris", "900:30")
    until(lambda: len(serving.pods("iris")) > 3, what="scaling goes on")
    for sent in (spike.end(), load.end()):
        assert (sent["failed"], sent["dropped"]) == (0, 0), sent
    assert len(serving("history", "iris")["changes"]) == 1, "nothing was deployed again"


def test_one_pod_of_several_is_killed(serving: Any, until: Any) -> None:
    load = serving.traffic("iris", "900:20")
    victims = serving.pids("iris")
    until(lambda: any(pod.get("in_flight") for pod in serving.pods("iris")), what="load arrives")
    victim = max(victims)
    os.kill(victim, signal.SIGKILL)
    until(
        lambda: victim not in (now := serving.pids("iris")) and len(now) >= 3,
        what="a replacement is ready",
    )
    sent = load.end()
    assert sent["sent"] >= 20, "too little traffic to tell"
    assert (sent["failed"], sent["dropped"]) == (0, 0), sent


def test_envoy_is_killed(serving: Any, until: Any) -> None:
    before = serving.envoy()
    os.kill(before["process_id"], signal.SIGKILL)

    def back() -> bool:
        now = serving.envoy()
        return bool(now["connected"]) and now["process_id"] not in (0, before["process_id"])

    until(back, what="Envoy is back")
    until(lambda: not any(s["nack"] for s in serving.envoy()["subscriptions"]), what="no NACK")
    sent = serving.traffic("iris", "5:20").result()
    assert sent["sent"] == 100
    assert sent["failed"] == 0, sent


def test_down_stops_every_process_and_no_other_and_up_brings_all_back(serving: Any, until: Any) -> None:
    ours = {*serving.pids("iris"), serving.control_pid(), serving.envoy()["process_id"]}
    bystander = psutil.Popen(["sleep", "900"], env={**os.environ, "TRIMTAB_HOME": str(serving.home)})
    try:
        serving("down")
        assert not {pid for pid in ours if runs(pid)}
        assert bystander.is_running()
    finally:
        bystander.kill()
        bystander.wait()
    serving.up()
    until(lambda: len(serving.pods("iris")) >= 3, what="the endpoint is back")
    assert serving.traffic("iris", "2:10").result()["failed"] == 0
