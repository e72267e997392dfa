"""Pods that hang without dying, under load and behind the real Envoy: noticed, told, replaced."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def told(platform: Any, name: str) -> str:
    """What `trimtab status NAME` says of a pod that was lost."""
    warnings = platform.status(name).get("warnings", [])
    return next((warning for warning in warnings if "a pod was lost" in warning), "")


def test_one_pod_of_several_is_stopped(platform: Any, models: dict[str, str], until: Any) -> None:
    """What it holds is asked of another pod once it is given up, and nobody is told."""
    platform.up()
    platform("deploy", models["steady"], "--name", "iris", "--concurrency", "3..12")
    load = platform.traffic("iris", "900:20").arrives()
    before = platform.pids("iris")
    victim = max(before)
    os.killpg(victim, signal.SIGSTOP)
    until(
        lambda: victim not in (now := platform.pids("iris")) and len(now) >= 3, what="a replacement is ready"
    )
    assert "it hangs: its process" in told(platform, "iris")
    assert "is stopped (SIGSTOP)" in told(platform, "iris")
    assert before - {victim} <= platform.pids("iris"), "its neighbours serve on"
    sent = load.end()
    assert sent["sent"] >= 20, "too little traffic to tell"
    assert (sent["failed"], sent["dropped"]) == (0, 0), sent


def test_a_poison_request_deadlocks_the_model(platform: Any, models: dict[str, str], until: Any) -> None:
    """It is refused when its time is up, its pod is replaced, and it is not tried on the next pod."""
    platform.up()
    bound = ("--set", "request_timeout_s=5")
    platform("deploy", models["deadlocks"], "--name", "iris", "--concurrency", "2..12", *bound)
    before = platform.pids("iris")
    assert len(before) == 2

    def ask(value: float) -> int:
        row = [[value, 0.0, 0.0, 0.0]]
        return requests.post(platform.url("iris"), json={"inputs": row}, timeout=90).status_code

    with ThreadPoolExecutor(1) as caller:
        poisoned = caller.submit(ask, 666)
        answers = [ask(1) for _ in range(20)]
        assert poisoned.result() == 504
    assert answers.count(200) >= 18, "the other pod serves; what met the deadlock is told so in time"
    until(lambda: len(platform.pids("iris") - before) == 1, what="one pod is replaced")
    assert "it hangs: a prediction has run for" in told(platform, "iris")
    until(lambda: len(platform.pids("iris")) >= 2, what="both are ready")
    assert len(before & platform.pids("iris")) == 1, "the other one was not harmed"
    assert [ask(1) for _ in range(10)] == [200] * 10
