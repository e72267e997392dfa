"""Under load: an update, an update that fails, a rollback, a change of range. No request fails."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.e2e


def test_updates_rollbacks_and_ranges_lose_no_request(platform: Any, models: dict[str, str]) -> None:
    platform.up()
    platform("deploy", models["steady"], "--name", "iris", "--concurrency", "2..8")
    load = platform.traffic("iris", "900:10").arrives()  # far from what would move the limit

    first = platform.pids("iris")
    platform("deploy", models["other"], "--name", "iris")
    status = platform.status("iris")
    assert (status["state"], status["serving_revision"]) == ("READY", 2)

    second = platform.pids("iris")
    assert not first & second
    failed = platform.run("deploy", models["crashes"], "--name", "iris")
    assert failed.returncode == 1
    assert "the weights are corrupt" in failed.stderr
    status = platform.status("iris")
    assert (status["state"], status["serving_revision"]) == ("UPDATE_FAILED", 2)
    assert "the weights are corrupt" in status["cause"] + "".join(status["log_tail"])
    assert platform.pids("iris") >= second, "the failed update touched no pod that serves"

    platform("rollback", "iris", "1")
    status = platform.status("iris")
    assert (status["state"], status["serving_revision"]) == ("READY", 1)

    before = platform.pids("iris")
    platform("deploy", models["steady"], "--name", "iris", "--concurrency", "2..20")
    assert platform.status("iris")["serving_revision"] == 1
    assert before <= platform.pids("iris"), "a changed range restarts no pod"

    sent = load.end()
    assert sent["sent"] >= 50, "too little traffic to tell"
    assert (sent["failed"], sent["dropped"]) == (0, 0), sent
    outcomes = [change["outcome"] for change in platform("history", "iris")["changes"]]
    assert outcomes == ["serving", "served", "failed", "served", "served"]
